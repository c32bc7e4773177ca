//! Pure. How the last click of a connection was laid out, so that the next one is scanned by comparing instead of parsing.
//!
//! A program that sends clicks writes them all alike. So a click is cut into what stays and what changes:
//!
//! ```text
//!     {"request_id":"0190d5a4-…","ad_id":"ad_1","timestamp":1712908800123}
//!     ~~~~~~~~~~~~~~~         ~~~~~~~~~~~    ~~~~~~~~~~~~~~             ~     literals, compared byte for byte
//!                    uuid                text               digits            values
//! ```
//!
//! A literal reaches from the end of one value to the start of the next, quotes included. A value of text is plain ASCII up
//! to the next quote, which the following literal begins with. Whatever else comes (an escape, another order, a nested
//! value, another width of number) is a surprise, and the click goes to `strict`, from which the layout is learned anew.
//! What matches a layout is JSON, because the click that it was learned from was, and only plain values were exchanged.

use super::fields::{FIELDS, Field, Fields};
use super::simd::{self, Block};

/// Known and unknown fields that a layout can hold.
const VALUES_MAX: usize = FIELDS;

/// Digits of a time that are read in one step: seconds have 10, milliseconds 13.
const DIGITS_MIN: usize = 9;
const DIGITS_MAX: usize = 15;

/// Digits of a whole number that is skipped.
const SKIPPED_DIGITS_MAX: usize = 18;

/// A literal is shorter than this.
const LITERAL_ROOM: usize = size_of::<Block>();

/// What is looked at in one step: a literal and a block of the value behind it.
const WINDOW_BYTES: usize = LITERAL_ROOM + size_of::<Block>();

/// What must be readable past the end of a click that is scanned.
pub(super) const PADDING: usize = WINDOW_BYTES;

/// What follows a literal. A number beside the field is the most bytes, or the exact count, that a value may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Text(Field, u16),
    Uuid(Field),
    /// A time in RFC 3339.
    TimeText(Field),
    /// A time as that many digits.
    Digits(Field, u8),
    /// A text of no known field.
    SkippedText,
    /// A whole number of no known field.
    SkippedWhole,
    /// The click is over.
    End,
}

#[derive(Clone, Copy)]
struct Slot {
    literal: Block,
    /// A bit for each byte of the literal.
    mask: u32,
    bytes: u8,
    value: Value,
}

const NO_SLOT: Slot = Slot { literal: [0; 32], mask: 0, bytes: 0, value: Value::End };

/// The layout that a connection's clicks are expected to have.
pub struct Layout {
    slots: [Slot; VALUES_MAX + 1],
    /// 0: nothing is learned.
    used: usize,
    /// Length of the last click that had this layout.
    click_bytes: usize,
    /// Clicks since the last that had this layout.
    misses: u32,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout::new()
    }
}

impl Layout {
    pub const fn new() -> Layout {
        Layout { slots: [NO_SLOT; VALUES_MAX + 1], used: 0, click_bytes: 0, misses: 0 }
    }

    /// Forgets what was learned: another connection has the slot.
    pub fn reset(&mut self) {
        self.used = 0;
        self.misses = 0;
    }

    /// How many bytes a scan may look at, when the next click is as long as the last; 0 where nothing is learned.
    #[inline]
    pub(super) fn reach(&self) -> usize {
        if self.used == 0 { 0 } else { self.click_bytes + PADDING }
    }

    /// The click had this layout, and that length.
    #[inline]
    pub(super) fn hit(&mut self, click_bytes: usize) {
        self.click_bytes = click_bytes;
        self.misses = 0;
    }

    /// Reads the click that `bytes` begin with, if it is laid out as expected: its length. Without one, some fields may be set.
    #[inline(always)]
    pub(super) fn scan<'a>(&self, bytes: &'a [u8], fields: &mut Fields<'a>) -> Option<usize> {
        let mut at = 0;
        for slot in self.slots.get(..self.used)? {
            let window = bytes.get(at..)?.first_chunk::<WINDOW_BYTES>()?;
            if !simd::agrees(block(window, 0), &slot.literal, slot.mask) {
                return None;
            }
            let literal_bytes = slot.bytes as usize % LITERAL_ROOM;
            at += literal_bytes;
            let value = &window[literal_bytes..];
            match slot.value {
                Value::Text(field, bytes_max) => {
                    let text = plain_text(value, bytes, at)?;
                    if text.len() > bytes_max as usize || text.is_empty() {
                        return None;
                    }
                    fields.put_checked(field, text);
                    at += text.len();
                }
                Value::Uuid(field) => {
                    let text = bytes.get(at..)?.first_chunk::<36>()?;
                    fields.put_uuid(field, text, simd::uuid(text)?);
                    at += text.len();
                }
                Value::TimeText(field) => {
                    let text = plain_text(value, bytes, at)?;
                    fields.put_text(field, text).ok()?;
                    at += text.len();
                }
                Value::Digits(field, count) => {
                    let number = digits(value.first_chunk::<16>()?, count as usize)?;
                    fields.put_whole(field, number).ok()?;
                    at += count as usize;
                }
                Value::SkippedText => at += plain_text(value, bytes, at)?.len(),
                Value::SkippedWhole => at += whole_bytes(value)?,
                Value::End => return Some(at),
            }
        }
        None
    }

    /// Clicks since the last that had this layout.
    #[cfg(test)]
    pub(super) fn misses(&self) -> u32 {
        self.misses
    }

    /// Learns from a click that the strict reading has found to be JSON without a repeated field. Clicks that go on being
    /// surprises are learned from ever more rarely.
    pub(super) fn learn(&mut self, raw: &[u8]) {
        self.misses = self.misses.saturating_add(1);
        if self.misses.is_power_of_two() {
            self.used = 0;
            self.used = self.cut(raw).unwrap_or(0);
            self.click_bytes = raw.len();
        }
    }

    /// Cuts a click into literals and values: how many, if it has only such as can be scanned.
    fn cut(&mut self, raw: &[u8]) -> Option<usize> {
        let mut at = skip_space(raw, 0);
        let mut literal_start = 0;
        if raw.get(at) != Some(&b'{') {
            return None;
        }
        for index in 0..=VALUES_MAX {
            if raw[at] == b'}' {
                return self.set(index, &raw[literal_start..=at], Value::End).map(|()| index + 1);
            }
            let (key, after_key) = quoted(raw, skip_space(raw, at + 1))?;
            at = skip_space(raw, after_key);
            at = skip_space(raw, at + 1);
            let value;
            if raw.get(at) == Some(&b'"') {
                let (text, after_value) = quoted(raw, at)?;
                value = value_of(Field::named(key), text);
                self.set(index, &raw[literal_start..=at], value)?;
                literal_start = after_value - 1;
                at = after_value;
            } else {
                let count = raw[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                value = match Field::named(key) {
                    Some(field) if field.is_time() && (DIGITS_MIN..=DIGITS_MAX).contains(&count) => {
                        Value::Digits(field, count as u8)
                    }
                    Some(_) => return None,
                    None if count > 0 => Value::SkippedWhole,
                    None => return None,
                };
                self.set(index, &raw[literal_start..at], value)?;
                literal_start = at + count;
                at = literal_start;
            }
            at = skip_space(raw, at);
            if !matches!(raw.get(at), Some(b',' | b'}')) {
                return None;
            }
        }
        None
    }

    fn set(&mut self, index: usize, literal: &[u8], value: Value) -> Option<()> {
        // A line's end within a click is no line's end: only bodies of one click could be scanned so.
        if literal.len() >= LITERAL_ROOM || literal.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return None;
        }
        let slot = &mut self.slots[index];
        slot.literal = [0; 32];
        slot.literal[..literal.len()].copy_from_slice(literal);
        slot.mask = (1 << literal.len()) - 1;
        slot.bytes = literal.len() as u8;
        slot.value = value;
        Some(())
    }
}

fn value_of(field: Option<Field>, text: &[u8]) -> Value {
    match field {
        None => Value::SkippedText,
        Some(field) if field.is_time() => Value::TimeText(field),
        Some(field @ (Field::RequestId | Field::ClickId | Field::ImpressionId)) => {
            match <&[u8; 36]>::try_from(text).ok().and_then(simd::uuid) {
                Some(_) => Value::Uuid(field),
                None => Value::Text(field, field.bytes_max() as u16),
            }
        }
        Some(field) => Value::Text(field, field.bytes_max() as u16),
    }
}

fn skip_space(raw: &[u8], at: usize) -> usize {
    at + raw[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// The plain text between the quote at `at` and the next, and the place after that.
fn quoted(raw: &[u8], at: usize) -> Option<(&[u8], usize)> {
    if raw.get(at) != Some(&b'"') {
        return None;
    }
    let start = at + 1;
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let length = raw[start..].iter().take_while(|byte| is_plain(byte)).count();
    (raw.get(start + length) == Some(&b'"')).then(|| (&raw[start..start + length], start + length + 1))
}

/// A block of a window, from its start or where a literal ends.
#[inline(always)]
fn block(window: &[u8], at: usize) -> &Block {
    window[at..].first_chunk().expect("a window has room for a literal and a block")
}

/// The plain text at `at`, up to the first byte that is not; `value` is the window from there.
#[inline(always)]
fn plain_text<'a>(value: &'a [u8], bytes: &'a [u8], at: usize) -> Option<&'a [u8]> {
    match simd::stops(block(value, 0)) {
        0 => long_plain_text(bytes, at),
        stops => Some(&value[..stops.trailing_zeros() as usize]),
    }
}

/// How many digits a whole number has that is skipped: without a leading zero, and short enough to be read as an integer.
#[inline]
fn whole_bytes(value: &[u8]) -> Option<usize> {
    let count = value.iter().take(SKIPPED_DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    let is_number = count == 1 || (2..=SKIPPED_DIGITS_MAX).contains(&count) && value[0] != b'0';
    is_number.then_some(count)
}

fn long_plain_text(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let mut end = at + size_of::<Block>();
    loop {
        let stops = simd::stops(bytes.get(end..)?.first_chunk()?);
        if stops != 0 {
            return Some(&bytes[at..end + stops.trailing_zeros() as usize]);
        }
        end += size_of::<Block>();
    }
}

/// The number that the first `count` bytes are, if they are digits and the first is not 0.
#[inline(always)]
fn digits(bytes: &[u8; 16], count: usize) -> Option<i64> {
    debug_assert!((DIGITS_MIN..=DIGITS_MAX).contains(&count));
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    let [first, _] = [0, 8].map(|from| u64::from_le_bytes(bytes[from..from + 8].try_into().expect("8 bytes")));
    let last = u64::from_le_bytes(bytes.get(count - 8..count)?.try_into().expect("8 bytes"));
    // The bytes before the last eight, moved to the end of eight that begin with zeros.
    let missing_bits = 8 * (16 - count as u32);
    let first = first << missing_bits | ZEROS >> (64 - missing_bits);
    if !all_digits(first) || !all_digits(last) || bytes[0] == b'0' {
        return None;
    }
    Some(eight_digits(first) as i64 * 100_000_000 + eight_digits(last) as i64)
}

#[inline(always)]
fn all_digits(bytes: u64) -> bool {
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    // A high half of 3, and still 3 after 6 is added to the low half.
    bytes & HIGH | (bytes.wrapping_add(0x0606_0606_0606_0606) & HIGH) >> 4 == 0x3333_3333_3333_3333
}

/// Eight ASCII digits, the first in the lowest byte: pairs, then fours, then all eight.
#[inline(always)]
fn eight_digits(bytes: u64) -> u64 {
    const PAIRS: u64 = 0x00ff_00ff_00ff_00ff;
    const FOURS: u64 = 0x0000_ffff_0000_ffff;
    let bytes = bytes & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = bytes.wrapping_mul(10 << 8 | 1) >> 8 & PAIRS;
    let fours = pairs.wrapping_mul(100 << 16 | 1) >> 16 & FOURS;
    fours.wrapping_mul(10_000 << 32 | 1) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn digits_read_as_the_standard_library_reads_them(number in 1u64..1_000_000_000_000_000, count in 9usize..=15) {
            let text = format!("{number:0>16}");
            let bytes: [u8; 16] = text.as_bytes()[16 - count..].iter().copied().chain(*b",\"x\":12}").chain([0; 16])
                .take(16).collect::<Vec<u8>>().try_into().expect("16 bytes");
            let expected = if bytes[0] == b'0' { None } else { text[16 - count..].parse().ok() };
            prop_assert_eq!(digits(&bytes, count), expected);
        }
    }

    #[test]
    fn only_digits_are_digits() {
        for count in DIGITS_MIN..=DIGITS_MAX {
            for place in 0..count {
                for byte in (0..=255u8).filter(|byte| !byte.is_ascii_digit()) {
                    let mut bytes = *b"1234567890123456";
                    bytes[place] = byte;
                    assert_eq!(digits(&bytes, count), None, "{byte:#x} at {place} of {count}");
                }
            }
        }
    }
}
