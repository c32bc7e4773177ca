//! Pure. The store's own records, as protobuf so that a later version can add fields.

/// One row: the clicks of its key, from all edges.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Row {
    #[prost(uint64, tag = "1")]
    pub clicks: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub users: Vec<u8>,
}

/// One pane over all ads.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PaneTotals {
    #[prost(btree_map = "uint32, uint64", tag = "1")]
    pub clicks_by_class: std::collections::BTreeMap<u32, u64>,
    #[prost(bytes = "vec", tag = "2")]
    pub net_users: Vec<u8>,
}

/// What the store knows of one edge beside its checkpoint: the highest it has claimed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Edge {
    #[prost(sint64, tag = "1")]
    pub watermark_ms: i64,
    #[prost(sint64, tag = "2")]
    pub horizon_ms: i64,
    /// Its last transaction said that it stops: its silence holds nothing back.
    #[prost(bool, tag = "3")]
    pub stopped: bool,
    /// The end record of its last transaction, for the audit.
    #[prost(message, required, tag = "4")]
    pub end: tollgate_wire::EndRecord,
}
