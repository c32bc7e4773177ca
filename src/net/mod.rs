//! The network side. Pure: how HTTP/1.1 is framed, refused and answered, one connection at a time.

pub mod assembly;
pub mod chunked;
pub mod connection;
pub mod fault;
pub mod http;
pub mod media;
mod remembered;
pub mod reply;
