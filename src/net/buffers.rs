//! Drives. The receive buffers that all connections of a core share: one slab, and the ring through which the kernel takes
//! buffers from it. Runs on the worker's thread. Holds `unsafe`: the ring is memory shared with the kernel.
//!
//!     ring   | entry 0: addr len bid tail | entry 1: addr len bid – | …      16 B each, a power of two of them
//!     slab   | buffer 0 | buffer 1 | … |
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use memmap2::MmapMut;

/// The buffer group that every receive names.
pub const GROUP: u16 = 0;

pub struct ReceiveBuffers {
    ring: MmapMut,
    slab: MmapMut,
    count: u16,
    buffer_bytes: u32,
    /// Next entry to fill; the kernel sees it when it is published.
    tail: u16,
    /// Buffers that the kernel holds or may take.
    with_kernel: u16,
}

impl ReceiveBuffers {
    /// Takes the memory: `count` (a power of two) buffers of `buffer_bytes` each.
    pub fn new(count: u16, buffer_bytes: u32) -> io::Result<ReceiveBuffers> {
        assert!(count.is_power_of_two(), "a buffer ring has a power of two of entries, not {count}");
        let ring = MmapMut::map_anon(usize::from(count) * size_of::<BufRingEntry>())?;
        let slab = MmapMut::map_anon(usize::from(count) * buffer_bytes as usize)?;
        Ok(ReceiveBuffers { ring, slab, count, buffer_bytes, tail: 0, with_kernel: 0 })
    }

    /// Registers the ring and hands every buffer to the kernel. The value must outlive the ring it is registered with.
    pub fn register(&mut self, submitter: &Submitter<'_>) -> io::Result<()> {
        // SAFETY: the ring's memory is page-aligned, lives as long as `self`, and only `give` writes to it from now on.
        unsafe { submitter.register_buf_ring_with_flags(self.ring.as_ptr() as u64, self.count, GROUP, 0)? };
        for id in 0..self.count {
            self.give(id);
        }
        self.publish();
        Ok(())
    }

    /// What the kernel wrote to buffer `id`. The kernel must have completed it and not been given it back.
    pub fn bytes(&self, id: u16, length: u32) -> &[u8] {
        assert!(id < self.count && length <= self.buffer_bytes, "the kernel named buffer {id} with {length} bytes");
        let from = usize::from(id) * self.buffer_bytes as usize;
        &self.slab[from..from + length as usize]
    }

    /// One buffer is the reader's until it is given back.
    pub fn taken(&mut self) {
        assert!(self.with_kernel > 0, "more buffers came back than the kernel holds");
        self.with_kernel -= 1;
    }

    /// Puts a buffer back; the kernel may use it after `publish`.
    pub fn give(&mut self, id: u16) {
        assert!(self.with_kernel < self.count, "buffer {id} was given twice");
        let address = self.slab.as_ptr() as u64 + u64::from(id) * u64::from(self.buffer_bytes);
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `index` is below `count`, so the entry lies in the ring; the kernel reads it only once `publish` has moved
        // the tail past it. The first entry's last field is the tail: it is not written here.
        unsafe {
            let entry = &mut *self.ring.as_mut_ptr().cast::<BufRingEntry>().add(index);
            entry.set_addr(address);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        self.with_kernel += 1;
    }

    /// Shows the kernel every buffer given since the last call.
    pub fn publish(&mut self) {
        // SAFETY: the tail is a u16 inside the first entry, aligned, in memory that lives as long as `self`; the kernel reads
        // it with acquire semantics, so the entries written before it are seen whole.
        unsafe {
            let tail = BufRingEntry::tail(self.ring.as_ptr().cast::<BufRingEntry>()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
