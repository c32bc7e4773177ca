//! Pure. The memory for requests that are not yet whole: one pool a core, with a bound in sum, whose buffers are used again.
//!
//! A connection borrows a buffer only for bytes that it was really sent, so a large Content-Length alone holds nothing.
//! What one connection can hold is bounded by its framing: a torn line of a head by `head_bytes_max`, a body by
//! `body_bytes_max`, what is kept while it is paused by `HELD_BYTES_MAX`; each at most quadrupled by its size class.

/// The smallest buffer. Each class is four times the one before: growing copies a byte 4/3 times on average at most.
const SMALLEST_BYTES: usize = 4096;

/// 4 KiB × 4^9 = 1 GiB: more than any body that the configuration allows.
const CLASSES: usize = 10;

/// Buffers lent and kept together never exceed the bound.
#[derive(Debug)]
pub struct AssemblyPool {
    bytes_max: usize,
    /// Capacity of all buffers that exist, lent and kept.
    bytes: usize,
    lent_bytes: usize,
    kept: [Vec<Vec<u8>>; CLASSES],
}

impl AssemblyPool {
    pub fn new(bytes_max: u64) -> AssemblyPool {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        AssemblyPool { bytes_max, bytes: 0, lent_bytes: 0, kept: Default::default() }
    }

    /// Capacity of the buffers that connections hold now.
    pub fn lent_bytes(&self) -> usize {
        self.lent_bytes
    }

    /// Appends to a buffer of the pool (or to one of no capacity, which is none yet), growing it if it must. `false`: the
    /// pool is used up, and nothing was appended.
    #[must_use]
    pub fn append(&mut self, buffer: &mut Vec<u8>, more: &[u8]) -> bool {
        let needed = buffer.len() + more.len();
        if needed > buffer.capacity() {
            let Some(mut larger) = self.lend(needed) else { return false };
            larger.extend_from_slice(buffer);
            self.give_back(std::mem::replace(buffer, larger));
        }
        buffer.extend_from_slice(more);
        true
    }

    /// Takes a connection's buffer back, and leaves it none.
    pub fn reclaim(&mut self, buffer: &mut Vec<u8>) {
        if buffer.capacity() > 0 {
            self.give_back(std::mem::take(buffer));
        }
    }

    fn lend(&mut self, needed: usize) -> Option<Vec<u8>> {
        let class = class_of(needed)?;
        let size = SMALLEST_BYTES << (2 * class);
        let buffer = match self.kept[class].pop() {
            Some(buffer) => buffer,
            None => {
                self.make_room(size)?;
                self.bytes += size;
                Vec::with_capacity(size)
            }
        };
        self.lent_bytes += size;
        assert!(self.lent_bytes <= self.bytes && self.bytes <= self.bytes_max, "the assembly pool is over its bound");
        Some(buffer)
    }

    /// Frees kept buffers of other sizes, largest first, until `size` fits.
    fn make_room(&mut self, size: usize) -> Option<()> {
        if self.lent_bytes + size > self.bytes_max {
            return None;
        }
        for class in (0..CLASSES).rev() {
            while self.bytes + size > self.bytes_max && self.kept[class].pop().is_some() {
                self.bytes -= SMALLEST_BYTES << (2 * class);
            }
        }
        (self.bytes + size <= self.bytes_max).then_some(())
    }

    fn give_back(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() == 0 {
            return;
        }
        let class = class_of(buffer.capacity()).expect("the capacity is a class's, since the pool lent it");
        let size = SMALLEST_BYTES << (2 * class);
        assert!(self.lent_bytes >= size, "a buffer came back to the assembly pool that was not lent by it");
        self.lent_bytes -= size;
        buffer.clear();
        self.kept[class].push(buffer);
    }
}

fn class_of(needed: usize) -> Option<usize> {
    (0..CLASSES).find(|class| needed <= SMALLEST_BYTES << (2 * class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_an_empty_pool_says_so() {
        let mut pool = AssemblyPool::new(20 * 1024);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        assert!(pool.append(&mut first, &[1; 4096]));
        // Growing holds both sizes for a moment: 4 + 16 KiB fit exactly.
        assert!(pool.append(&mut first, &[2]));
        assert_eq!(pool.lent_bytes(), 16 * 1024);
        assert!(pool.append(&mut second, b"small"));
        assert!(!pool.append(&mut second, &[0; 4096]), "a third size does not fit");
        assert_eq!(second, b"small", "a refused append changes nothing");
        pool.reclaim(&mut first);
        assert!(pool.append(&mut second, &[0; 4096]));
        pool.reclaim(&mut second);
        assert_eq!(pool.lent_bytes(), 0);
    }

    #[test]
    fn kept_buffers_of_another_size_make_room() {
        let mut pool = AssemblyPool::new(16 * 1024);
        let mut buffers: Vec<Vec<u8>> = vec![Vec::new(); 4];
        for buffer in &mut buffers {
            assert!(pool.append(buffer, b"x"));
        }
        for buffer in &mut buffers {
            pool.reclaim(buffer);
        }
        let mut large = Vec::new();
        assert!(pool.append(&mut large, &[0; 10_000]));
        assert_eq!((pool.bytes, pool.lent_bytes), (16 * 1024, 16 * 1024));
    }

    #[test]
    fn buffers_are_used_again() {
        let mut pool = AssemblyPool::new(1 << 20);
        let mut buffer = Vec::new();
        assert!(pool.append(&mut buffer, b"x"));
        let place = buffer.as_ptr();
        pool.reclaim(&mut buffer);
        assert!(pool.append(&mut buffer, b"y"));
        assert_eq!(buffer.as_ptr(), place);
    }
}
