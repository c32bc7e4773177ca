//! A port that is asked by anybody who reaches it: how many connections it holds, and for how long one that does nothing. Each takes
//! a descriptor, and an edge needs its descriptors for clicks and for its log.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// A connection on which nothing moves for so long is closed: longer than a question waits for its turn and is answered, and
/// than live events are silent.
const IDLE: Duration = Duration::from_secs(60);
/// A peer that takes nothing of what it is sent for so long is cut off, whether it reads slowly or is gone.
const STALL_MS: u32 = 10_000;
/// Between two tries where a connection cannot be accepted.
const AGAIN: Duration = Duration::from_millis(500);

/// What one port may hold of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortLimits {
    /// Connections at a time; the next wait in the kernel until one ends.
    pub connections_max: usize,
    pub idle: Duration,
    pub stall_ms: u32,
}

impl PortLimits {
    /// The query port: live clients, and as many that ask.
    pub const QUERY: PortLimits = PortLimits { connections_max: 512, idle: IDLE, stall_ms: STALL_MS };
    /// The admin port: scrapers and people.
    pub const ADMIN: PortLimits = PortLimits { connections_max: 64, idle: IDLE, stall_ms: STALL_MS };
}

/// A listener for `axum::serve`.
pub struct Port {
    listener: tokio::net::TcpListener,
    places: Arc<Semaphore>,
    limits: PortLimits,
}

impl Port {
    /// Wants a runtime with I/O and time.
    pub fn new(listener: TcpListener, limits: PortLimits) -> io::Result<Port> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok(Port { listener, places: Arc::new(Semaphore::new(limits.connections_max)), limits })
    }
}

impl Listener for Port {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = self.places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (stream, peer) = loop {
            match self.listener.accept().await {
                Ok(accepted) => break accepted,
                // The peer went away, or the process has no descriptor left: neither ends the port.
                Err(_) => sleep(AGAIN).await,
            }
        };
        // On a connection that is broken already, what is read next says so.
        let _ = stream.set_nodelay(true);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, self.limits.stall_ms);
        let idle = self.limits.idle;
        (Connection { stream, idle, ends: Box::pin(sleep(idle)), _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One that ends when nothing has moved for a while.
pub struct Connection {
    stream: TcpStream,
    idle: Duration,
    ends: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn moved(&mut self) {
        self.ends.as_mut().reset(Instant::now() + self.idle);
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if read.is_ready() {
            self.moved();
        } else if self.ends.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.moved();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        if written.is_ready() {
            self.moved();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use std::io::{Read as _, Write as _};

    fn served(limits: PortLimits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let router = Router::new().route("/", get(|| async { "here" }));
            runtime.block_on(async { axum::serve(Port::new(listener, limits).expect("a port"), router).await })
        });
        address
    }

    fn connect(address: SocketAddr) -> std::net::TcpStream {
        let stream = std::net::TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream
    }

    #[test]
    fn those_that_say_nothing_hold_no_more_places_than_there_are_and_lose_them() {
        let limits = PortLimits { connections_max: 3, idle: Duration::from_millis(400), stall_ms: 10_000 };
        let address = served(limits);
        // One of them stops in the middle of a head.
        let mut silent: Vec<_> = (0..3).map(|_| connect(address)).collect();
        silent[1].write_all(b"GET / HTTP/1.1\r\nHost: a").expect("sent");
        let began = std::time::Instant::now();
        let mut asks = connect(address);
        asks.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        asks.read_to_string(&mut answer).expect("it is answered when a place is free");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
        assert!(began.elapsed() >= Duration::from_millis(300), "a fourth place: {:?}", began.elapsed());
        for stream in &mut silent {
            // Closed, or reset: in any case it ends.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(!rest.starts_with(b"HTTP/1.1 200"));
        }
    }
}
