//! Pure. The texts of a click that follow its partial key in its record: tagged, in rising order of their tags, absent ones
//! left out. An id that is the key's own bytes as a UUID's text is not written a second time: the record's flags name it.
//!
//! ```text
//! extra     u8 tag, u16 length, bytes        a tag + 128 stands for `length` zero bytes, which are not written
//! ```

use crate::click::{ClickKey, Extras};

pub(super) const TAG_USER_ID: u8 = 1;
const TAG_REQUEST_ID: u8 = 2;
const TAG_CLICK_ID: u8 = 3;
const TAG_IMPRESSION_ID: u8 = 4;
const TAG_EVENT_TYPE: u8 = 5;
const TAG_IP: u8 = 6;
const TAG_COUNTRY: u8 = 7;
const TAG_REGION_TEXT: u8 = 8;
const TAG_USER_AGENT: u8 = 9;
const TAG_SIGNATURE: u8 = 10;
const TAG_ZEROS: u8 = 128;

/// The flags that say which id the key is the UUID of.
pub(super) const FLAG_UUID: u8 = 0x30;
const FLAG_UUID_SHIFT: u32 = 4;

pub(super) const EXTRA_HEAD_BYTES: usize = 3;

/// What a `TAG_ZEROS` extra reads as; the longest extra text fits into it.
static ZEROS: [u8; 512] = [0; 512];
/// All-zero text from this length on is stored as `TAG_ZEROS`.
pub(super) const ZEROS_BYTES_MIN: usize = 64;

pub(super) const UUID_TEXT_BYTES: usize = 36;

/// Why bytes are not extras.
pub(super) enum ExtrasError {
    Tag(u8),
    Length,
}

/// The flags of a record for the id that its key spells, if there is one.
#[inline]
pub(super) fn uuid_flag(key: &ClickKey, extras: &Extras<'_>) -> u8 {
    if key.hashed {
        return 0;
    }
    let ids = [extras.request_id, extras.click_id, extras.impression_id];
    match ids.into_iter().position(|id| spells(id, &key.bytes)) {
        Some(place) => (place as u8 + 1) << FLAG_UUID_SHIFT,
        None => 0,
    }
}

/// Appends all that are there, but the one that `uuid_flag` stands for.
pub(super) fn encode_extras(extras: &Extras<'_>, uuid_flag: u8, out: &mut Vec<u8>) {
    let tagged = [
        (TAG_REQUEST_ID, extras.request_id),
        (TAG_CLICK_ID, extras.click_id),
        (TAG_IMPRESSION_ID, extras.impression_id),
        (TAG_EVENT_TYPE, extras.event_type),
        (TAG_IP, extras.ip),
        (TAG_COUNTRY, extras.country),
        (TAG_REGION_TEXT, extras.region_text),
        (TAG_USER_AGENT, extras.user_agent),
        (TAG_SIGNATURE, extras.signature),
    ];
    let spelt = tag_of(uuid_flag);
    for (tag, text) in tagged {
        if !text.is_empty() && Some(tag) != spelt {
            encode_extra(tag, text, out);
        }
    }
}

pub(super) fn encode_extra(tag: u8, text: &[u8], out: &mut Vec<u8>) {
    debug_assert!(text.len() <= ZEROS.len(), "click.rs bounds every text");
    let [low, high] = (text.len() as u16).to_le_bytes();
    if text.len() >= ZEROS_BYTES_MIN && text.iter().all(|byte| *byte == 0) {
        out.extend_from_slice(&[tag | TAG_ZEROS, low, high]);
    } else {
        out.extend_from_slice(&[tag, low, high]);
        out.extend_from_slice(text);
    }
}

/// Whether `bytes` are extras of a record with these flags, from the first to the last byte.
pub(super) fn check(bytes: &[u8], uuid_flag: u8) -> Result<(), ExtrasError> {
    let (mut at, mut last_tag) = (0, 0);
    while at < bytes.len() {
        let (tag, text_length) = extra_head(bytes, at).ok_or(ExtrasError::Length)?;
        let plain = tag & !TAG_ZEROS;
        if plain <= last_tag || plain > TAG_SIGNATURE || Some(plain) == tag_of(uuid_flag) {
            return Err(ExtrasError::Tag(tag));
        }
        if tag & TAG_ZEROS != 0 && text_length > ZEROS.len() {
            return Err(ExtrasError::Length);
        }
        last_tag = plain;
        at += EXTRA_HEAD_BYTES + if tag & TAG_ZEROS == 0 { text_length } else { 0 };
    }
    Ok(())
}

/// The user's id and the extras that [`check`] found sound. `uuid` is the key's text, where the flags say that an id is it.
pub(super) fn decode_extras<'a>(bytes: &'a [u8], uuid_flag: u8, uuid: &'a [u8]) -> (&'a [u8], Extras<'a>) {
    let mut user_id: &[u8] = &[];
    let mut extras = Extras::default();
    let mut set = |tag, text| match tag {
        TAG_USER_ID => user_id = text,
        TAG_REQUEST_ID => extras.request_id = text,
        TAG_CLICK_ID => extras.click_id = text,
        TAG_IMPRESSION_ID => extras.impression_id = text,
        TAG_EVENT_TYPE => extras.event_type = text,
        TAG_IP => extras.ip = text,
        TAG_COUNTRY => extras.country = text,
        TAG_REGION_TEXT => extras.region_text = text,
        TAG_USER_AGENT => extras.user_agent = text,
        TAG_SIGNATURE => extras.signature = text,
        _ => unreachable!("other tags were refused"),
    };
    let mut at = 0;
    while let Some((tag, length)) = extra_head(bytes, at) {
        at += EXTRA_HEAD_BYTES;
        if tag & TAG_ZEROS == 0 {
            set(tag, &bytes[at..at + length]);
            at += length;
        } else {
            set(tag & !TAG_ZEROS, &ZEROS[..length]);
        }
    }
    if let Some(tag) = tag_of(uuid_flag) {
        set(tag, uuid);
    }
    (user_id, extras)
}

/// The text of a UUID with these bytes, in the lower case that RFC 9562 has them written in.
pub(super) fn uuid_text(bytes: &[u8; 16]) -> [u8; UUID_TEXT_BYTES] {
    let four = |at: usize| eight_digits([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]).to_le_bytes();
    let [a, b, c, d] = [four(0), four(4), four(8), four(12)];
    let mut text = [b'-'; UUID_TEXT_BYTES];
    text[..8].copy_from_slice(&a);
    text[9..13].copy_from_slice(&b[..4]);
    text[14..18].copy_from_slice(&b[4..]);
    text[19..23].copy_from_slice(&c[..4]);
    text[24..28].copy_from_slice(&c[4..]);
    text[28..].copy_from_slice(&d);
    text
}

/// Whether a text is [`uuid_text`] of these bytes. One part after the other: compared as one vector, the parser's halves of the key
/// and the parts of the text would have to be written to memory and read back at another width, which waits.
#[inline]
fn spells(text: &[u8], bytes: &[u8; 16]) -> bool {
    let Ok(text) = <&[u8; UUID_TEXT_BYTES]>::try_from(text) else { return false };
    let low = |at: usize| u64::from(u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]));
    let parts = [(0, 4), (9, 14), (19, 24), (28, 32)];
    let fours = bytes.as_chunks::<4>().0.iter();
    fours.zip(parts).all(|(four, (first, middle))| eight_digits(*four) == low(first) | low(middle) << 32)
        && [text[8], text[13], text[18], text[23]] == *b"----"
}

/// The 8 hexadecimal digits of 4 bytes, as text in memory order.
#[inline]
fn eight_digits(bytes: [u8; 4]) -> u64 {
    let each = 0x0101_0101_0101_0101;
    // A byte every two: its high digit goes where it is, its low one behind it.
    let spread = u64::from(u32::from_le_bytes(bytes));
    let spread = (spread | spread << 16) & 0x0000_FFFF_0000_FFFF;
    let spread = (spread | spread << 8) & 0x00FF_00FF_00FF_00FF;
    let nibbles = (spread >> 4 | spread << 8) & (each * 0x0F);
    let letters = ((nibbles + each * 6) >> 4) & each;
    nibbles + each * u64::from(b'0') + letters * u64::from(b'a' - b'0' - 10)
}

fn tag_of(uuid_flag: u8) -> Option<u8> {
    (uuid_flag != 0).then(|| (uuid_flag >> FLAG_UUID_SHIFT) + TAG_REQUEST_ID - 1)
}

/// Tag and length of the extra at `at`, if it lies within `bytes`.
fn extra_head(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let head: &[u8] = bytes.get(at..at + EXTRA_HEAD_BYTES)?;
    let (tag, length) = (head[0], usize::from(u16::from_le_bytes([head[1], head[2]])));
    let stored = if tag & TAG_ZEROS == 0 { length } else { 0 };
    (at + EXTRA_HEAD_BYTES + stored <= bytes.len()).then_some((tag, length))
}
