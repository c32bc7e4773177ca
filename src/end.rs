//! Drives. The end of the process, at once. Holds `unsafe`: nothing else ends it without what libraries do at an exit.
#![allow(unsafe_code)]

use crate::exit::Exit;

/// Ends the process with all its threads, and without what libraries have registered for the exit: Kafka's client still has threads
/// that speak TLS, OpenSSL's own cleaning up would take from under them what they use, and a clean stop would end by a signal.
/// What was printed is to be flushed before.
pub fn end(exit: Exit) -> ! {
    // SAFETY: it takes a number, touches no memory of ours, and does not return.
    unsafe { libc::_exit(exit.code()) }
}
