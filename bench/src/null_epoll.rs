//! The null server over epoll, level-triggered: read once, answer, wait. One thread. Unsafe: the epoll calls of libc.
#![allow(unsafe_code)]

use crate::null_http::{Args, Requests, listen};
use crate::null_uring::pin;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const EVENTS_MAX: usize = 512;
const READ_BYTES: usize = 64 << 10;

struct Connection {
    stream: TcpStream,
    requests: Requests,
    out: Vec<u8>,
    waits_for_room: bool,
}

pub fn run(args: &Args) -> io::Result<()> {
    args.cpu.map(pin).transpose()?;
    let listener = listen(args)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.set(libc::EPOLL_CTL_ADD, listener.as_raw_fd(), libc::EPOLLIN)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let ready = epoll.wait(&mut events)?;
        for event in &events[..ready] {
            let fd = event.u64 as usize;
            if fd == listener.as_raw_fd() as usize {
                while let Ok((stream, _)) = listener.accept() {
                    admit(stream, &epoll, &mut connections)?;
                }
            } else if let Some(connection) = connections[fd].as_mut()
                && !serve(connection, &mut buffer, &epoll)
            {
                connections[fd] = None;
            }
        }
    }
}

fn admit(stream: TcpStream, epoll: &Epoll, connections: &mut Vec<Option<Connection>>) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let fd = stream.as_raw_fd();
    epoll.set(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN)?;
    connections.resize_with(connections.len().max(fd as usize + 1), || None);
    connections[fd as usize] =
        Some(Connection { stream, requests: Requests::default(), out: Vec::new(), waits_for_room: false });
    Ok(())
}

/// Reads once and answers. `false`: the connection is over.
fn serve(connection: &mut Connection, buffer: &mut [u8], epoll: &Epoll) -> bool {
    if !connection.waits_for_room {
        match connection.stream.read(buffer) {
            Ok(0) => return false,
            Ok(received) => {
                if connection.requests.received(&buffer[..received], &mut connection.out).is_err() {
                    return false;
                }
            }
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    while !connection.out.is_empty() {
        match connection.stream.write(&connection.out) {
            Ok(sent) => drop(connection.out.drain(..sent)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => return false,
        }
    }
    let waits_for_room = !connection.out.is_empty();
    if waits_for_room != connection.waits_for_room {
        connection.waits_for_room = waits_for_room;
        let interest = if waits_for_room { libc::EPOLLOUT } else { libc::EPOLLIN };
        return epoll.set(libc::EPOLL_CTL_MOD, connection.stream.as_raw_fd(), interest).is_ok();
    }
    true
}

struct Epoll(OwnedFd);

impl Epoll {
    fn new() -> io::Result<Epoll> {
        // SAFETY: no memory is passed; a descriptor that is not negative is new and ours alone.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn set(&self, operation: libc::c_int, fd: RawFd, interest: libc::c_int) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: fd as u64 };
        // SAFETY: `event` lives through the call, which only reads it.
        let result = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, fd, &mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn wait(&self, events: &mut [libc::epoll_event]) -> io::Result<usize> {
        let room = events.len() as libc::c_int;
        // SAFETY: the kernel writes at most `room` events, which is the slice's length.
        let ready = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), room, -1) };
        match ready {
            ready if ready >= 0 => Ok(ready as usize),
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => Ok(0),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
