//! Pure. The records of a log, byte for byte: a click, a dead letter, the start of an incarnation. Staging chunks, frames
//! and (later) the mesh carry exactly these bytes. All numbers are little-endian.
//!
//! ```text
//! click             0 u16 length of the whole record   2 u8 type = 1   3 u8 flags: 1 key is a hash of text, 2 a user is named,
//!                     16, 32, 48 the request's, click's, impression's id is the key as a UUID's text
//!                   4 u32 dims hash: low half of XXH3-64 over the partial key
//!                   8 16 B key      24 i64 event_ms     32 i64 received_ms     40 u64 user token: XXH3-64 of user_id, 0 if none
//!                  48 partial key: u8 class, device, agent, rules = 1, region_len, ad_len, campaign_len, advertiser_len
//!                     | region | ad | campaign | advertiser
//!                     then extras: see `extras.rs`
//! dead letter       0 u16 length   2 u8 type = 2   3 u8 flags: 1 key is a hash of text, 4 a key is there, 8 raw was cut off
//!                   4 u8 cause     5 u8 = 0        6 u16 raw length    8 16 B key      24 i64 received_ms
//!                  32 the raw bytes in chunks: (u8 length 1..=255, bytes)*
//! incarnation       0 u16 length = 48   2 u8 type = 3   3 u8 flags = 0   4 u32 version = 1   8 16 B nonce
//!                  24 u64 incarnation  32 i64 started_ms   40 8 B of 0xA5
//! ```
//!
//! Law: no record holds a run of 512 zero bytes, so an all-zero sector in a frame shows that the frame was torn.

use xxhash_rust::xxh3::xxh3_64;

use crate::click::{
    AD_ID_BYTES_MAX, ADVERTISER_ID_BYTES_MAX, Agent, CAMPAIGN_ID_BYTES_MAX, Class, Click, ClickKey, Device, EventTime,
    REGION_BYTES_MAX, Reason,
};
use crate::config::DEAD_LETTER_RAW_BYTES_MAX;
use crate::wal::extras::{
    self, EXTRA_HEAD_BYTES, ExtrasError, FLAG_UUID, TAG_USER_ID, ZEROS_BYTES_MIN, encode_extra, encode_extras,
    uuid_flag, uuid_text,
};

pub const KIND_CLICK: u8 = 1;
pub const KIND_DEAD_LETTER: u8 = 2;
pub const KIND_START: u8 = 3;

/// Bytes before the partial key.
pub const CLICK_HEAD_BYTES: usize = 48;
/// The fixed part of a partial key.
pub const PARTIAL_KEY_HEAD_BYTES: usize = 8;
/// No click's record is shorter.
pub const CLICK_BYTES_MIN: usize = CLICK_HEAD_BYTES + PARTIAL_KEY_HEAD_BYTES;
/// What marks the rules by which class, device and agent were decided.
pub const RULES: u8 = 1;

/// Bytes of an id that [`ClickRecord::to_click`] spells.
pub const UUID_TEXT_BYTES: usize = extras::UUID_TEXT_BYTES;

const FLAG_HASHED: u8 = 1;
const FLAG_USER: u8 = 2;
const FLAG_KEY: u8 = 4;
const FLAG_CUT_OFF: u8 = 8;

const DEAD_LETTER_HEAD_BYTES: usize = 32;
const DEAD_LETTER_CHUNK_BYTES: usize = 255;
const START_BYTES: usize = 48;
const START_VERSION: u32 = 1;

/// Cause code of a dead letter that is no refusal.
const CAUSE_OTHER_PAYLOAD: u8 = 128;

/// Region, ad, campaign and advertiser together.
const DIMS_BYTES_MAX: usize = REGION_BYTES_MAX + AD_ID_BYTES_MAX + CAMPAIGN_ID_BYTES_MAX + ADVERTISER_ID_BYTES_MAX;

/// What of a click's record is put together before it is appended: all but long and rare texts.
const STACK_BYTES: usize = CLICK_BYTES_MIN + DIMS_BYTES_MAX + EXTRA_HEAD_BYTES + ZEROS_BYTES_MIN;

/// Why a dead letter was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Refused(Reason),
    /// A duplicate whose payload differs from the first one's; it counted as a duplicate.
    OtherPayload,
}

impl Cause {
    fn code(self) -> u8 {
        match self {
            Cause::Refused(reason) => reason as u8,
            Cause::OtherPayload => CAUSE_OTHER_PAYLOAD,
        }
    }

    fn from_code(code: u8) -> Option<Cause> {
        if code == CAUSE_OTHER_PAYLOAD {
            Some(Cause::OtherPayload)
        } else {
            Reason::from_code(code).map(Cause::Refused)
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Cause::Refused(reason) => reason.name(),
            Cause::OtherPayload => "other_payload",
        }
    }
}

/// A record, decoded: the text borrows from the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    Click(ClickRecord<'a>),
    DeadLetter(DeadLetter<'a>),
    Start(Start),
}

/// The first record of an incarnation: its nonce was on disk before its first transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    pub incarnation: u64,
    pub nonce: [u8; 16],
    pub started_ms: i64,
}

/// What is wrong with bytes that should be a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("record is cut off: it needs {needed} bytes and {left} are left")]
    CutOff { needed: usize, left: usize },
    #[error("record type {0} is unknown (1 click, 2 dead letter, 3 start); a newer tollgate may read it")]
    UnknownKind(u8),
    #[error("record field `{field}` has the value {value}, which this version does not know")]
    UnknownCode { field: &'static str, value: u64 },
    #[error("record field `{field}` does not fit into the record's {length} bytes")]
    BadLength { field: &'static str, length: usize },
}

/// Appends the canonical record of a click.
pub fn encode_click(click: &Click<'_>, received_ms: i64, out: &mut Vec<u8>) {
    let at = out.len();
    let mut head = [0_u8; CLICK_BYTES_MIN];
    head[2] = KIND_CLICK;
    let uuid_flag = uuid_flag(&click.key, &click.extras);
    head[3] = uuid_flag
        | if click.key.hashed { FLAG_HASHED } else { 0 }
        | if click.user_id.is_empty() { 0 } else { FLAG_USER };
    head[8..24].copy_from_slice(&click.key.bytes);
    head[24..32].copy_from_slice(&click.event_time.0.to_le_bytes());
    head[32..40].copy_from_slice(&received_ms.to_le_bytes());
    head[40..48].copy_from_slice(&user_token(click.user_id).to_le_bytes());
    head[48..56].copy_from_slice(&[
        click.class as u8,
        click.device as u8,
        click.agent as u8,
        RULES,
        text_length(click.region),
        text_length(click.ad_id),
        text_length(click.campaign_id),
        text_length(click.advertiser_id),
    ]);
    let dims = [click.region, click.ad_id, click.campaign_id, click.advertiser_id];
    // Filled on the stack by short copies and appended once: what a click names is a few bytes long, and a call for each costs
    // more than it.
    let mut record = [0_u8; STACK_BYTES];
    record[..head.len()].copy_from_slice(&head);
    let mut place = head.len();
    for text in dims {
        copy_short(text, &mut record[place..place + text.len()]);
        place += text.len();
    }
    let dims_hash = xxh3_64(&record[CLICK_HEAD_BYTES..place]) as u32;
    record[4..8].copy_from_slice(&dims_hash.to_le_bytes());
    let user_bytes = click.user_id.len();
    if (1..ZEROS_BYTES_MIN).contains(&user_bytes) {
        record[place..place + EXTRA_HEAD_BYTES].copy_from_slice(&[TAG_USER_ID, user_bytes as u8, 0]);
        place += EXTRA_HEAD_BYTES;
        copy_short(click.user_id, &mut record[place..place + user_bytes]);
        place += user_bytes;
    }
    out.extend_from_slice(&record[..place]);
    if user_bytes >= ZEROS_BYTES_MIN {
        encode_extra(TAG_USER_ID, click.user_id, out);
    }
    if !click.extras.is_empty() {
        encode_extras(&click.extras, uuid_flag, out);
    }
    let length = u16::try_from(out.len() - at).expect("the bounds of a click's fields add up to less than 64 KiB");
    out[at..at + 2].copy_from_slice(&length.to_le_bytes());
}

/// Appends a dead letter: the first 4 KiB of the raw bytes, and why they were refused.
pub fn encode_dead_letter(cause: Cause, key: Option<ClickKey>, received_ms: i64, raw: &[u8], out: &mut Vec<u8>) {
    let kept = &raw[..raw.len().min(DEAD_LETTER_RAW_BYTES_MAX)];
    let at = out.len();
    let mut head = [0_u8; DEAD_LETTER_HEAD_BYTES];
    head[2] = KIND_DEAD_LETTER;
    head[3] = if kept.len() < raw.len() { FLAG_CUT_OFF } else { 0 };
    head[4] = cause.code();
    head[6..8].copy_from_slice(&(kept.len() as u16).to_le_bytes());
    if let Some(key) = key {
        head[3] |= FLAG_KEY | if key.hashed { FLAG_HASHED } else { 0 };
        head[8..24].copy_from_slice(&key.bytes);
    }
    head[24..32].copy_from_slice(&received_ms.to_le_bytes());
    out.extend_from_slice(&head);
    for chunk in kept.chunks(DEAD_LETTER_CHUNK_BYTES) {
        out.push(chunk.len() as u8);
        out.extend_from_slice(chunk);
    }
    let length =
        u16::try_from(out.len() - at).expect("4 KiB of raw bytes and their chunk lengths are less than 64 KiB");
    out[at..at + 2].copy_from_slice(&length.to_le_bytes());
}

/// Appends the record that begins an incarnation.
pub fn encode_start(start: &Start, out: &mut Vec<u8>) {
    let mut bytes = [0xA5_u8; START_BYTES];
    bytes[0..2].copy_from_slice(&(START_BYTES as u16).to_le_bytes());
    bytes[2] = KIND_START;
    bytes[3] = 0;
    bytes[4..8].copy_from_slice(&START_VERSION.to_le_bytes());
    bytes[8..24].copy_from_slice(&start.nonce);
    bytes[24..32].copy_from_slice(&start.incarnation.to_le_bytes());
    bytes[32..40].copy_from_slice(&start.started_ms.to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// Token of a user in the distinct-user sketches: 0 only for none.
pub fn user_token(user_id: &[u8]) -> u64 {
    if user_id.is_empty() { 0 } else { xxh3_64(user_id).max(1) }
}

/// Length of the record that starts `bytes`, as it says of itself; 0 where not even that is there.
pub fn record_length(bytes: &[u8]) -> usize {
    match bytes {
        [low, high, ..] => usize::from(u16::from_le_bytes([*low, *high])),
        [] | [_] => 0,
    }
}

/// Decodes the record at the start of `bytes` and says how long it is. Total: any bytes give a record or an error.
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), RecordError> {
    let length = record_length(bytes);
    if length < 4 || length > bytes.len() {
        return Err(RecordError::CutOff { needed: length.max(4), left: bytes.len() });
    }
    let bytes = &bytes[..length];
    let record = match bytes[2] {
        KIND_CLICK => Record::Click(ClickRecord::decode(bytes)?),
        KIND_DEAD_LETTER => Record::DeadLetter(DeadLetter::decode(bytes)?),
        KIND_START => Record::Start(decode_start(bytes)?),
        kind => return Err(RecordError::UnknownKind(kind)),
    };
    Ok((record, length))
}

/// A click's record: its bytes, known to be sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClickRecord<'a> {
    bytes: &'a [u8],
}

impl<'a> ClickRecord<'a> {
    /// Takes bytes that [`encode_click`] wrote in this process; they are not checked again.
    pub fn encoded(bytes: &'a [u8]) -> ClickRecord<'a> {
        debug_assert!(ClickRecord::decode(bytes).is_ok(), "only encode_click makes these bytes");
        ClickRecord { bytes }
    }

    fn decode(bytes: &'a [u8]) -> Result<ClickRecord<'a>, RecordError> {
        let length = bytes.len();
        if length < CLICK_BYTES_MIN || record_length(bytes) != length {
            return Err(RecordError::BadLength { field: "head", length });
        }
        let unknown = |field, value: u8| RecordError::UnknownCode { field, value: u64::from(value) };
        // Only a UUID's own bytes can be some id's text.
        let both = bytes[3] & FLAG_UUID != 0 && bytes[3] & FLAG_HASHED != 0;
        if bytes[3] & !(FLAG_HASHED | FLAG_USER | FLAG_UUID) != 0 || both {
            return Err(unknown("flags", bytes[3]));
        }
        if usize::from(bytes[48]) >= Class::ALL.len() {
            return Err(unknown("class", bytes[48]));
        }
        if usize::from(bytes[49]) >= Device::ALL.len() {
            return Err(unknown("device", bytes[49]));
        }
        if usize::from(bytes[50]) >= Agent::ALL.len() {
            return Err(unknown("agent", bytes[50]));
        }
        if bytes[51] != RULES {
            return Err(unknown("rules", bytes[51]));
        }
        let record = ClickRecord { bytes };
        let extras = bytes.get(record.partial_key_end()..);
        let extras = extras.ok_or(RecordError::BadLength { field: "partial key", length })?;
        extras::check(extras, bytes[3] & FLAG_UUID).map_err(|error| match error {
            ExtrasError::Tag(tag) => unknown("extra tag", tag),
            ExtrasError::Length => RecordError::BadLength { field: "extra", length },
        })?;
        Ok(record)
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn key(&self) -> ClickKey {
        ClickKey { bytes: array(self.bytes, 8), hashed: self.bytes[3] & FLAG_HASHED != 0 }
    }

    pub fn event_ms(&self) -> i64 {
        i64::from_le_bytes(array(self.bytes, 24))
    }

    pub fn received_ms(&self) -> i64 {
        i64::from_le_bytes(array(self.bytes, 32))
    }

    /// 0 where no user is named.
    pub fn user_token(&self) -> u64 {
        u64::from_le_bytes(array(self.bytes, 40))
    }

    pub fn dims_hash(&self) -> u32 {
        u32::from_le_bytes(array(self.bytes, 4))
    }

    /// The slice that the click is counted by, beside its pane.
    pub fn partial_key(&self) -> &'a [u8] {
        &self.bytes[CLICK_HEAD_BYTES..self.partial_key_end()]
    }

    /// Seven bits of what is counted: two clicks with the same id and another payload differ in it, but for one in 128.
    pub fn check(&self) -> u8 {
        let mixed = u64::from(self.dims_hash())
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(self.event_ms() as u64)
            .wrapping_mul(0xC2B2_AE3D_27D4_EB4F)
            .wrapping_add(self.user_token())
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 57) as u8
    }

    /// Back to fields. `uuid` is where an id is spelt that the record holds as its key alone.
    pub fn to_click<'t>(&self, uuid: &'t mut [u8; UUID_TEXT_BYTES]) -> Click<'t>
    where
        'a: 't,
    {
        let [class, device, agent, _rules, region, ad, campaign, advertiser] = array::<8>(self.bytes, CLICK_HEAD_BYTES);
        let mut rest = &self.bytes[CLICK_HEAD_BYTES + PARTIAL_KEY_HEAD_BYTES..];
        let mut take = |length: u8| {
            let (text, after) = rest.split_at(usize::from(length));
            rest = after;
            text
        };
        let (region, ad_id, campaign_id, advertiser_id) = (take(region), take(ad), take(campaign), take(advertiser));
        *uuid = uuid_text(&self.key().bytes);
        let (user_id, extras) = extras::decode_extras(rest, self.bytes[3] & FLAG_UUID, uuid);
        Click {
            key: self.key(),
            event_time: EventTime(self.event_ms()),
            class: Class::from_code(class).expect("decode checked the class"),
            device: Device::from_code(device).expect("decode checked the device"),
            agent: Agent::from_code(agent).expect("decode checked the agent"),
            region,
            ad_id,
            campaign_id,
            advertiser_id,
            user_id,
            extras,
        }
    }

    fn partial_key_end(&self) -> usize {
        let texts: usize = self.bytes[52..56].iter().map(|length| usize::from(*length)).sum();
        CLICK_HEAD_BYTES + PARTIAL_KEY_HEAD_BYTES + texts
    }
}

/// A refused click as it was sent, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    bytes: &'a [u8],
    pub cause: Cause,
}

impl<'a> DeadLetter<'a> {
    fn decode(bytes: &'a [u8]) -> Result<DeadLetter<'a>, RecordError> {
        let length = bytes.len();
        if length < DEAD_LETTER_HEAD_BYTES {
            return Err(RecordError::BadLength { field: "head", length });
        }
        let unknown = |field, value: u8| RecordError::UnknownCode { field, value: u64::from(value) };
        if bytes[3] & !(FLAG_HASHED | FLAG_KEY | FLAG_CUT_OFF) != 0 {
            return Err(unknown("flags", bytes[3]));
        }
        let cause = Cause::from_code(bytes[4]).ok_or_else(|| unknown("cause", bytes[4]))?;
        let letter = DeadLetter { bytes, cause };
        let (mut at, mut raw_bytes) = (DEAD_LETTER_HEAD_BYTES, 0);
        while at < length {
            let chunk = usize::from(bytes[at]);
            if chunk == 0 || at + 1 + chunk > length {
                return Err(RecordError::BadLength { field: "raw chunk", length });
            }
            raw_bytes += chunk;
            at += 1 + chunk;
        }
        if raw_bytes != usize::from(u16::from_le_bytes(array(bytes, 6))) {
            return Err(RecordError::BadLength { field: "raw", length });
        }
        Ok(letter)
    }

    pub fn key(&self) -> Option<ClickKey> {
        let hashed = self.bytes[3] & FLAG_HASHED != 0;
        (self.bytes[3] & FLAG_KEY != 0).then(|| ClickKey { bytes: array(self.bytes, 8), hashed })
    }

    pub fn received_ms(&self) -> i64 {
        i64::from_le_bytes(array(self.bytes, 24))
    }

    /// Whether more was sent than is kept.
    pub fn cut_off(&self) -> bool {
        self.bytes[3] & FLAG_CUT_OFF != 0
    }

    pub fn raw(&self) -> Vec<u8> {
        let mut raw = Vec::with_capacity(self.bytes.len());
        let mut rest = &self.bytes[DEAD_LETTER_HEAD_BYTES..];
        while let Some((length, after)) = rest.split_first() {
            let (chunk, after) = after.split_at(usize::from(*length));
            raw.extend_from_slice(chunk);
            rest = after;
        }
        raw
    }
}

fn decode_start(bytes: &[u8]) -> Result<Start, RecordError> {
    if bytes.len() != START_BYTES {
        return Err(RecordError::BadLength { field: "start", length: bytes.len() });
    }
    let version = u32::from_le_bytes(array(bytes, 4));
    if version != START_VERSION {
        return Err(RecordError::UnknownCode { field: "version", value: u64::from(version) });
    }
    Ok(Start {
        nonce: array(bytes, 8),
        incarnation: u64::from_le_bytes(array(bytes, 24)),
        started_ms: i64::from_le_bytes(array(bytes, 32)),
    })
}

/// Copies text of any length; up to 64 bytes without a call, as blocks that overlap.
#[inline]
fn copy_short(text: &[u8], to: &mut [u8]) {
    match text.len() {
        0 => {}
        1..4 => to.iter_mut().zip(text).for_each(|(to, byte)| *to = *byte),
        4..8 => copy_ends::<4>(text, to),
        8..16 => copy_ends::<8>(text, to),
        16..32 => copy_ends::<16>(text, to),
        32..=64 => copy_ends::<32>(text, to),
        _ => to.copy_from_slice(text),
    }
}

/// The first and the last `N` bytes, which are all there are up to `2 * N`.
#[inline]
fn copy_ends<const N: usize>(text: &[u8], to: &mut [u8]) {
    let (Some(first), Some(last)) = (text.first_chunk::<N>(), text.last_chunk::<N>()) else {
        unreachable!("N bytes or more")
    };
    let at = to.len() - N;
    to[..N].copy_from_slice(first);
    to[at..].copy_from_slice(last);
}

fn text_length(text: &[u8]) -> u8 {
    u8::try_from(text.len()).expect("click.rs bounds the dimensions at 64 bytes")
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
