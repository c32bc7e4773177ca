//! Pure. JSON to [`Click`]s: a body taken apart, each click read, checked and keyed, and refused alone where it is bad.
//!
//! A click is read in one of two ways: `layout` scans it by comparing it with the connection's last one; whatever surprises
//! that goes to `strict`, which is simd-json. Both hand the same fields to the same rules (`fields`), so they cannot differ
//! but in reading, and tests hold them to each other and to serde_json.

mod agent;
mod fields;
mod layout;
mod region;
mod simd;
mod split;
mod strict;
mod time;

pub use fields::Context;
pub use layout::Layout;
pub use split::{Cursor, Format, Unreadable};

use crate::click::{Click, ClickKey, Refusal};
use crate::config::ClickConfig;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;

/// One of a core. Nothing is allocated per click once its buffers have grown to the clicks' size.
pub struct Parser {
    strict: strict::Strict,
    rules: fields::Rules,
    /// The end of a piece, with room behind it to look at.
    tail: Vec<u8>,
}

/// One click of a body, or why it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// What was sent, without the space around it.
    pub raw: &'a [u8],
    /// Known for every accepted click, and for those refused for their time's place only.
    pub key: Option<ClickKey>,
    pub outcome: Result<Click<'a>, Refusal>,
}

impl Parser {
    pub fn new(config: &ClickConfig) -> Parser {
        Parser { strict: strict::Strict::new(), rules: fields::Rules::new(config), tail: Vec::new() }
    }

    /// Begins a body, or one piece of an NDJSON body, which must be whole lines (the last may lack its LF in the last piece).
    /// A body without a click in it has zero items.
    pub fn open<'a>(&mut self, format: Format, piece: &'a [u8]) -> Result<Cursor<'a>, Unreadable> {
        Cursor::open(format, piece)
    }

    /// The next click, borrowed from the body or from this parser's scratch.
    #[inline]
    pub fn next<'p, 'a: 'p>(
        &'p mut self,
        cursor: &mut Cursor<'a>,
        layout: &mut Layout,
        context: &Context,
    ) -> Option<Item<'p>> {
        let rest = cursor.rest()?;
        let mut fields = fields::Fields::new();
        let reach = layout.reach();
        let near_end = rest.len() < reach;
        let bytes = if near_end { padded(&mut self.tail, rest) } else { rest };
        let raw = match layout.scan(bytes, &mut fields) {
            Some(length) if cursor.take(length) => {
                layout.hit(length);
                &rest[..length]
            }
            Some(_) | None => {
                let raw = cursor.take_delimited(rest);
                if let Err(refusal) = self.strict.read(raw, &mut fields) {
                    return Some(fields::refused(raw, None, refusal));
                }
                layout.learn(raw);
                raw
            }
        };
        Some(self.rules.judge(&fields, context, raw))
    }
}

/// Copies the end of a piece to where zeros follow it: no value and no literal goes on into them.
#[inline]
fn padded<'p>(tail: &'p mut Vec<u8>, rest: &[u8]) -> &'p [u8] {
    tail.clear();
    tail.extend_from_slice(rest);
    tail.extend_from_slice(&[0; layout::PADDING]);
    tail
}
