//! Pure. The store's own records, as protobuf so that a later version can add fields.

/// One row: the clicks of its key, from all edges.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Row {
    #[prost(uint64, tag = "1")]
    pub clicks: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub users: Vec<u8>,
}

/// What the store knows of one edge beside its checkpoint: the highest it has claimed, and how far it was counted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Edge {
    #[prost(sint64, tag = "1")]
    pub watermark_ms: i64,
    #[prost(sint64, tag = "2")]
    pub horizon_ms: i64,
    /// Its last transaction said that it stops: its silence holds nothing back.
    #[prost(bool, tag = "3")]
    pub stopped: bool,
    /// The end record of its last transaction.
    #[prost(message, required, tag = "4")]
    pub end: tollgate_wire::EndRecord,
    #[prost(sint64, tag = "5")]
    pub seen_ms: i64,
    #[prost(bool, tag = "6")]
    pub retired: bool,
    #[prost(message, repeated, tag = "7")]
    pub logs: Vec<LogSeen>,
    /// Of all classes, over all its transactions.
    #[prost(uint64, tag = "8")]
    pub clicks: u64,
    #[prost(uint64, tag = "9")]
    pub clicks_missing: u64,
    #[prost(message, repeated, tag = "10")]
    pub troubles: Vec<Trouble>,
    /// By the code of their kind.
    #[prost(btree_map = "uint32, uint64", tag = "11")]
    pub troubles_seen: std::collections::BTreeMap<u32, u64>,
    #[prost(sint64, optional, tag = "12")]
    pub held_at_ms: Option<i64>,
    /// In Kafka: where its last transaction stands, whole or torn.
    #[prost(message, optional, tag = "13")]
    pub place: Option<Place>,
    /// In Kafka: where `end` stands. A start reads it again: another record there says that the topic was put back. None: it stood
    /// elsewhere, or where is not known.
    #[prost(message, optional, tag = "14")]
    pub counted_at: Option<Place>,
}

/// Up to where one log was counted.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogSeen {
    #[prost(bytes = "vec", tag = "1")]
    pub log_uuid: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub lsn: u64,
    #[prost(uint64, tag = "3")]
    pub clicks_total: u64,
}

/// One thing that did not go as the contract says.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Trouble {
    /// [`crate::edges::TroubleKind::code`].
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(sint64, tag = "2")]
    pub at_ms: i64,
    #[prost(uint64, tag = "3")]
    pub txn_seq: u64,
    /// Clicks that are missing for it, as far as that is known.
    #[prost(uint64, tag = "4")]
    pub clicks: u64,
    /// For a person.
    #[prost(string, tag = "5")]
    pub text: String,
}

/// A record of Kafka's.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Place {
    #[prost(int32, tag = "1")]
    pub partition: i32,
    #[prost(int64, tag = "2")]
    pub offset: i64,
}

/// The corrections of one minute of one ad.
#[derive(Clone, PartialEq, prost::Message)]
pub struct History {
    /// How many there were, ever.
    #[prost(uint64, tag = "1")]
    pub corrections: u64,
    #[prost(message, repeated, tag = "2")]
    pub kept: Vec<Corrected>,
}

/// One correction, or the sum of several that were made one after the other.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Corrected {
    #[prost(uint64, tag = "1")]
    pub versions: u64,
    #[prost(sint64, tag = "2")]
    pub at_ms: i64,
    #[prost(uint32, tag = "3")]
    pub reason: u32,
    #[prost(uint64, tag = "4")]
    pub gross_added: u64,
    #[prost(uint64, tag = "5")]
    pub net_added: u64,
}
