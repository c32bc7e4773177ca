//! Pure. Where a page ended, as text that says nothing to who carries it. It holds the span, so that a question about "the hour up to
//! now" means the same hour on every page; and what else was asked, so that it is not taken for another question.
//!
//! ```text
//! hex of: u8 version (1) | u64 question | i64 from | i64 to | i64 window start | u8 kind of group (0: none) | text or u32 code
//! ```

use xxhash_rust::xxh3::xxh3_64;

use super::times::TIME_MAX_MS;
use crate::question::Group;
use crate::window::{HOUR_MS, Window};

const VERSION: u8 = 1;
/// Spans end by here: the last time that can be asked for, widened to its day.
const END_MAX_MS: i64 = TIME_MAX_MS + 24 * HOUR_MS;
/// Longest that one of ours is, in hexadecimal digits: an ad's id of 1,000 bytes.
pub const CHARACTERS_MAX: usize = 2 * (34 + 1_000);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of what was asked beside the span: see [`question_of`].
    pub question: u64,
    pub span: Window,
    pub after: (i64, Option<Group>),
}

/// What tells one question from another, whatever its span and page.
pub fn question_of(parts: &[&str]) -> u64 {
    xxh3_64(parts.join("\n").as_bytes())
}

impl Cursor {
    pub fn to_text(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.question.to_be_bytes());
        for time_ms in [self.span.start_ms, self.span.end_ms, self.after.0] {
            bytes.extend(time_ms.to_be_bytes());
        }
        match &self.after.1 {
            None => bytes.push(0),
            Some(Group::Ad(text)) => put(&mut bytes, 1, text.as_bytes()),
            Some(Group::Region(text)) => put(&mut bytes, 2, text.as_bytes()),
            Some(Group::Device(code)) => put(&mut bytes, 3, &code.to_be_bytes()),
            Some(Group::Agent(code)) => put(&mut bytes, 4, &code.to_be_bytes()),
            Some(Group::Class(code)) => put(&mut bytes, 5, &code.to_be_bytes()),
        }
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// None: not one of ours.
    pub fn parse(text: &str) -> Option<Cursor> {
        if text.len() > CHARACTERS_MAX {
            return None;
        }
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        let bytes = bytes.filter(|_| rest.is_empty())?;
        let mut rest = bytes.as_slice();
        if *rest.split_off_first()? != VERSION {
            return None;
        }
        let mut number = || Some(u64::from_be_bytes(*rest.split_off(..8)?.first_chunk()?));
        let question = number()?;
        let span = Window { start_ms: number()? as i64, end_ms: number()? as i64 };
        let start_ms = number()? as i64;
        let kind = *rest.split_off_first()?;
        let text = || String::from_utf8(rest.to_vec()).ok();
        let code = || Some(u32::from_be_bytes(rest.try_into().ok()?));
        let group = match kind {
            0 if rest.is_empty() => None,
            1 => Some(Group::Ad(text()?)),
            2 => Some(Group::Region(text()?)),
            3 => Some(Group::Device(code()?)),
            4 => Some(Group::Agent(code()?)),
            5 => Some(Group::Class(code()?)),
            _ => return None,
        };
        let is_span = 0 <= span.start_ms && span.start_ms < span.end_ms && span.end_ms <= END_MAX_MS;
        is_span.then_some(Cursor { question, span, after: (start_ms, group) })
    }
}

/// Of what is written alone: each cursor is one text.
fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn put(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    bytes.push(kind);
    bytes.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group() -> impl Strategy<Value = Option<Group>> {
        prop_oneof![
            Just(None),
            ".{0,64}".prop_map(|text| Some(Group::Ad(text))),
            "[A-Z]{0,2}".prop_map(|text| Some(Group::Region(text))),
            any::<u32>().prop_map(|code| Some(Group::Device(code))),
            any::<u32>().prop_map(|code| Some(Group::Agent(code))),
            any::<u32>().prop_map(|code| Some(Group::Class(code))),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(question: u64, start_ms in 0i64..1 << 47, length in 1i64..1 << 40, group in group()) {
            let span = Window { start_ms, end_ms: start_ms + length };
            let cursor = Cursor { question, span, after: (start_ms, group) };
            prop_assert_eq!(Cursor::parse(&cursor.to_text()), Some(cursor));
        }

        #[test]
        fn whatever_comes_is_read_or_refused(text in ".{0,200}", hex in "[+0-9a-fA-F]{0,200}") {
            for text in [text, hex] {
                if let Some(cursor) = Cursor::parse(&text) {
                    prop_assert_eq!(cursor.to_text(), text);
                }
            }
        }

        /// One of ours with another character in it is another cursor, or none.
        #[test]
        fn a_cursor_is_written_in_one_way(question: u64, group in group(), at: prop::sample::Index, other in "[+0-9a-fA-F]") {
            let cursor = Cursor { question, span: Window { start_ms: 0, end_ms: 1 }, after: (0, group) };
            let mut text = cursor.to_text();
            let at = at.index(text.len());
            text.replace_range(at..=at, &other);
            if let Some(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.to_text(), text);
            }
        }
    }
}
