//! The bench's allocator: the system's, which also counts the calls of each thread, so that "allocates nothing" is a number.
//! Unsafe, because an allocator is; it passes every call on as it is.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// Calls of this thread that took memory or moved it, so far.
pub fn allocations() -> u64 {
    CALLS.get()
}

pub struct Counting;

// SAFETY: every method hands its arguments to `System` unchanged and returns what that returns; the counter is a constant
// thread-local without a destructor, so that touching it neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(memory, layout, bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_and_growing_count_and_giving_back_does_not() {
        let before = allocations();
        let mut bytes: Vec<u8> = Vec::with_capacity(8);
        assert_eq!(allocations() - before, 1);
        bytes.reserve_exact(4096);
        assert_eq!(allocations() - before, 2);
        drop(bytes);
        assert_eq!(allocations() - before, 2);
    }
}
