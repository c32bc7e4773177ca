//! Pure. A body as the clicks in it: the elements of an array, the lines of NDJSON, or one object.
//!
//! An array is looked through once for its end before anything is taken, and each element is delimited by itself, so that
//! a bad one is refused alone. Only quotes, brackets and commas are looked at; both passes are linear, whatever was sent.

use super::simd;

/// What the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`: one object, or an array of them.
    Json,
    /// `application/x-ndjson`: one object a line.
    Lines,
    /// `text/plain`: either.
    Text,
}

/// Why a body cannot be taken apart: nothing of it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It begins with neither `{` nor `[`.
    NotJson,
    /// The array has no end.
    Unclosed,
    /// Something follows the end of the array.
    Trailing,
}

impl Unreadable {
    /// What the client is told, as part of a sentence.
    pub fn advice(self) -> &'static str {
        match self {
            Unreadable::NotJson => "the body is neither a JSON object nor a JSON array of objects",
            Unreadable::Unclosed => "the JSON array is not closed: a bracket or a quote is missing",
            Unreadable::Trailing => "the JSON array is followed by something else",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// The bytes are lines, each ended by LF but perhaps the last.
    Lines,
    /// The bytes are what is between the brackets of an array.
    Elements,
    /// The bytes are one element.
    One,
}

/// A place in a body (or a piece of one), before the next click.
pub struct Cursor<'a> {
    bytes: &'a [u8],
    /// Past the end when nothing is left.
    at: usize,
    shape: Shape,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn trim(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !is_space(*byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_space(*byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

impl<'a> Cursor<'a> {
    pub(super) fn open(format: Format, piece: &'a [u8]) -> Result<Cursor<'a>, Unreadable> {
        let lines = Cursor { bytes: piece, at: 0, shape: Shape::Lines };
        if format == Format::Lines {
            return Ok(lines);
        }
        let whole = trim(piece);
        match (whole.first(), format) {
            (None, _) => Ok(lines),
            (Some(b'['), _) => Cursor::open_array(whole),
            (Some(b'{'), Format::Json) => Ok(Cursor { bytes: whole, at: 0, shape: Shape::One }),
            (Some(b'{'), Format::Text | Format::Lines) => match end_of_value(whole) {
                Some(end) if end == whole.len() => Ok(Cursor { bytes: whole, at: 0, shape: Shape::One }),
                Some(_) | None => Ok(lines),
            },
            (Some(_), Format::Text | Format::Lines) => Ok(lines),
            (Some(_), Format::Json) => Err(Unreadable::NotJson),
        }
    }

    fn open_array(whole: &'a [u8]) -> Result<Cursor<'a>, Unreadable> {
        let end = end_of_value(whole).ok_or(Unreadable::Unclosed)?;
        if end != whole.len() {
            return Err(Unreadable::Trailing);
        }
        if whole[end - 1] != b']' {
            return Err(Unreadable::Unclosed);
        }
        let bytes = &whole[1..end - 1];
        let is_empty = bytes.iter().all(|byte| is_space(*byte));
        Ok(Cursor { bytes, at: if is_empty { bytes.len() + 1 } else { 0 }, shape: Shape::Elements })
    }

    /// Skips the space before the next click: what begins with it, or `None` at the end.
    #[inline]
    pub(super) fn rest(&mut self) -> Option<&'a [u8]> {
        let mut rest = self.bytes.get(self.at..)?;
        while let [first, after @ ..] = rest
            && is_space(*first)
        {
            rest = after;
            self.at += 1;
        }
        (self.shape == Shape::Elements || !rest.is_empty()).then_some(rest)
    }

    /// Takes the first `length` bytes of the rest as the next click, if the click can end there without another look.
    #[inline]
    pub(super) fn take(&mut self, length: usize) -> bool {
        let end = self.at + length;
        let after = match (self.bytes.get(end), self.shape) {
            (None, _) => end + 1,
            (Some(b'\n'), Shape::Lines) | (Some(b','), Shape::Elements) => end + 1,
            (Some(b'\r'), Shape::Lines) if self.bytes.get(end + 1) == Some(&b'\n') => end + 2,
            (Some(_), Shape::Lines | Shape::Elements | Shape::One) => return false,
        };
        self.at = after;
        true
    }

    /// Delimits the next click by its brackets or its line's end, and takes it, without the space around it.
    pub(super) fn take_delimited(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let length = match self.shape {
            Shape::Lines => memchr::memchr(b'\n', rest).unwrap_or(rest.len()),
            Shape::Elements => end_of_element(rest),
            Shape::One => rest.len(),
        };
        self.at += length + 1;
        trim(&rest[..length])
    }
}

/// Where the value ends that `bytes` begin with, an opening bracket: one past the bracket that closes it.
fn end_of_value(bytes: &[u8]) -> Option<usize> {
    let mut nesting = Nesting { depth: 0, in_string: false, is_escaped: false };
    let (blocks, rest) = bytes.as_chunks();
    let mut start = 0;
    for block in blocks {
        if let Some(place) = nesting.pass_block(block) {
            return Some(start + place + 1);
        }
        start += block.len();
    }
    Some(start + nesting.pass(rest)? + 1)
}

/// How deep in brackets and strings a place is.
struct Nesting {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Nesting {
    /// Goes over bytes one by one, up to the bracket that closes the first.
    fn pass(&mut self, bytes: &[u8]) -> Option<usize> {
        for (place, byte) in bytes.iter().enumerate() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_string => self.is_escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(place);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// The same at once, where nothing is escaped.
    #[inline]
    fn pass_block(&mut self, block: &simd::Block) -> Option<usize> {
        let found = simd::brackets(block);
        if found.backslashes != 0 || self.is_escaped {
            return self.pass(block);
        }
        // A bit for each byte from an opening quote to before its closing one: the parity of the quotes up to it.
        let mut inside = found.quotes;
        for distance in [1, 2, 4, 8, 16] {
            inside ^= inside << distance;
        }
        if self.in_string {
            inside = !inside;
        }
        self.in_string = inside >> 31 == 1;
        let mut places = (found.opening | found.closing) & !inside;
        while places != 0 {
            let place = places.trailing_zeros();
            if found.opening >> place & 1 == 1 {
                self.depth += 1;
            } else {
                self.depth -= 1;
                if self.depth == 0 {
                    return Some(place as usize);
                }
            }
            places &= places - 1;
        }
        None
    }
}

/// Where the element ends that `bytes` begin with: at the comma after it, or with them.
fn end_of_element(bytes: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => match end_of_string(bytes, at) {
                Some(quote) => at = quote,
                None => return bytes.len(),
            },
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The closing quote of the string that opens at `quote`.
fn end_of_string(bytes: &[u8], quote: usize) -> Option<usize> {
    let mut at = quote + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_ends_at_the_same_place_by_blocks_as_byte_by_byte(text in r#"[\[{]([\[{\]}"\\ab,]|"[a\\ ]{0,40}"){0,200}"#) {
            let mut nesting = Nesting { depth: 0, in_string: false, is_escaped: false };
            let expected = nesting.pass(text.as_bytes()).map(|place| place + 1);
            prop_assert_eq!(end_of_value(text.as_bytes()), expected);
        }
    }
}
