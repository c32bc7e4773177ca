//! Pure. The protobuf messages, field for field as in `wire/partials.proto`.

/// How many clicks of one key one transaction adds. Mergeable: clicks add, users merge, nothing else may differ.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Partial {
    #[prost(uint32, tag = "1")]
    pub format_version: u32,
    #[prost(string, tag = "2")]
    pub edge_id: String,
    /// The log that the clicks lie in, 16 bytes. With `txn_seq` and `index` it names this partial for ever.
    #[prost(bytes = "vec", tag = "3")]
    pub log_uuid: Vec<u8>,
    #[prost(uint64, tag = "4")]
    pub txn_seq: u64,
    /// Dense from 0 within the transaction.
    #[prost(uint32, tag = "5")]
    pub index: u32,
    /// Start of the 10 s of event time counted here, ms since 1970, a multiple of 10,000.
    #[prost(sint64, tag = "6")]
    pub pane_start_ms: i64,
    #[prost(string, tag = "7")]
    pub ad_id: String,
    #[prost(string, tag = "8")]
    pub campaign_id: String,
    #[prost(string, tag = "9")]
    pub advertiser_id: String,
    #[prost(string, tag = "10")]
    pub region: String,
    /// Code of the closed set of devices.
    #[prost(uint32, tag = "11")]
    pub device: u32,
    /// Code of the closed set of agent families.
    #[prost(uint32, tag = "12")]
    pub agent: u32,
    /// Code of the click class; 0 is valid.
    #[prost(uint32, tag = "13")]
    pub class: u32,
    /// Version of the rule set that decided the class.
    #[prost(uint32, tag = "14")]
    pub rules: u32,
    #[prost(uint64, tag = "15")]
    pub clicks: u64,
    /// Sketch of the distinct users (see `wire::users`); empty where no click named a user.
    #[prost(bytes = "vec", tag = "16")]
    pub users: Vec<u8>,
    #[prost(sint64, tag = "17")]
    pub watermark_ms: i64,
}

/// The records of one log that a transaction takes: after `from_lsn` up to and including `to_lsn`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogRange {
    #[prost(bytes = "vec", tag = "1")]
    pub log_uuid: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub from_lsn: u64,
    #[prost(uint64, tag = "3")]
    pub to_lsn: u64,
    /// Click records in the range.
    #[prost(uint64, tag = "4")]
    pub clicks: u64,
    /// Click records of the log since its creation, up to `to_lsn`.
    #[prost(uint64, tag = "5")]
    pub clicks_total: u64,
}

/// Closes a transaction: what it must hold to be whole.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndRecord {
    #[prost(uint32, tag = "1")]
    pub format_version: u32,
    #[prost(string, tag = "2")]
    pub edge_id: String,
    /// Dense from 1 for each edge.
    #[prost(uint64, tag = "3")]
    pub txn_seq: u64,
    /// Partials of the transaction.
    #[prost(uint32, tag = "4")]
    pub partials: u32,
    /// CRC32C over the encoded partials, in order.
    #[prost(uint32, tag = "5")]
    pub crc: u32,
    #[prost(message, repeated, tag = "6")]
    pub ranges: Vec<LogRange>,
    #[prost(sint64, tag = "7")]
    pub watermark_ms: i64,
    #[prost(sint64, tag = "8")]
    pub horizon_ms: i64,
    /// The edge stopped cleanly after this: its silence holds nothing back.
    #[prost(bool, tag = "9")]
    pub stopped: bool,
}

/// Up to where one log was exported.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogPosition {
    #[prost(bytes = "vec", tag = "1")]
    pub log_uuid: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub lsn: u64,
    /// The chain of the log's frame that ends at `lsn`.
    #[prost(fixed64, tag = "3")]
    pub chain: u64,
    /// Click records of the log up to `lsn`.
    #[prost(uint64, tag = "4")]
    pub clicks_total: u64,
}

/// The only truth about what an edge exported.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Checkpoint {
    #[prost(uint32, tag = "1")]
    pub format_version: u32,
    #[prost(string, tag = "2")]
    pub edge_id: String,
    /// The transaction that this closes; dense from 1.
    #[prost(uint64, tag = "3")]
    pub txn_seq: u64,
    /// Every log not yet deleted.
    #[prost(message, repeated, tag = "4")]
    pub logs: Vec<LogPosition>,
    /// 128 random bits that the writing incarnation had synced into its log before its first transaction.
    #[prost(bytes = "vec", tag = "5")]
    pub nonce: Vec<u8>,
    /// Identity of the data directory that the logs lie in, 16 bytes.
    #[prost(bytes = "vec", tag = "6")]
    pub data_dir_uuid: Vec<u8>,
    #[prost(sint64, tag = "7")]
    pub written_ms: i64,
}

/// One accepted click, on the raw topic. (`log_uuid`, `lsn`) names it for ever.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Click {
    #[prost(uint32, tag = "1")]
    pub format_version: u32,
    #[prost(string, tag = "2")]
    pub edge_id: String,
    #[prost(bytes = "vec", tag = "3")]
    pub log_uuid: Vec<u8>,
    #[prost(uint64, tag = "4")]
    pub lsn: u64,
    #[prost(bytes = "vec", tag = "5")]
    pub key: Vec<u8>,
    #[prost(bool, tag = "6")]
    pub key_hashed: bool,
    #[prost(sint64, tag = "7")]
    pub event_ms: i64,
    #[prost(sint64, tag = "8")]
    pub received_ms: i64,
    #[prost(string, tag = "9")]
    pub ad_id: String,
    #[prost(string, tag = "10")]
    pub campaign_id: String,
    #[prost(string, tag = "11")]
    pub advertiser_id: String,
    #[prost(string, tag = "12")]
    pub region: String,
    #[prost(uint32, tag = "13")]
    pub device: u32,
    #[prost(uint32, tag = "14")]
    pub agent: u32,
    #[prost(uint32, tag = "15")]
    pub class: u32,
    #[prost(bytes = "vec", tag = "16")]
    pub user_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "17")]
    pub request_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "18")]
    pub click_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "19")]
    pub impression_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "20")]
    pub event_type: Vec<u8>,
    #[prost(bytes = "vec", tag = "21")]
    pub ip: Vec<u8>,
    #[prost(bytes = "vec", tag = "22")]
    pub country: Vec<u8>,
    #[prost(bytes = "vec", tag = "23")]
    pub region_text: Vec<u8>,
    #[prost(bytes = "vec", tag = "24")]
    pub user_agent: Vec<u8>,
    #[prost(bytes = "vec", tag = "25")]
    pub signature: Vec<u8>,
}
