//! Pure, but for `listen`. What the null servers share: requests found by their head's end and Content-Length and not
//! looked into, and a reply of the same bytes as tollgate's.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use tollgate_loadgen::clicks::CLICK_BYTES;

#[derive(clap::Args)]
pub struct Args {
    /// Where to listen; port 0 takes any.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The CPU to be pinned on.
    #[arg(long)]
    pub cpu: Option<usize>,
}

/// Listens and says so on standard output.
pub fn listen(args: &Args) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(args.listen)?;
    let mut out = io::stdout();
    writeln!(out, "ready listen={}", listener.local_addr()?)?;
    out.flush()?;
    Ok(listener)
}

/// The requests of one connection. All have the same head, so that it is read once, and the clicks of a body are known by its length.
#[derive(Default)]
pub struct Requests {
    /// The beginning of a request that has not come whole; empty while whole requests arrive.
    partial: Vec<u8>,
    head: Vec<u8>,
    body_bytes: usize,
    reply: Vec<u8>,
    /// Bytes of the current body that are still to come.
    missing: usize,
}

/// Head bytes after which a connection is given up.
const HEAD_BYTES_MAX: usize = 8 << 10;

#[derive(Debug, PartialEq, Eq)]
pub struct NotARequest;

impl Requests {
    /// Takes what was received and appends a reply for each request that became whole.
    pub fn received(&mut self, received: &[u8], out: &mut Vec<u8>) -> Result<(), NotARequest> {
        let joined;
        let mut bytes = received;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(received);
            joined = std::mem::take(&mut self.partial);
            bytes = &joined;
        }
        loop {
            let body = self.missing.min(bytes.len());
            self.missing -= body;
            bytes = &bytes[body..];
            if body > 0 && self.missing == 0 {
                out.extend_from_slice(&self.reply);
            }
            if bytes.is_empty() {
                return Ok(());
            }
            if self.head.is_empty() || !bytes.starts_with(&self.head) {
                let Some(head_bytes) = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4) else {
                    self.partial.extend_from_slice(bytes);
                    return if bytes.len() > HEAD_BYTES_MAX { Err(NotARequest) } else { Ok(()) };
                };
                self.learn(&bytes[..head_bytes])?;
            }
            bytes = &bytes[self.head.len()..];
            self.missing = self.body_bytes;
        }
    }

    fn learn(&mut self, head: &[u8]) -> Result<(), NotARequest> {
        let text = std::str::from_utf8(head).map_err(|_| NotARequest)?;
        let mut fields = text.split("\r\n").filter_map(|line| line.split_once(':'));
        let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|(_, value)| value.trim().parse().ok()).filter(|length| *length > 0);
        self.body_bytes = length.ok_or(NotARequest)?;
        self.head = head.to_vec();
        self.reply = reply(self.body_bytes.div_ceil(CLICK_BYTES + 1));
        Ok(())
    }
}

/// What tollgate answers where all clicks were accepted.
fn reply(clicks: usize) -> Vec<u8> {
    let body = format!("{{\"accepted\":{clicks},\"duplicates\":0,\"rejected\":0}}");
    format!(
        "HTTP/1.1 202 Accepted\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(clicks: usize) -> Vec<u8> {
        let body = vec![b'x'; clicks * (CLICK_BYTES + 1) - 1];
        let mut bytes = format!("POST /v1/clicks HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        bytes.extend(body);
        bytes
    }

    #[test]
    fn every_request_is_answered_once_however_its_bytes_come() {
        let stream = [request(1), request(1), request(100), request(1)].concat();
        let expected = [reply(1), reply(1), reply(100), reply(1)].concat();
        for step in [1, 7, 100, 200, 1_000, stream.len()] {
            let (mut requests, mut out) = (Requests::default(), Vec::new());
            for piece in stream.chunks(step) {
                requests.received(piece, &mut out).unwrap();
            }
            assert_eq!(out, expected, "in pieces of {step}");
        }
    }

    #[test]
    fn what_has_no_length_is_not_a_request() {
        for bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![b'x'; HEAD_BYTES_MAX + 1]] {
            assert_eq!(Requests::default().received(&bytes, &mut Vec::new()), Err(NotARequest));
        }
    }
}
