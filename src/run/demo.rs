//! Drives. `tollgate up --demo`: a thread that sends this process clicks over its own listen port, as any client would. It gives way to
//! every other thread, and ends with the process.

mod clicks;

use std::io::{BufRead as _, BufReader, Error, ErrorKind, Read as _, Result, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use self::clicks::Clicks;
use super::{Work, spawn};
use crate::start::Failure;
use crate::worker::wall_ms;

const CLICKS_A_SECOND: f64 = 300.0;
const EVERY: Duration = Duration::from_millis(100);
/// After an answer that is no receipt, or none.
const PAUSE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
/// Every so many requests one is of a browser that fetches ahead.
const PREFETCH_EVERY: u64 = 40;
/// Of an answer, no more is read than one with an error for each click has.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Begins where that is what this process is for.
pub(super) fn start(work: Work, listen: Option<SocketAddr>) -> std::result::Result<(), Failure> {
    if let (Work::Demo, Some(address)) = (work, listen) {
        spawn("demo", move || feed(address))?;
    }
    Ok(())
}

/// Until the process ends.
fn feed(listen: SocketAddr) {
    // A host where that is refused has a demo of ordinary priority.
    let _ = rustix::process::setpriority_process(None, 19);
    let address = reachable(listen);
    tracing::warn!(
        "--demo: this edge sends itself some {CLICKS_A_SECOND} clicks a second that nobody made; they are counted like any others, in a \
         data directory that from now on is a demo's alone (their ads begin with demo_)"
    );
    let mut clicks = Clicks::new(wall_ms() as u64);
    loop {
        if let Err(error) = send(address, &mut clicks) {
            tracing::debug!("--demo: {error}");
        }
        sleep(PAUSE);
    }
}

/// On one connection, until something is not as it should be.
fn send(address: SocketAddr, clicks: &mut Clicks) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut before_ms = wall_ms();
    for turn in 0u64.. {
        sleep(EVERY);
        let now_ms = wall_ms();
        let over_ms = (now_ms - before_ms).clamp(0, PAUSE.as_millis() as i64);
        before_ms = now_ms;
        let count = clicks.due(now_ms, CLICKS_A_SECOND, over_ms as u64).max(1);
        let body = clicks.lines(now_ms, count);
        let ahead = if turn % PREFETCH_EVERY == 0 { "Sec-Purpose: prefetch\r\n" } else { "" };
        write!(
            stream,
            "POST /v1/clicks HTTP/1.1\r\nHost: demo\r\nContent-Type: application/x-ndjson\r\n{ahead}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let status = status(&mut answers)?;
        // A stop says so with its answers; what is shed is not sent again.
        if status != 202 {
            return Err(Error::other(format!("answered {status}")));
        }
    }
    Ok(())
}

/// Reads one answer to its end.
fn status(answers: &mut BufReader<TcpStream>) -> Result<u16> {
    let mut answers = answers.take(ANSWER_BYTES_MAX);
    let (mut status, mut body_bytes) = (None, 0);
    loop {
        let mut line = String::new();
        if answers.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        match status {
            None => status = line.split(' ').nth(1).and_then(|code| code.parse().ok()),
            Some(_) => {
                if let Some(length) = line.strip_prefix("content-length:") {
                    body_bytes = length.trim().parse().map_err(Error::other)?;
                }
            }
        }
    }
    std::io::copy(&mut answers.take(body_bytes), &mut std::io::sink())?;
    status.ok_or_else(|| ErrorKind::InvalidData.into())
}

/// Where a port that listens on every address is reached from here.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_port_on_every_address_is_reached_on_the_loopback() {
        for (listen, want) in
            [("0.0.0.0:7", "127.0.0.1:7"), ("[::]:7", "[::1]:7"), ("10.0.0.1:7", "10.0.0.1:7"), ("[::1]:9", "[::1]:9")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), want.parse().unwrap());
        }
    }

    #[test]
    fn answers_are_read_to_their_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut answers = BufReader::new(listener.accept().unwrap().0);
        client.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\n{1}HTTP/1.1 503 x\r\n\r\n").unwrap();
        assert_eq!((status(&mut answers).unwrap(), status(&mut answers).unwrap()), (202, 503));
        drop(client);
        assert_eq!(status(&mut answers).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
