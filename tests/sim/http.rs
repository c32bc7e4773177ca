//! Pure. HTTP as a client of tollgate speaks it: requests written in several shapes, replies read strictly.

use crate::rng::Rng;

pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
    pub close: bool,
}

/// Takes the next whole reply off the front of what was received.
pub fn take_reply(received: &mut Vec<u8>) -> Result<Option<Reply>, String> {
    let Some(head_end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&received[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status: u16 = status.ok_or_else(|| format!("`{status_line}` is no status line"))?;
    let (mut length, mut close) = (None, false);
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("`{line}` is no header field"))?;
        match name {
            "Content-Length" => length = value.parse::<usize>().ok(),
            "Connection" => close = value == "close",
            _ => {}
        }
    }
    let length = length.ok_or_else(|| format!("a reply without a length: {head}"))?;
    let whole = head_end + 4 + length;
    if received.len() < whole {
        return Ok(None);
    }
    let body = received[head_end + 4..whole].to_vec();
    received.drain(..whole);
    Ok(Some(Reply { status, body, close }))
}

/// A request that posts these documents, in one of the shapes that mean the same.
pub fn request(documents: &[String], rng: &mut Rng) -> Vec<u8> {
    let lines = rng.percent(50);
    let (media, body) = match documents {
        [one] if !lines => ("application/json", one.clone()),
        many if !lines => ("application/json", format!("[{}]", many.join(","))),
        many => {
            let media = if rng.percent(80) { "application/x-ndjson" } else { "text/plain" };
            (media, many.join("\n") + if rng.percent(50) { "\n" } else { "" })
        }
    };
    let head = format!("POST /v1/clicks HTTP/1.1\r\nHost: edge\r\nContent-Type: {media}\r\n");
    if rng.percent(75) {
        return format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    }
    let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let mut rest = body.as_bytes();
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(rng.between(1, rest.len() as u64) as usize);
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = left;
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// A request that must be refused as a whole, whatever clicks it holds.
pub fn broken_request(documents: &[String], rng: &mut Rng) -> Vec<u8> {
    let body = documents.join("\n");
    let length = body.len();
    let head = "POST /v1/clicks HTTP/1.1\r\nHost: edge\r\nContent-Type: application/x-ndjson\r\n";
    match rng.below(5) {
        0 => format!("{head}Content-Length: {length}\r\nContent-Length: {length}\r\n\r\n{body}"),
        1 => format!("{head}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
        2 => format!("POST /v1/clicks HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"),
        3 => format!("{head}Content-Length: 999999\r\n\r\n{body}"),
        _ => format!("PUT /v1/clicks HTTP/1.1\r\nHost: edge\r\nContent-Length: {length}\r\n\r\n{body}"),
    }
    .into_bytes()
}
