//! The network: HTTP framing and connections (pure), and the ring that drives sockets and the log's writes.

pub mod buffers;
pub mod listener;
pub mod ring;
