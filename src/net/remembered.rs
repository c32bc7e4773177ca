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
    pub fn forget(&mut self) {
        self.bytes.clear();
    }

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
