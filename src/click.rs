//! Pure. What a click is once it is understood: its key, its times, its dimensions. Everything else in the house speaks of
//! clicks in these words.

/// Width of a pane, the finest grain of a partial, in milliseconds of event time. Part of the wire: never changes.
pub const PANE_MS: i64 = 10_000;

/// Upper bounds of the text fields, in bytes. Longer values reject the click (`too_long`).
pub const AD_ID_BYTES_MAX: usize = 64;
pub const CAMPAIGN_ID_BYTES_MAX: usize = 64;
pub const ADVERTISER_ID_BYTES_MAX: usize = 64;
pub const REGION_BYTES_MAX: usize = 16;
pub const USER_ID_BYTES_MAX: usize = 128;
pub const ID_BYTES_MAX: usize = 128;
pub const IP_BYTES_MAX: usize = 45;
pub const COUNTRY_BYTES_MAX: usize = 64;
pub const EVENT_TYPE_BYTES_MAX: usize = 32;
pub const USER_AGENT_BYTES_MAX: usize = 512;
pub const SIGNATURE_BYTES_MAX: usize = 512;

/// 128 bits that identify a click, and whether they are a UUID's own bytes or a hash of text. The two kinds never equal
/// each other, whatever their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClickKey {
    pub bytes: [u8; 16],
    /// `false`: the bytes of a canonical 36-byte UUID text. `true`: XXH3-128 (seed 0, big-endian) of any other id.
    pub hashed: bool,
}

/// When the user clicked: milliseconds since 1970-01-01T00:00:00Z, from the click itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventTime(pub i64);

impl EventTime {
    pub fn pane(self) -> Pane {
        Pane(self.0.div_euclid(PANE_MS))
    }
}

/// Ten seconds of event time, numbered from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pane(pub i64);

impl Pane {
    pub fn start_ms(self) -> i64 {
        self.0 * PANE_MS
    }
}

/// `valid`, or the first rule that marks the click. Marked clicks are logged and counted like any other; *net* is `Valid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    Valid = 0,
    /// The user agent names a crawler, a library or another non-human client.
    BotUserAgent = 1,
    /// The browser said that it prefetched (`Sec-Purpose` or `Purpose: prefetch`).
    Prefetch = 2,
}

impl Class {
    pub const ALL: [Class; 3] = [Class::Valid, Class::BotUserAgent, Class::Prefetch];

    pub fn from_code(code: u8) -> Option<Class> {
        Class::ALL.into_iter().find(|class| *class as u8 == code)
    }

    pub fn name(self) -> &'static str {
        match self {
            Class::Valid => "valid",
            Class::BotUserAgent => "bot_user_agent",
            Class::Prefetch => "prefetch",
        }
    }
}

/// The kind of device, a closed set so that clients cannot make keys at will. Codes are on disk and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Device {
    Unknown = 0,
    Mobile = 1,
    Desktop = 2,
    Tablet = 3,
    Tv = 4,
    Bot = 5,
    Other = 6,
}

impl Device {
    pub const ALL: [Device; 7] =
        [Device::Unknown, Device::Mobile, Device::Desktop, Device::Tablet, Device::Tv, Device::Bot, Device::Other];

    pub fn from_code(code: u8) -> Option<Device> {
        Device::ALL.into_iter().find(|device| *device as u8 == code)
    }

    pub fn name(self) -> &'static str {
        match self {
            Device::Unknown => "unknown",
            Device::Mobile => "mobile",
            Device::Desktop => "desktop",
            Device::Tablet => "tablet",
            Device::Tv => "tv",
            Device::Bot => "bot",
            Device::Other => "other",
        }
    }
}

/// The family of the user agent, a closed set. Codes are on disk and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Agent {
    Unknown = 0,
    Chrome = 1,
    Safari = 2,
    Firefox = 3,
    Edge = 4,
    Opera = 5,
    InternetExplorer = 6,
    Webview = 7,
    Bot = 8,
    Other = 9,
}

impl Agent {
    pub const ALL: [Agent; 10] = [
        Agent::Unknown,
        Agent::Chrome,
        Agent::Safari,
        Agent::Firefox,
        Agent::Edge,
        Agent::Opera,
        Agent::InternetExplorer,
        Agent::Webview,
        Agent::Bot,
        Agent::Other,
    ];

    pub fn from_code(code: u8) -> Option<Agent> {
        Agent::ALL.into_iter().find(|agent| *agent as u8 == code)
    }

    pub fn name(self) -> &'static str {
        match self {
            Agent::Unknown => "unknown",
            Agent::Chrome => "chrome",
            Agent::Safari => "safari",
            Agent::Firefox => "firefox",
            Agent::Edge => "edge",
            Agent::Opera => "opera",
            Agent::InternetExplorer => "ie",
            Agent::Webview => "webview",
            Agent::Bot => "bot",
            Agent::Other => "other",
        }
    }
}

/// A click as parsed and checked: the text borrows from the request (or from the parser's scratch) for one call.
/// Optional text is empty when absent. Every bound above holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Click<'a> {
    pub key: ClickKey,
    pub event_time: EventTime,
    pub class: Class,
    pub device: Device,
    pub agent: Agent,
    /// A name of the closed set of regions, `other`, or empty where the click names none.
    pub region: &'a [u8],
    pub ad_id: &'a [u8],
    pub campaign_id: &'a [u8],
    pub advertiser_id: &'a [u8],
    pub user_id: &'a [u8],
    pub extras: Extras<'a>,
}

/// The fields that nothing is counted by: kept in the log, because the log is also the raw store. Empty when absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras<'a> {
    pub request_id: &'a [u8],
    pub click_id: &'a [u8],
    pub impression_id: &'a [u8],
    pub event_type: &'a [u8],
    pub ip: &'a [u8],
    pub country: &'a [u8],
    /// The region as the click named it, where that differs from the region counted by.
    pub region_text: &'a [u8],
    pub user_agent: &'a [u8],
    pub signature: &'a [u8],
}

impl Extras<'_> {
    pub fn is_empty(&self) -> bool {
        *self == Extras::default()
    }
}

/// Why a click is refused. Names are part of the HTTP answer and of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Not JSON, not UTF-8, or not an object.
    Malformed = 1,
    MissingField = 2,
    WrongType = 3,
    Empty = 4,
    TooLong = 5,
    /// Nested deeper than 8.
    TooDeep = 6,
    /// A known field is there twice (also under its camelCase name).
    RepeatedField = 7,
    /// A time that cannot be read, or is outside what a time can be.
    BadTime = 8,
    /// Event time before the horizon: what was remembered then is forgotten, so it could be counted twice.
    TooOld = 9,
    /// Event time further ahead of the clock than `--clock-skew`.
    InFuture = 10,
    /// The record would not fit into one frame.
    TooLarge = 11,
}

impl Reason {
    pub const ALL: [Reason; 11] = [
        Reason::Malformed,
        Reason::MissingField,
        Reason::WrongType,
        Reason::Empty,
        Reason::TooLong,
        Reason::TooDeep,
        Reason::RepeatedField,
        Reason::BadTime,
        Reason::TooOld,
        Reason::InFuture,
        Reason::TooLarge,
    ];

    pub fn from_code(code: u8) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| *reason as u8 == code)
    }

    pub fn name(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::MissingField => "missing_field",
            Reason::WrongType => "wrong_type",
            Reason::Empty => "empty",
            Reason::TooLong => "too_long",
            Reason::TooDeep => "too_deep",
            Reason::RepeatedField => "repeated_field",
            Reason::BadTime => "bad_time",
            Reason::TooOld => "too_old",
            Reason::InFuture => "in_future",
            Reason::TooLarge => "too_large",
        }
    }
}

/// A refusal: the reason, and the field it is about (`""` where it is about the click as a whole).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub field: &'static str,
}
