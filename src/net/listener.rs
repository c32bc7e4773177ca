//! Drives. Opens the listening socket. Runs once, on the main thread.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel completes and holds until they are accepted.
const BACKLOG: i32 = 4096;

/// A listening socket. TCP_NODELAY is set here because accepted sockets inherit it: replies go out as whole turns, so
/// nothing is gained by holding a last segment back.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
