//! Pure. Replies out of the bytes of a connection: status, length, what the body says of the clicks.

use serde::Deserialize;

/// What a reply says of its request's clicks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 202 or 422: exact.
    Counts { accepted: u32, duplicates: u32, rejected: u32 },
    /// 503: each click was taken at most once; send the same again after so many seconds.
    Shed { retry_after_s: u32 },
    /// Anything else, with the beginning of what came.
    Other { status: u16, text: String },
}

/// Bytes that no reply begins with, or that exceed what a reply may have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an HTTP/1.1 reply: {0:?}")]
pub struct Garbage(pub String);

/// Largest reply head and body.
const HEAD_BYTES_MAX: usize = 16 << 10;
const BODY_BYTES_MAX: usize = 1 << 20;

/// Cuts replies from a stream of bytes. The last whole reply is remembered: one that equals it byte for byte, as nearly all
/// do under load, is not read again.
#[derive(Default)]
pub struct Replies {
    last: Vec<u8>,
    answer: Option<Answer>,
}

impl Replies {
    /// The first reply in `bytes` and its length, or `None` if it is not yet whole.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<(&Answer, usize)>, Garbage> {
        // A reply carries its own length in its head: what begins with the same bytes is the same reply.
        let known = self.answer.is_some() && bytes.starts_with(&self.last);
        if !known {
            let Some((answer, length)) = read(bytes)? else { return Ok(None) };
            self.answer = Some(answer);
            self.last.clear();
            self.last.extend_from_slice(&bytes[..length]);
        }
        Ok(self.answer.as_ref().map(|answer| (answer, self.last.len())))
    }
}

fn read(bytes: &[u8]) -> Result<Option<(Answer, usize)>, Garbage> {
    let garbage = || Garbage(String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned());
    let Some(head_bytes) = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4) else {
        let fits = bytes.len() <= HEAD_BYTES_MAX;
        return fits.then_some(None).ok_or_else(garbage);
    };
    let head = std::str::from_utf8(&bytes[..head_bytes]).map_err(|_| garbage())?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let status: u16 = status.ok_or_else(garbage)?;
    let body_bytes = match field(head, "content-length").map(str::parse::<usize>) {
        Some(Ok(length)) if length <= BODY_BYTES_MAX => length,
        None if status < 200 => 0,
        _ => return Err(garbage()),
    };
    if bytes.len() < head_bytes + body_bytes {
        return Ok(None);
    }
    let body = &bytes[head_bytes..head_bytes + body_bytes];
    Ok(Some((answer(status, head, body), head_bytes + body_bytes)))
}

fn answer(status: u16, head: &str, body: &[u8]) -> Answer {
    #[derive(Deserialize)]
    struct Counts {
        accepted: u32,
        duplicates: u32,
        rejected: u32,
    }
    let other = || {
        let text = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        Answer::Other { status, text }
    };
    match status {
        202 | 422 => match serde_json::from_slice(body) {
            // A request whose clicks were all rejected is answered 422, any other 202.
            Ok(Counts { accepted, duplicates, rejected }) if (status == 422) == (accepted + duplicates == 0) => {
                Answer::Counts { accepted, duplicates, rejected }
            }
            _ => other(),
        },
        503 => {
            let retry_after_s = field(head, "retry-after").and_then(|value| value.parse().ok());
            retry_after_s.map_or_else(other, |retry_after_s| Answer::Shed { retry_after_s })
        }
        _ => other(),
    }
}

/// The value of a header field, by its lower-case name.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    let mut values = fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
    values.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: &str, more: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn counts(accepted: u32, duplicates: u32, rejected: u32) -> Answer {
        Answer::Counts { accepted, duplicates, rejected }
    }

    #[test]
    fn replies_are_understood() {
        let body = r#"{"accepted":2,"duplicates":1,"rejected":1,"errors":[{"index":3,"reason":"missing_field"}]}"#;
        let none = r#"{"accepted":0,"duplicates":0,"rejected":4}"#;
        let other = |status, text: &str| Answer::Other { status, text: text.to_owned() };
        let cases = [
            (reply("202 Accepted", "Content-Type: application/json\r\n", body), counts(2, 1, 1)),
            (reply("422 Unprocessable Content", "", none), counts(0, 0, 4)),
            (reply("422 Unprocessable Content", "", body), other(422, body)),
            (reply("202 Accepted", "", none), other(202, none)),
            (reply("503 Service Unavailable", "retry-after: 3\r\n", "x"), Answer::Shed { retry_after_s: 3 }),
            (reply("503 Service Unavailable", "", "x"), other(503, "x")),
            (reply("400 Bad Request", "", "no"), other(400, "no")),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Replies::default().next(&bytes), Ok(Some((&expected, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(Replies::default().next(&bytes[..cut]), Ok(None), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_remembered_reply_does_not_hide_another() {
        let one = reply("202 Accepted", "", r#"{"accepted":1,"duplicates":0,"rejected":0}"#);
        let two = reply("202 Accepted", "", r#"{"accepted":0,"duplicates":1,"rejected":0}"#);
        let stream = [one.as_slice(), &one, &two, &one].concat();
        let (mut replies, mut at, mut seen) = (Replies::default(), 0, Vec::new());
        while let Some((answer, length)) = replies.next(&stream[at..]).unwrap() {
            seen.push(answer.clone());
            at += length;
        }
        assert_eq!(seen, [counts(1, 0, 0), counts(1, 0, 0), counts(0, 1, 0), counts(1, 0, 0)]);
    }

    #[test]
    fn what_is_no_reply_is_garbage() {
        for bytes in [b"SSH-2.0\r\n\r\n".as_slice(), b"HTTP/1.1 202 Accepted\r\n\r\n", &[b'x'; HEAD_BYTES_MAX + 1]] {
            assert!(Replies::default().next(bytes).is_err());
        }
    }
}
