//! One connection: carries bytes between a socket and the feed, full duplex, and opens a new one when it breaks. Runs as a
//! task on its thread's executor.

use crate::clicks::CLICK_BYTES;
use crate::feed::Feed;
use crate::plan::Plan;
use crate::text::mix;
use futures_lite::future::poll_fn;
use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::timer::sleep;
use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

const READ_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// The request line and header fields, the same for every request of a run to this host.
pub fn head(plan: &Plan, host: usize) -> Vec<u8> {
    let kind = if plan.batch == 1 { "application/json" } else { "application/x-ndjson" };
    let body_bytes = plan.batch as usize * (CLICK_BYTES + 1) - 1;
    let target = plan.targets[host];
    format!(
        "POST /v1/clicks HTTP/1.1\r\nHost: {target}\r\nContent-Type: {kind}\r\nContent-Length: {body_bytes}\r\n\r\n"
    )
    .into_bytes()
}

/// Keeps connection `lane` going until the feed is done.
pub async fn run(feed: Rc<RefCell<Feed>>, lane: usize, plan: Rc<Plan>, start: Instant) {
    let now_ns = || start.elapsed().as_nanos() as u64;
    while !feed.borrow().is_done() {
        let target = plan.targets[lane % plan.targets.len()];
        let Ok(stream) = connect(target, plan.busy_poll).await else {
            pause(lane, plan.busy_poll).await;
            continue;
        };
        feed.borrow_mut().opened(lane, now_ns());
        let mut socket = Socket { stream, sending: Vec::new(), sent: 0, input: vec![0; READ_BYTES], filled: 0 };
        while let Step::Received = poll_fn(|context| socket.poll(&feed, lane, context)).await {
            let taken = feed.borrow_mut().received(lane, &socket.input[..socket.filled], now_ns());
            let Ok(taken) = taken else { break };
            socket.input.copy_within(taken..socket.filled, 0);
            socket.filled -= taken;
        }
        feed.borrow_mut().lost(lane, now_ns());
    }
}

/// Until a connection is tried again. Without a timer where the executor never looks at them.
async fn pause(lane: usize, busy_poll: bool) {
    let began = Instant::now();
    // A server that comes back is not met by all at once.
    let pause = RECONNECT_PAUSE.mul_f64(0.5 + (mix(lane as u64) % 1_000) as f64 / 1e3);
    while busy_poll && began.elapsed() < pause {
        glommio::executor().yield_now().await;
    }
    if !busy_poll {
        sleep(pause).await;
    }
}

async fn connect(target: SocketAddr, busy_poll: bool) -> Result<Stream, glommio::GlommioError<()>> {
    if busy_poll {
        // Holds the thread up while it lasts: at once or never, on the machine or the network this is for.
        let stream = std::net::TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        return Ok(Stream::Polling(stream));
    }
    let stream = glommio::net::TcpStream::connect_timeout(target, CONNECT_TIMEOUT).await?;
    stream.set_nodelay(true)?;
    Ok(Stream::Waiting(stream))
}

/// How a connection learns that there is something to read.
enum Stream {
    /// From the kernel, which wakes this thread; the sender of those bytes pays for it where both are one machine.
    Waiting(glommio::net::TcpStream),
    /// By looking, again and again.
    Polling(std::net::TcpStream),
}

impl Stream {
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Waiting(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Polling(stream) => look_again(stream.write(bytes), context),
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Waiting(stream) => Pin::new(stream).poll_read(context, room),
            Stream::Polling(stream) => look_again(stream.read(room), context),
        }
    }
}

/// The task stays runnable while its socket is not ready.
fn look_again(result: io::Result<usize>, context: &Context<'_>) -> Poll<io::Result<usize>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
        done => Poll::Ready(done),
    }
}

struct Socket {
    stream: Stream,
    sending: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    filled: usize,
}

enum Step {
    Received,
    Lost,
}

impl Socket {
    /// Sends what the feed has until the socket is full, then reads. Woken by either, or by the feed.
    fn poll(&mut self, feed: &RefCell<Feed>, lane: usize, context: &mut Context<'_>) -> Poll<Step> {
        loop {
            if self.sent == self.sending.len() {
                let mut feed = feed.borrow_mut();
                if feed.is_done() || feed.lanes[lane].kill {
                    return Poll::Ready(Step::Lost);
                }
                self.sending = feed.take_out(lane, std::mem::take(&mut self.sending));
                self.sent = 0;
                if self.sending.is_empty() {
                    feed.lanes[lane].waker = Some(context.waker().clone());
                    break;
                }
            }
            match self.stream.poll_write(context, &self.sending[self.sent..]) {
                Poll::Ready(Ok(sent)) if sent > 0 => self.sent += sent,
                Poll::Ready(_) => return Poll::Ready(Step::Lost),
                Poll::Pending => {
                    let mut feed = feed.borrow_mut();
                    if feed.is_done() || feed.lanes[lane].kill {
                        return Poll::Ready(Step::Lost);
                    }
                    feed.lanes[lane].waker = Some(context.waker().clone());
                    break;
                }
            }
        }
        match self.stream.poll_read(context, &mut self.input[self.filled..]) {
            Poll::Ready(Ok(received)) if received > 0 => {
                self.filled += received;
                Poll::Ready(Step::Received)
            }
            Poll::Ready(_) => Poll::Ready(Step::Lost),
            Poll::Pending => Poll::Pending,
        }
    }
}
