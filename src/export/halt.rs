//! Pure. The reasons for which the exporter ends the process rather than count something twice or not at all.

use crate::cut::LogId;
use crate::exit::Exit;
use crate::wal::replay::hex;

/// The way out that is always there, where the files that belong together are gone for good. Ids are not carried over.
const ANEW: &str = "start with an empty --data-dir, keep this one, and read its clicks with `tollgate wal export`";

/// What was found that cannot be. Each says what is known and which way out there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    #[error(
        "the checkpoint is of edge {found:?}, this is edge {ours:?}. Put the store.redb of this directory back; or, if the log's \
         first segment is still there, move the one that is there away, and all is exported anew; or {way}",
        way = ANEW
    )]
    ForeignEdge { found: String, ours: String },
    #[error(
        "the checkpoint is of data directory {found}, ours is {ours}: another host exports as this edge, or the disk was \
         replaced. Put the store.redb of this directory back; or move the one that is there away, and what the log holds is exported \
         anew; or {way}",
        found = hex(found), ours = hex(ours), way = ANEW
    )]
    ForeignDataDir { found: Vec<u8>, ours: LogId },
    #[error(
        "the checkpoint lists log {log}, which this data directory does not hold. Bring its files back, in the place of those \
         in logs/; or {way}",
        log = hex(log), way = ANEW
    )]
    ForeignLog { log: Vec<u8> },
    #[error(
        "the checkpoint's nonce {nonce} is in none of our logs: a copy of this data directory exported after it was made. \
         Start that one, and put the store.redb of this directory back; or {way}",
        nonce = hex(nonce), way = ANEW
    )]
    UnknownNonce { nonce: Vec<u8> },
    #[error(
        "log {log} has another chain at LSN {lsn} than the checkpoint's {chain:016x}: it was restored from a snapshot, or \
         is a clone. Bring the newer files back; or {way}",
        log = hex(log), way = ANEW
    )]
    OtherChain { log: LogId, lsn: u64, chain: u64 },
    #[error(
        "the checkpoint is at LSN {lsn} of log {log}, which ends at {end}: acknowledged clicks are gone. Bring the newer \
         files back; or {way}",
        log = hex(log), way = ANEW
    )]
    BeyondEnd { log: LogId, lsn: u64, end: u64 },
    #[error(
        "export must go on after LSN {lsn} of log {log}, but its oldest segment begins after {base}. Bring the store.redb back \
         that knows them exported, or the older segments; or {way}",
        log = hex(log), way = ANEW
    )]
    BelowStart { log: LogId, lsn: u64, base: u64 },
    #[error(
        "log {log} counts {found} clicks up to its end, but {expected} of them are exported: it is not the log that was \
         exported. `tollgate audit` shows more; put the files that belong together back; or {way}",
        log = hex(log), way = ANEW
    )]
    Totals { log: LogId, found: u64, expected: u64 },
    #[error(
        "there is no checkpoint of this edge, but this directory remembers transaction {ours}: the topic was made anew, or is another          one. Name the right brokers and topics; or `tollgate adopt` shows what going on would mean"
    )]
    Vanished { ours: u64 },
    #[error(
        "the stored checkpoint is of transaction {found}, but this directory remembers {ours}: the topic was rewound. Bring back what          it lost; or `tollgate adopt` shows what going on would mean"
    )]
    Rewound { found: u64, ours: u64 },
    #[error(
        "the stored checkpoint is of transaction {found}, but this directory remembers {ours} as its last: it is a copy, or was          restored from a snapshot, and another one exported after it. Start that one; or `tollgate adopt` shows what going on would mean"
    )]
    Overtaken { found: u64, ours: u64 },
    #[error(
        "the stored checkpoint of transaction {seq} is not the one that this directory remembers: a copy of it exported after they          parted. Start that one; or `tollgate adopt` shows what going on would mean"
    )]
    Replaced { seq: u64 },
    #[error("{0}")]
    ForeignSink(String),
    #[error(
        "what was exported could not be remembered in the data directory: {0}. Look at the disk and its room (dmesg, df), then start          again: the sink has it"
    )]
    Mirror(String),
    #[error(
        "the stored checkpoint is of transaction {found}, but we stand at {ours} and nobody else may write it: another \
         process exports as this edge; stop one of them"
    )]
    Rival { found: u64, ours: u64 },
    #[error(
        "log {log} counts {expected} clicks from LSN {from} to {to}, but {found} would be exported; nothing was sent; \
         restart, and report it if it comes again",
        log = hex(log)
    )]
    Unbalanced { log: LogId, from: u64, to: u64, found: u64, expected: u64 },
    #[error("a row of log {log} cannot be exported: {why}", log = hex(log))]
    Row { log: LogId, why: crate::preagg::key::KeyError },
    #[error("the log cannot be read back for export: {0}; `tollgate wal verify` says what is lost")]
    Log(String),
    #[error(
        "the store failed: {0}. The log holds what is not exported: look at the disk and its room (dmesg, df), then start again"
    )]
    Sink(String),
}

impl Halt {
    pub fn exit(&self) -> Exit {
        match self {
            Halt::ForeignSink(_) => Exit::Kafka,
            Halt::ForeignEdge { .. }
            | Halt::ForeignDataDir { .. }
            | Halt::ForeignLog { .. }
            | Halt::UnknownNonce { .. }
            | Halt::OtherChain { .. }
            | Halt::BeyondEnd { .. }
            | Halt::BelowStart { .. }
            | Halt::Totals { .. }
            | Halt::Vanished { .. }
            | Halt::Rewound { .. }
            | Halt::Overtaken { .. }
            | Halt::Replaced { .. }
            | Halt::Rival { .. } => Exit::Checkpoint,
            Halt::Unbalanced { .. } => Exit::Bug,
            Halt::Row { .. } | Halt::Log(_) => Exit::LogDamaged,
            Halt::Sink(_) | Halt::Mirror(_) => Exit::Store,
        }
    }
}
