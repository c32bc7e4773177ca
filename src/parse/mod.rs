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
        let tail = Vec::with_capacity(layout::CLICK_BYTES_MAX + 2 * layout::PADDING);
        Parser { strict: strict::Strict::new(), rules: fields::Rules::new(config), tail }
    }

    /// Begins a body, or one piece of an NDJSON body, which must be whole lines (the last may lack its LF in the last piece).
    /// A body without a click in it has zero items.
    pub fn open<'a>(&mut self, format: Format, piece: &'a [u8]) -> Result<Cursor<'a>, Unreadable> {
        Cursor::open(format, piece)
    }

    /// Shows the next click, borrowed from the body or from this parser's scratch, and gives what was made of it. Shown and not
    /// returned: a click is 300 bytes, and each move of it waits for its fields to be written.
    #[inline]
    pub fn next<'p, 'a: 'p, T>(
        &'p mut self,
        cursor: &mut Cursor<'a>,
        layout: &mut Layout,
        context: &Context,
        mut show: impl FnMut(Item<'p>) -> T,
    ) -> Option<T> {
        let rest = cursor.rest()?;
        let mut fields = fields::Fields::new();
        let reach = layout.reach();
        let near_end = rest.len() < reach;
        let bytes = if near_end { padded(&mut self.tail, rest) } else { rest };
        let (raw, read) = match layout.scan(bytes, &mut fields) {
            Some(length) if cursor.take(length) => {
                layout.hit(length);
                (&rest[..length], Ok(()))
            }
            Some(_) | None => {
                let raw = cursor.take_delimited(rest);
                let read = self.strict.read(raw, &mut fields);
                if read.is_ok() {
                    layout.learn(raw);
                }
                (raw, read.map_err(|refusal| Refused { key: None, refusal }))
            }
        };
        let accept = |click: Click<'p>| show(Item { raw, key: Some(click.key), outcome: Ok(click) });
        let judged = read.and_then(|()| self.rules.judge(&fields, context, accept));
        Some(judged.unwrap_or_else(|Refused { key, refusal }| show(Item { raw, key, outcome: Err(refusal) })))
    }
}

/// Why a click is no click, and its key where that is known all the same.
struct Refused {
    key: Option<ClickKey>,
    refusal: Refusal,
}

/// Copies the end of a piece to where zeros follow it: no value and no literal goes on into them.
#[inline]
fn padded<'p>(tail: &'p mut Vec<u8>, rest: &[u8]) -> &'p [u8] {
    tail.clear();
    tail.extend_from_slice(rest);
    tail.extend_from_slice(&[0; layout::PADDING]);
    tail
}
