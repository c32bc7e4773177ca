//! Options of sockets that no crate of ours has. Holds `unsafe`: the kernel reads and writes an `int` that is named to it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Keeps the interrupts of a NIC's queue back while it is polled. Needs CAP_NET_ADMIN.
pub fn set_prefer_busy_poll(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::SO_PREFER_BUSY_POLL, 1)
}

/// The NIC's queue that the last packet came by; 0: of a device without NAPI, such as loopback.
pub fn incoming_napi_id(socket: impl AsFd) -> io::Result<u32> {
    get(socket, libc::SO_INCOMING_NAPI_ID).map(|id| id as u32)
}

fn set(socket: impl AsFd, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call, and `value` lives as long; the kernel reads `length` bytes of it.
    let answer = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const value).cast(), length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get(socket: impl AsFd, option: i32) -> io::Result<i32> {
    let (mut value, mut length) = (0_i32, size_of::<i32>() as libc::socklen_t);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call; the kernel writes at most `length` bytes, which are those of `value`.
    let answer = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut length) };
    if answer == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn options_read_and_set_as_a_crate_does() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        for bytes in [8192, 65_536] {
            set(&socket, libc::SO_RCVBUF, bytes).unwrap();
            assert_eq!(get(&socket, libc::SO_RCVBUF).unwrap() as usize, socket.recv_buffer_size().unwrap());
            assert!(socket.recv_buffer_size().unwrap() >= bytes as usize);
        }
        assert_eq!(get(&socket, -1).unwrap_err().raw_os_error(), Some(libc::ENOPROTOOPT));
        assert_eq!(set(&socket, -1, 1).unwrap_err().raw_os_error(), Some(libc::ENOPROTOOPT));
    }

    #[test]
    fn loopback_has_no_queue() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(incoming_napi_id(&client).unwrap(), 0);
    }
}
