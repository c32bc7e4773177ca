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

/// One socket for each of `cores`, all with one address: the kernel spreads connections over them. An address that another process
/// has, shared or not, is refused, because it is first taken without sharing it.
pub fn bind(address: SocketAddr, cores: u16) -> io::Result<Vec<Bound>> {
    let alone = bind_one(address, false)?;
    if cores == 1 {
        return Ok(vec![alone]);
    }
    let address = alone.address;
    drop(alone);
    (0..cores).map(|_| bind_one(address, true)).collect()
}

/// TCP_NODELAY is set here because accepted sockets inherit it: replies go out as whole turns, so nothing is gained by holding
/// a last segment back.
fn bind_one(address: SocketAddr, shared: bool) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
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
