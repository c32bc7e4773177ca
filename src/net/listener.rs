//! Drives. The listening socket: bound early, so that a taken address fails before anything is read; listening late, so that nobody connects
//! before the log is recovered.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel completes and holds until they are accepted.
const BACKLOG: i32 = 4096;

/// A socket that has its address and does not listen yet.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    address: SocketAddr,
}

/// TCP_NODELAY is set here because accepted sockets inherit it: replies go out as whole turns, so nothing is gained by holding
/// a last segment back.
pub fn bind(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    let address = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Bound { socket, address })
}

impl Bound {
    /// With port 0 asked for, the port that was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn listen(self) -> io::Result<TcpListener> {
        self.socket.listen(BACKLOG)?;
        Ok(self.socket.into())
    }
}
