//! Drives. The listening socket: bound early, so that a taken address fails before anything is read; listening late, so that nobody connects
//! before the log is recovered.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, NapiMode, Switch};
use crate::net::sockopt;

/// Connections the kernel completes and holds until they are accepted.
pub const BACKLOG: i32 = 4096;

/// How the sockets are fitted to CPUs and NIC. Accepted ones inherit the polling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenTuning {
    /// The CPU of each worker, where connections are to be accepted where their packets arrive; else empty.
    pub incoming_cpus: Vec<usize>,
    /// 0: not at all.
    pub busy_poll_us: u32,
    pub prefer_busy_poll: bool,
}

impl ListenTuning {
    pub fn of(config: &Config) -> ListenTuning {
        ListenTuning {
            incoming_cpus: match config.tuning.incoming_cpu {
                Switch::On => config.cpus.clone(),
                Switch::Off => Vec::new(),
            },
            busy_poll_us: config.ring.busy_poll_us,
            prefer_busy_poll: config.ring.napi == NapiMode::Prefer,
        }
    }
}

/// Whether a socket may be polled like this.
pub fn try_to_poll(tuning: &ListenTuning) -> io::Result<()> {
    poll(&Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?, tuning)
}

fn poll(socket: &Socket, tuning: &ListenTuning) -> io::Result<()> {
    if tuning.busy_poll_us > 0 {
        socket.set_busy_poll(tuning.busy_poll_us)?;
    }
    if tuning.prefer_busy_poll { sockopt::set_prefer_busy_poll(socket) } else { Ok(()) }
}

/// A socket that has its address and does not listen yet.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    address: SocketAddr,
}

/// One socket for each of `cores`, all with one address: the kernel spreads connections over them. An address that another process
/// has, shared or not, is refused, because it is first taken without sharing it.
pub fn bind(address: SocketAddr, cores: u16, tuning: &ListenTuning) -> io::Result<Vec<Bound>> {
    let alone = bind_one(address, false)?;
    if cores == 1 {
        poll(&alone.socket, tuning)?;
        return Ok(vec![alone]);
    }
    let address = alone.address;
    drop(alone);
    let bound = (0..cores).map(|_| bind_one(address, true)).collect::<io::Result<Vec<_>>>()?;
    for (core, bound) in bound.iter().enumerate() {
        poll(&bound.socket, tuning)?;
        // Before it listens: then it joins the others that share the address, and the kernel takes note.
        if let Some(cpu) = tuning.incoming_cpus.get(core) {
            bound.socket.set_cpu_affinity(*cpu)?;
        }
    }
    Ok(bound)
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
