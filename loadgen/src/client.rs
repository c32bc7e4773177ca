//! A keep-alive HTTP client on a blocking socket, for what is asked now and then: counts, metrics, single clicks.

use crate::token::Token;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: u64 = 4 << 20;

pub struct Client {
    pub host: String,
    address: SocketAddr,
    token: Option<Token>,
    connection: Option<BufReader<TcpStream>>,
}

pub struct Reply {
    pub status: u16,
    /// Seconds, where the server says when to come again.
    pub retry_after_s: Option<u64>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn body_of_200(self) -> io::Result<Vec<u8>> {
        if self.status != 200 {
            let text = String::from_utf8_lossy(&self.body).into_owned();
            return Err(io::Error::other(format!("{} {text}", self.status)));
        }
        Ok(self.body)
    }
}

impl Client {
    /// For `http://host:port` or `host:port`; `None` if that is no address.
    pub fn new(url: &str) -> Option<Client> {
        let host = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').to_owned();
        let address = host.to_socket_addrs().ok()?.next()?;
        Some(Client { host, address, token: None, connection: None })
    }

    /// Sent with every GET from now on.
    pub fn with_token(self, token: Option<Token>) -> Client {
        Client { token, ..self }
    }

    /// The body of a 200.
    pub fn get(&mut self, path: &str) -> io::Result<Vec<u8>> {
        self.reply_to(path)?.body_of_200()
    }

    /// Whatever is answered. Asked twice where a connection that was idle turns out to be closed.
    pub fn reply_to(&mut self, path: &str) -> io::Result<Reply> {
        let token = self.token.as_ref().map_or(String::new(), Token::field);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n{token}\r\n", self.host);
        self.ask(request.as_bytes()).or_else(|_| self.ask(request.as_bytes()))
    }

    /// Posts once: whether a request without a reply was taken is for the caller to judge.
    pub fn post(&mut self, path: &str, kind: &str, body: &[u8]) -> io::Result<Reply> {
        let (host, length) = (&self.host, body.len());
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        self.ask(&[head.as_bytes(), body].concat())
    }

    fn ask(&mut self, request: &[u8]) -> io::Result<Reply> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        connection.get_mut().write_all(request)?;
        let mut first = String::new();
        connection.read_line(&mut first)?;
        let (mut length, mut close, mut retry_after_s) = (None, false, None);
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line)? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let Some((name, value)) = line.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse::<u64>().ok(),
                "retry-after" => retry_after_s = value.trim().parse().ok(),
                "connection" => close = value.trim().eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no HTTP/1.1 reply: {first:?}")))?;
        let length = length.filter(|length| *length <= BODY_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other(format!("no usable Content-Length after {first:?}")))?;
        let mut body = vec![0; length as usize];
        connection.read_exact(&mut body)?;
        self.connection = (!close).then_some(connection);
        Ok(Reply { status, retry_after_s, body })
    }
}
