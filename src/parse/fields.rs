//! Pure. The rules of a click: names and bounds of its fields, its times, its key. Both scanners end here, so a rule is written once.
//!
//! Where a field could be read in more than one way, it is read so:
//! - An empty `ad_id`, `request_id`, `click_id` or `impression_id` is refused; any other empty text is as good as absent.
//! - Control characters (U+0000–U+001F, U+007F) are refused in every known text.
//! - A time as number is a whole number without fraction or exponent; as text it is RFC 3339, so digits in quotes are none.
//! - `timestamp` and `click_timestamp` together must say the same millisecond, or the second repeats the first.
//! - Refusals come in this order: JSON, then field by field as sent, then what is missing, then the time's place.

use super::Refused;
use super::region::{OTHER, Regions};
use super::{agent::Agents, simd, time};
use crate::click::*;
use crate::config::{ClickConfig, DedupKey};
use xxhash_rust::xxh3::xxh3_128;

/// The fields that a click can have; all others are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Field {
    RequestId,
    ClickId,
    ImpressionId,
    EventType,
    Timestamp,
    ClickTimestamp,
    AdId,
    CampaignId,
    AdvertiserId,
    UserId,
    Ip,
    Country,
    Region,
    Device,
    UserAgent,
    Signature,
}

pub(super) const FIELDS: usize = 16;

/// Bound of the texts that are only looked at and never kept: `device`, and a time as text.
const UNKEPT_BYTES_MAX: usize = 64;

impl Field {
    pub const ALL: [Field; FIELDS] = [
        Field::RequestId,
        Field::ClickId,
        Field::ImpressionId,
        Field::EventType,
        Field::Timestamp,
        Field::ClickTimestamp,
        Field::AdId,
        Field::CampaignId,
        Field::AdvertiserId,
        Field::UserId,
        Field::Ip,
        Field::Country,
        Field::Region,
        Field::Device,
        Field::UserAgent,
        Field::Signature,
    ];

    /// The field that a key of the object names, in either spelling.
    pub fn named(key: &[u8]) -> Option<Field> {
        Some(match key {
            b"request_id" | b"requestId" => Field::RequestId,
            b"click_id" | b"clickId" => Field::ClickId,
            b"impression_id" | b"impressionId" => Field::ImpressionId,
            b"event_type" | b"eventType" => Field::EventType,
            b"timestamp" => Field::Timestamp,
            b"click_timestamp" | b"clickTimestamp" => Field::ClickTimestamp,
            b"ad_id" | b"adId" => Field::AdId,
            b"campaign_id" | b"campaignId" => Field::CampaignId,
            b"advertiser_id" | b"advertiserId" => Field::AdvertiserId,
            b"user_id" | b"userId" => Field::UserId,
            b"ip" => Field::Ip,
            b"country" => Field::Country,
            b"region" => Field::Region,
            b"device" => Field::Device,
            b"user_agent" | b"userAgent" => Field::UserAgent,
            b"signature" => Field::Signature,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Field::RequestId => "request_id",
            Field::ClickId => "click_id",
            Field::ImpressionId => "impression_id",
            Field::EventType => "event_type",
            Field::Timestamp => "timestamp",
            Field::ClickTimestamp => "click_timestamp",
            Field::AdId => "ad_id",
            Field::CampaignId => "campaign_id",
            Field::AdvertiserId => "advertiser_id",
            Field::UserId => "user_id",
            Field::Ip => "ip",
            Field::Country => "country",
            Field::Region => "region",
            Field::Device => "device",
            Field::UserAgent => "user_agent",
            Field::Signature => "signature",
        }
    }

    pub const fn bytes_max(self) -> usize {
        match self {
            Field::RequestId | Field::ClickId | Field::ImpressionId => ID_BYTES_MAX,
            Field::EventType => EVENT_TYPE_BYTES_MAX,
            Field::AdId => AD_ID_BYTES_MAX,
            Field::CampaignId => CAMPAIGN_ID_BYTES_MAX,
            Field::AdvertiserId => ADVERTISER_ID_BYTES_MAX,
            Field::UserId => USER_ID_BYTES_MAX,
            Field::Ip => IP_BYTES_MAX,
            // The region's name is bounded by the closed set; what was sent is a text like the country's.
            Field::Country | Field::Region => COUNTRY_BYTES_MAX,
            Field::Timestamp | Field::ClickTimestamp | Field::Device => UNKEPT_BYTES_MAX,
            Field::UserAgent => USER_AGENT_BYTES_MAX,
            Field::Signature => SIGNATURE_BYTES_MAX,
        }
    }

    pub fn is_time(self) -> bool {
        matches!(self, Field::Timestamp | Field::ClickTimestamp)
    }

    fn must_not_be_empty(self) -> bool {
        matches!(self, Field::AdId | Field::RequestId | Field::ClickId | Field::ImpressionId)
    }

    pub fn refuse(self, reason: Reason) -> Refusal {
        Refusal { reason, field: self.name() }
    }
}

/// What a click says of its known fields, each within its bounds. Empty where absent.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    text: [&'a [u8]; FIELDS],
    /// `timestamp` and `click_timestamp` where they are whole numbers, in milliseconds; 0 where absent.
    whole_ms: [i64; 2],
    /// A text that is known to be a UUID, and its bytes.
    uuid: Option<(Field, u128)>,
}

impl<'a> Fields<'a> {
    #[inline]
    pub fn new() -> Fields<'a> {
        Fields { text: [b""; FIELDS], whole_ms: [0; 2], uuid: None }
    }

    #[inline]
    pub fn text(&self, field: Field) -> &'a [u8] {
        self.text[field as usize]
    }

    /// Takes a field's text after checking it.
    pub fn put_text(&mut self, field: Field, text: &'a [u8]) -> Result<(), Refusal> {
        if field.is_time() && time::rfc3339(text).is_none() {
            return Err(field.refuse(Reason::BadTime));
        }
        if text.is_empty() && field.must_not_be_empty() {
            return Err(field.refuse(Reason::Empty));
        }
        if text.len() > field.bytes_max() {
            return Err(field.refuse(Reason::TooLong));
        }
        // Without an early end, so that it is done many bytes at once.
        if text.iter().fold(false, |found, byte| found | byte.is_ascii_control()) {
            return Err(field.refuse(Reason::Malformed));
        }
        self.put_checked(field, text);
        Ok(())
    }

    /// Takes a text that is known to be within `field.bytes_max()`, not empty, free of control characters, and no time.
    #[inline]
    pub fn put_checked(&mut self, field: Field, text: &'a [u8]) {
        debug_assert!(text.len() <= field.bytes_max());
        self.text[field as usize] = text;
    }

    /// Takes an id that is the canonical text of a UUID.
    #[inline]
    pub fn put_uuid(&mut self, field: Field, text: &'a [u8; 36], bytes: [u8; 16]) {
        self.put_checked(field, text);
        self.uuid = Some((field, u128::from_le_bytes(bytes)));
    }

    /// The UUID that a field's text is.
    #[inline(always)]
    fn uuid(&self, field: Field) -> Option<u128> {
        match self.uuid {
            Some((known, uuid)) if known == field => Some(uuid),
            Some(_) | None => {
                let text = <&[u8; 36]>::try_from(self.text(field)).ok()?;
                simd::uuid(text).map(u128::from_le_bytes)
            }
        }
    }

    /// Takes a whole number, which only a time can be.
    #[inline]
    pub fn put_whole(&mut self, field: Field, number: i64) -> Result<(), Refusal> {
        let place = match field {
            Field::Timestamp => 0,
            Field::ClickTimestamp => 1,
            _ => return Err(field.refuse(Reason::WrongType)),
        };
        self.whole_ms[place] = time::whole(number).ok_or(field.refuse(Reason::BadTime))?;
        Ok(())
    }

    fn time_ms(&self, field: Field) -> Option<i64> {
        match (self.whole_ms[(field == Field::ClickTimestamp) as usize], self.text(field)) {
            (0, b"") => None,
            (0, text) => time::rfc3339(text),
            (whole_ms, _) => Some(whole_ms),
        }
    }

    fn event_ms(&self) -> Result<i64, Refusal> {
        match (self.time_ms(Field::Timestamp), self.time_ms(Field::ClickTimestamp)) {
            (Some(event_ms), None) | (None, Some(event_ms)) => Ok(event_ms),
            (Some(one), Some(other)) if one == other => Ok(one),
            (Some(_), Some(_)) => Err(Field::ClickTimestamp.refuse(Reason::RepeatedField)),
            (None, None) => Err(Field::Timestamp.refuse(Reason::MissingField)),
        }
    }
}

/// When the clicks of a turn are looked at, and what their request says of them all.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    pub now_ms: i64,
    /// The oldest event time that is taken. The home compares again.
    pub horizon_ms: i64,
    /// The request says that it is a prefetch.
    pub prefetch: bool,
}

/// A key on its way: its bytes as one number, which registers carry better, and whether they are a hash.
#[derive(Clone, Copy)]
struct Identity {
    little_endian: u128,
    hashed: bool,
}

impl Identity {
    #[inline(always)]
    fn key(self) -> ClickKey {
        ClickKey { bytes: self.little_endian.to_le_bytes(), hashed: self.hashed }
    }
}

/// The rules in force, and what they remember.
pub(super) struct Rules {
    dedup_key: DedupKey,
    clock_skew_ms: i64,
    regions: Regions,
    agents: Agents,
    /// What a key is hashed from.
    hashed: Vec<u8>,
}

impl Rules {
    pub fn new(config: &ClickConfig) -> Rules {
        let sent_bytes_max: usize = Field::ALL.iter().map(|field| field.bytes_max() + 3).sum();
        Rules {
            dedup_key: config.dedup_key,
            clock_skew_ms: config.clock_skew_ms,
            regions: Regions::new(&config.regions),
            agents: Agents::new(),
            hashed: Vec::with_capacity(sent_bytes_max + 16),
        }
    }

    /// Makes a click of its fields and hands it on, or says why not.
    #[inline(always)]
    pub fn judge<'a, T>(
        &'a mut self,
        fields: &Fields<'a>,
        context: &Context,
        accept: impl FnOnce(Click<'a>) -> T,
    ) -> Result<T, Refused> {
        let (identity, event_ms) = self.identify(fields).map_err(|refusal| Refused { key: None, refusal })?;
        if event_ms < context.horizon_ms || event_ms > context.now_ms.saturating_add(self.clock_skew_ms) {
            let reason = if event_ms < context.horizon_ms { Reason::TooOld } else { Reason::InFuture };
            return Err(Refused { key: Some(identity.key()), refusal: sent_time(fields).refuse(reason) });
        }
        let agent = self.agents.look_up(fields.text(Field::UserAgent));
        let class = match (agent.is_bot, context.prefetch) {
            (true, _) => Class::BotUserAgent,
            (false, true) => Class::Prefetch,
            (false, false) => Class::Valid,
        };
        let device = match fields.text(Field::Device) {
            b"" => agent.device,
            text => device_named(text),
        };
        let (region, region_text) = self.region(fields);
        Ok(accept(Click {
            key: identity.key(),
            event_time: EventTime(event_ms),
            class,
            device,
            agent: agent.family,
            region,
            ad_id: fields.text(Field::AdId),
            campaign_id: fields.text(Field::CampaignId),
            advertiser_id: fields.text(Field::AdvertiserId),
            user_id: fields.text(Field::UserId),
            extras: Extras {
                request_id: fields.text(Field::RequestId),
                click_id: fields.text(Field::ClickId),
                impression_id: fields.text(Field::ImpressionId),
                event_type: fields.text(Field::EventType),
                ip: fields.text(Field::Ip),
                country: fields.text(Field::Country),
                region_text,
                user_agent: fields.text(Field::UserAgent),
                signature: fields.text(Field::Signature),
            },
        }))
    }

    #[inline(always)]
    fn identify(&mut self, fields: &Fields<'_>) -> Result<(Identity, i64), Refusal> {
        if fields.text(Field::AdId).is_empty() {
            return Err(Field::AdId.refuse(Reason::MissingField));
        }
        let event_ms = fields.event_ms()?;
        Ok((self.key(fields, event_ms)?, event_ms))
    }

    /// The region counted by, and the region as sent where that differs.
    #[inline]
    fn region<'a>(&'a self, fields: &Fields<'a>) -> (&'a [u8], &'a [u8]) {
        let sent = fields.text(Field::Region);
        let named = if sent.is_empty() { fields.text(Field::Country) } else { sent };
        if named.is_empty() {
            return (b"", b"");
        }
        let region = self.regions.fold(named);
        let is_as_sent = match (sent, region) {
            ([first, second], [one, other]) => first == one && second == other,
            _ => sent == region,
        };
        (region, if is_as_sent { b"" } else { sent })
    }

    /// The key, made of the fields as sent. Lone ids that are UUIDs stand for themselves, whichever field they are in;
    /// everything else is hashed with its kind and its parts' lengths, so that no two different ids give the same bytes.
    #[inline(always)]
    fn key(&mut self, fields: &Fields<'_>, event_ms: i64) -> Result<Identity, Refusal> {
        let (id, companion) = match self.dedup_key {
            DedupKey::Auto => match [Field::RequestId, Field::ClickId, Field::ImpressionId]
                .into_iter()
                .find(|field| !fields.text(*field).is_empty())
            {
                Some(id) => (id, companion_of(id)),
                None => return Ok(self.content_key(fields, event_ms)),
            },
            DedupKey::RequestId => (Field::RequestId, None),
            DedupKey::ClickId => (Field::ClickId, companion_of(Field::ClickId)),
            DedupKey::ImpressionId => (Field::ImpressionId, companion_of(Field::ImpressionId)),
            DedupKey::Content => return Ok(self.content_key(fields, event_ms)),
        };
        let text = fields.text(id);
        if text.is_empty() {
            return Err(id.refuse(Reason::MissingField));
        }
        let companion = companion.filter(|companion| !fields.text(*companion).is_empty());
        if companion.is_none()
            && let Some(little_endian) = fields.uuid(id)
        {
            return Ok(Identity { little_endian, hashed: false });
        }
        self.hashed.clear();
        self.hash_in(id, text);
        if let Some(companion) = companion {
            self.hash_in(companion, fields.text(companion));
        }
        Ok(self.hashed_key())
    }

    /// A hash of all known fields. The times go in as the millisecond they mean; unknown fields, order and spelling do not count.
    fn content_key(&mut self, fields: &Fields<'_>, event_ms: i64) -> Identity {
        self.hashed.clear();
        self.hashed.push(FIELDS as u8);
        self.hashed.extend_from_slice(&event_ms.to_le_bytes());
        for field in Field::ALL {
            if !field.is_time() && !fields.text(field).is_empty() {
                self.hash_in(field, fields.text(field));
            }
        }
        self.hashed_key()
    }

    fn hash_in(&mut self, field: Field, text: &[u8]) {
        self.hashed.push(field as u8);
        self.hashed.extend_from_slice(&(text.len() as u16).to_le_bytes());
        self.hashed.extend_from_slice(text);
    }

    fn hashed_key(&self) -> Identity {
        Identity { little_endian: xxh3_128(&self.hashed).swap_bytes(), hashed: true }
    }
}

/// What belongs to an id that is not unique without it.
fn companion_of(id: Field) -> Option<Field> {
    match id {
        Field::ClickId => Some(Field::UserId),
        Field::ImpressionId => Some(Field::EventType),
        _ => None,
    }
}

fn sent_time(fields: &Fields<'_>) -> Field {
    if fields.time_ms(Field::Timestamp).is_some() { Field::Timestamp } else { Field::ClickTimestamp }
}

/// The kind of device that a text names, in any case.
#[inline]
pub(super) fn device_named(text: &[u8]) -> Device {
    // The common texts, as they stand.
    match text {
        b"mobile" => return Device::Mobile,
        b"desktop" => return Device::Desktop,
        b"tablet" => return Device::Tablet,
        _ => {}
    }
    let mut lower = [0; 16];
    let Some(lower) = lower.get_mut(..text.len()) else { return Device::Other };
    lower.copy_from_slice(text);
    lower.make_ascii_lowercase();
    match &*lower {
        b"unknown" => Device::Unknown,
        b"mobile" | b"phone" | b"smartphone" | b"mobilephone" | b"mobile phone" | b"mobile_phone" => Device::Mobile,
        b"desktop" | b"pc" | b"computer" | b"laptop" => Device::Desktop,
        b"tablet" => Device::Tablet,
        b"tv" | b"ctv" | b"smarttv" | b"smart tv" | b"smart_tv" | b"smart-tv" | b"connected tv" | b"connected_tv" => {
            Device::Tv
        }
        b"bot" | b"crawler" | b"spider" => Device::Bot,
        _ => Device::Other,
    }
}

const _: () = assert!(OTHER.len() <= REGION_BYTES_MAX);
