//! The network: HTTP/1.1 framing, refusals and replies, one connection at a time (pure), and the ring that drives sockets and
//! the log's writes.

pub mod assembly;
pub mod buffers;
pub mod chunked;
pub mod connection;
pub mod fault;
pub mod http;
pub mod incoming_cpu;
pub mod listener;
pub mod media;
mod remembered;
pub mod reply;
pub mod ring;
pub mod ring_probe;
pub mod sockopt;
