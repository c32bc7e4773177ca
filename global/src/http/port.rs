//! A port that is asked by anybody who reaches it: how many connections it holds, for how long one that does nothing, and one that
//! does not take its answer. Each takes a descriptor, and an edge needs its descriptors for clicks and for its log; an answer is memory
//! until it is taken.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// A connection on which nothing moves for so long is closed, and one whose question began to come so long ago, by however few bytes at a
/// time, and nothing of an answer was sent: longer than a question waits for its turn and is answered, and
/// than live events are silent.
const IDLE: Duration = Duration::from_secs(60);
/// A peer that takes nothing of what it is sent for so long is cut off, whether it reads slowly or is gone.
const STALL_MS: u32 = 10_000;
/// An answer that its peer has not wholly taken after so long ends the connection, however steadily it reads. Streams have no end, and
/// hold no more than a few states.
const TAKE: Duration = Duration::from_secs(60);
/// Between two tries where a connection cannot be accepted.
const AGAIN: Duration = Duration::from_millis(500);

/// What one port may hold of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortLimits {
    /// Connections at a time; the next wait in the kernel until one ends.
    pub connections_max: usize,
    pub idle: Duration,
    pub stall_ms: u32,
    /// For taking an answer, from its first byte.
    pub take: Duration,
}

impl PortLimits {
    /// The query port: live clients, and as many that ask.
    pub const QUERY: PortLimits = PortLimits { connections_max: 512, idle: IDLE, stall_ms: STALL_MS, take: TAKE };
    /// The admin port: scrapers and people.
    pub const ADMIN: PortLimits = PortLimits { connections_max: 64, idle: IDLE, stall_ms: STALL_MS, take: TAKE };
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
        let PortLimits { idle, take, .. } = self.limits;
        let (ends, late) = (Box::pin(sleep(idle)), Box::pin(sleep(take)));
        let answers = Answers::default();
        let is_asked = false;
        (
            Connection { stream, idle, ends, is_asked, take, late, sending: Sending::Nothing, answers, _place: place },
            peer,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One that ends when nothing has moved for a while, or an answer is not taken in its time.
pub struct Connection {
    stream: TcpStream,
    idle: Duration,
    ends: Pin<Box<Sleep>>,
    /// Of a question something came, and nothing was sent since.
    is_asked: bool,
    take: Duration,
    /// When what is being sent must have been taken.
    late: Pin<Box<Sleep>>,
    sending: Sending,
    answers: Answers,
    _place: OwnedSemaphorePermit,
}

/// What the server has of bytes that the kernel has not taken from it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Nothing,
    Answer,
    Stream,
}

/// What the connection is told of the answers that it sends: whether the newest has an end.
#[derive(Clone, Default)]
pub struct Answers {
    is_stream: Arc<AtomicBool>,
}

impl Connected<IncomingStream<'_, Port>> for Answers {
    fn connect_info(stream: IncomingStream<'_, Port>) -> Answers {
        stream.io().answers.clone()
    }
}

/// Tells each answer's connection what it is.
pub async fn tell(ConnectInfo(answers): ConnectInfo<Answers>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    answers.is_stream.store(is_stream(&response), Ordering::Relaxed);
    response
}

/// Whether an answer has no end of its own.
pub fn is_stream(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

impl Connection {
    fn moved(&mut self) {
        self.ends.as_mut().reset(Instant::now() + self.idle);
    }

    /// After a try to write: the first one of an answer begins its time, which ends when all is flushed.
    fn tried(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if self.sending == Sending::Nothing {
            // Asked for now, not later: behind an answer that is not taken a stream may be asked for on the same connection.
            let is_stream = self.answers.is_stream.load(Ordering::Relaxed);
            self.sending = if is_stream { Sending::Stream } else { Sending::Answer };
            self.late.as_mut().reset(Instant::now() + self.take);
        }
        if written.is_ready() {
            self.is_asked = false;
            self.moved();
        } else if self.sending == Sending::Answer && self.late.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if read.is_ready() {
            // What comes after its first bytes gives a question no more time.
            if !std::mem::replace(&mut self.is_asked, true) {
                self.moved();
            }
        } else if self.ends.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.tried(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.tried(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It is called when all was written.
        self.sending = Sending::Nothing;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, Bytes};
    use axum::response::IntoResponse;
    use axum::routing::get;
    use axum::{Router, middleware};
    use std::convert::Infallible;
    use std::io::{Read as _, Write as _};

    /// More than sockets hold on both sides.
    const LARGE_BYTES: usize = 64 << 20;

    async fn endless() -> impl IntoResponse {
        let piece = Bytes::from(vec![b'x'; 64 << 10]);
        let pieces = futures_util::stream::repeat_with(move || Ok::<_, Infallible>(piece.clone()));
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces))
    }

    fn served(limits: PortLimits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let router = Router::new()
                .route("/", get(|| async { "here" }))
                .route("/large", get(|| async { vec![b'x'; LARGE_BYTES] }))
                .route("/stream", get(endless))
                .layer(middleware::from_fn(tell));
            let service = router.into_make_service_with_connect_info::<Answers>();
            runtime.block_on(async { axum::serve(Port::new(listener, limits).expect("a port"), service).await })
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
        let limits = PortLimits { connections_max: 3, idle: Duration::from_millis(400), ..PortLimits::QUERY };
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

    /// Lets time pass in which another client is answered.
    fn meanwhile(address: SocketAddr, time: Duration) {
        let (mut other, began, mut piece) = (connect(address), std::time::Instant::now(), [0; 4096]);
        while began.elapsed() < time {
            other.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
            let mut answer = Vec::new();
            while !answer.ends_with(b"here") {
                let read = other.read(&mut piece).expect("it is answered at once");
                answer.extend_from_slice(&piece[..read]);
            }
        }
    }

    #[test]
    fn a_question_that_comes_byte_by_byte_is_not_waited_for() {
        let idle = Duration::from_millis(400);
        let address = served(PortLimits { idle, ..PortLimits::QUERY });
        let (mut slow, began) = (connect(address), std::time::Instant::now());
        slow.write_all(b"GET / HTTP/1.1\r\nX: ").expect("sent");
        while slow.write_all(b"a").is_ok() {
            assert!(began.elapsed() < 20 * idle, "it holds its place");
            meanwhile(address, idle / 10);
        }
        // One that asks again and again has the time anew with each answer.
        meanwhile(address, 3 * idle);
    }

    /// Takes an answer, after each piece of `piece_bytes` letting a time pass, until it is as long as it should be or the connection
    /// ends; returns how many bytes came.
    fn takes(stream: &mut std::net::TcpStream, piece_bytes: usize, between: impl Fn()) -> usize {
        let (mut piece, mut taken) = (vec![0; piece_bytes], 0);
        while taken < LARGE_BYTES {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(read) => taken += read,
            }
            between();
        }
        taken
    }

    #[test]
    fn an_answer_has_a_time_to_be_taken_in_and_a_stream_has_none() {
        let take = Duration::from_millis(500);
        let address = served(PortLimits { take, ..PortLimits::QUERY });
        let asked = |paths: &[&str]| {
            let mut stream = connect(address);
            for path in paths {
                write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
            }
            stream
        };
        let slowly = || meanwhile(address, Duration::from_millis(2));
        assert!(takes(&mut asked(&["/large"]), 4096, slowly) < LARGE_BYTES, "slow and steady, it was not cut off");
        let mut stream = asked(&["/stream"]);
        meanwhile(address, 3 * take);
        assert_eq!(takes(&mut stream, 1 << 20, || ()).min(LARGE_BYTES), LARGE_BYTES, "a stream was cut off");
        let taken = takes(&mut asked(&["/large", "/stream"]), 4096, slowly);
        assert!(taken < LARGE_BYTES, "a stream that is asked for behind it gives no time");
    }
}
