//! Pure. A connection's last head of clicks. One that equals it byte for byte, but for the digits of Content-Length, means
//! the same, and is not parsed again.
//!
//!     POST /v1/clicks HTTP/1.1 … Content-Length:␣ │ 178 │ CR LF … CR LF CR LF
//!     └────────────── before ─────────────────────┘     └─────── after ──────┘

use super::http::RequestInfo;
use super::media::BodyFormat;

/// Longer heads are parsed each time: connections × this is what remembering may cost.
const HEAD_BYTES_MAX: usize = 2048;

/// Digits of a length worth recognising; a longer one is parsed.
const DIGITS_MAX: usize = 9;

#[derive(Debug)]
pub struct Remembered {
    /// The head without the digits. Empty: none.
    bytes: Vec<u8>,
    before: usize,
    request: RequestInfo,
}

impl Default for Remembered {
    fn default() -> Remembered {
        let request = RequestInfo { format: BodyFormat::Json, prefetch: false };
        Remembered { bytes: Vec::new(), before: 0, request }
    }
}

impl Remembered {
    /// `digits`: where in `head` they lie. A head that is not in one piece (empty) or too long leaves things as they are.
    pub fn remember(&mut self, head: &[u8], digits: (usize, usize), request: RequestInfo) {
        if head.is_empty() || head.len() > HEAD_BYTES_MAX {
            return;
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(&head[..digits.0]);
        self.bytes.extend_from_slice(&head[digits.1..]);
        self.before = digits.0;
        self.request = request;
    }

    /// Bytes of the head and length of the body of a request that begins `source` and looks like the last one.
    #[inline]
    pub fn recognise(&self, source: &[u8]) -> Option<(usize, u64, RequestInfo)> {
        let (before, after) = self.bytes.split_at_checked(self.before)?;
        let rest = source.strip_prefix(before)?;
        let mut length = 0;
        let mut digits = 0;
        for byte in rest {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            if digits == DIGITS_MAX {
                return None;
            }
            length = length * 10 + u64::from(digit);
            digits += 1;
        }
        if digits == 0 || self.bytes.is_empty() || !rest[digits..].starts_with(after) {
            return None;
        }
        Some((before.len() + digits + after.len(), length, self.request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_the_same_head_with_another_length_and_nothing_else() {
        let request = RequestInfo { format: BodyFormat::Ndjson, prefetch: true };
        let mut remembered = Remembered::default();
        assert_eq!(remembered.recognise(b""), None);
        assert_eq!(remembered.recognise(b"1"), None);
        remembered.remember(b"P\r\nLength: 12\r\nA: b\r\n\r\n", (11, 13), request);
        for (source, expected) in [
            ("P\r\nLength: 12\r\nA: b\r\n\r\n{}", Some((23, 12))),
            ("P\r\nLength: 7\r\nA: b\r\n\r\n", Some((22, 7))),
            ("P\r\nLength: 000000123\r\nA: b\r\n\r\n", Some((30, 123))),
            ("P\r\nLength: 0000001234\r\nA: b\r\n\r\n", None),
            ("P\r\nLength: \r\nA: b\r\n\r\n", None),
            ("P\r\nLength: +2\r\nA: b\r\n\r\n", None),
            ("P\r\nLength: 12 \r\nA: b\r\n\r\n", None),
            ("P\r\nLength: 12\r\nA: c\r\n\r\n", None),
            ("p\r\nLength: 12\r\nA: b\r\n\r\n", None),
            ("P\r\nLength: 12\r\nA: b\r\n\r", None),
            ("P\r\nLength: 12", None),
        ] {
            let seen = remembered.recognise(source.as_bytes());
            assert_eq!(seen, expected.map(|(bytes, length)| (bytes, length, request)), "{source:?}");
        }
        let long = vec![b'x'; HEAD_BYTES_MAX + 1];
        remembered.remember(&long, (1, 2), request);
        remembered.remember(&[], (0, 0), request);
        assert!(remembered.recognise(b"P\r\nLength: 1\r\nA: b\r\n\r\n").is_some(), "neither replaced the last");
    }
}
