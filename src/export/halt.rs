//! Pure. The reasons for which the exporter ends the process rather than count something twice or not at all.

use crate::cut::LogId;
use crate::exit::Exit;
use crate::wal::replay::hex;

/// The way out that is always there, where the files that belong together are gone for good. Ids are not carried over.
const ANEW: &str = "start with an empty --data-dir, keep this one, and read its clicks with `tollgate wal export`";

/// The way out where the checkpoint is not in the data directory.
const ADOPT: &str = "`tollgate adopt` shows what going on from here would mean, and does it";

/// What was found that cannot be: what is known of it. What to do is [`Halt::way_out`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    #[error("the checkpoint is of edge {found:?}, this is edge {ours:?}")]
    ForeignEdge { found: String, ours: String },
    #[error(
        "the checkpoint is of data directory {found}, ours is {ours}: another host exports as this edge, or the disk was \
         replaced",
        found = hex(found), ours = hex(ours)
    )]
    ForeignDataDir { found: Vec<u8>, ours: LogId },
    #[error("the checkpoint lists log {log}, which this data directory does not hold", log = hex(log))]
    ForeignLog { log: Vec<u8> },
    #[error(
        "the checkpoint's nonce {nonce} is in none of our logs: a copy of this data directory exported after it was made",
        nonce = hex(nonce)
    )]
    UnknownNonce { nonce: Vec<u8> },
    #[error(
        "log {log} has another chain at LSN {lsn} than the checkpoint's {chain:016x}: it was restored from a snapshot, or \
         is a clone",
        log = hex(log)
    )]
    OtherChain { log: LogId, lsn: u64, chain: u64 },
    #[error(
        "the checkpoint is at LSN {lsn} of log {log}, which ends at {end}: acknowledged clicks are gone",
        log = hex(log)
    )]
    BeyondEnd { log: LogId, lsn: u64, end: u64 },
    #[error(
        "export must go on after LSN {lsn} of log {log}, but its oldest segment begins after {base}",
        log = hex(log)
    )]
    BelowStart { log: LogId, lsn: u64, base: u64 },
    #[error(
        "log {log} counts {found} clicks up to its end, but {expected} of them are exported: it is not the log that was \
         exported",
        log = hex(log)
    )]
    Totals { log: LogId, found: u64, expected: u64 },
    #[error(
        "there is no checkpoint of this edge, but this directory remembers transaction {ours}: the topic was made anew, or \
         is another one"
    )]
    Vanished { ours: u64 },
    #[error(
        "the stored checkpoint is of transaction {found}, but this directory remembers {ours}: the topic was rewound"
    )]
    Rewound { found: u64, ours: u64 },
    #[error(
        "the stored checkpoint is of transaction {found}, but this directory remembers {ours} as its last: it is a copy, or was \
         restored from a snapshot, and another one exported after it"
    )]
    Overtaken { found: u64, ours: u64 },
    #[error(
        "the stored checkpoint of transaction {seq} is not the one that this directory remembers: a copy of it exported \
         after they parted"
    )]
    Replaced { seq: u64 },
    #[error("{0}")]
    ForeignSink(String),
    #[error("what was exported could not be remembered in the data directory: {0}")]
    Mirror(String),
    #[error(
        "the stored checkpoint is of transaction {found}, but we stand at {ours} and nobody else may write it: another \
         process exports as this edge"
    )]
    Rival { found: u64, ours: u64 },
    #[error(
        "log {log} counts {expected} clicks from LSN {from} to {to}, but {found} would be exported; nothing was sent",
        log = hex(log)
    )]
    Unbalanced { log: LogId, from: u64, to: u64, found: u64, expected: u64 },
    #[error("a row of log {log} cannot be exported: {why}", log = hex(log))]
    Row { log: LogId, why: crate::preagg::key::KeyError },
    #[error("the log cannot be read back for export: {0}")]
    Log(String),
    #[error("the sink failed: {0}")]
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

    /// Another log goes by the id of one of ours, and exported; or so it seems.
    pub fn is_a_fork(&self) -> bool {
        match self {
            Halt::UnknownNonce { .. }
            | Halt::OtherChain { .. }
            | Halt::BeyondEnd { .. }
            | Halt::Overtaken { .. }
            | Halt::Replaced { .. } => true,
            Halt::ForeignEdge { .. }
            | Halt::ForeignDataDir { .. }
            | Halt::ForeignLog { .. }
            | Halt::BelowStart { .. }
            | Halt::Totals { .. }
            | Halt::Vanished { .. }
            | Halt::Rewound { .. }
            | Halt::ForeignSink(_)
            | Halt::Mirror(_)
            | Halt::Rival { .. }
            | Halt::Unbalanced { .. }
            | Halt::Row { .. }
            | Halt::Log(_)
            | Halt::Sink(_) => false,
        }
    }

    /// What to do. `mirrored`: the sink lies outside of the data directory, which remembers what it exported.
    pub fn way_out(&self, mirrored: bool) -> String {
        if mirrored && let Some(way) = self.way_of_kafka() {
            return way;
        }
        let or_anew = |way: &str| format!("{way}; or {ANEW}");
        match self {
            Halt::ForeignEdge { .. } => or_anew(
                "Put the store.redb of this directory back; or, if the log's first segment is still there, move the one that is there \
                 away, and all is exported anew",
            ),
            Halt::ForeignDataDir { .. } => or_anew(
                "Put the store.redb of this directory back; or move the one that is there away, and what the log holds is exported \
                 anew",
            ),
            Halt::ForeignLog { .. } => or_anew("Bring its files back, in the place of those in logs/"),
            Halt::UnknownNonce { .. } => or_anew("Start that one, and put the store.redb of this directory back"),
            Halt::OtherChain { .. } | Halt::BeyondEnd { .. } => or_anew("Bring the newer files back"),
            Halt::BelowStart { .. } => {
                or_anew("Bring the store.redb back that knows them exported, or the older segments")
            }
            Halt::Totals { .. } => or_anew("`tollgate audit` shows more; put the files that belong together back"),
            Halt::Vanished { .. } | Halt::Rewound { .. } | Halt::Overtaken { .. } | Halt::Replaced { .. } => {
                or_anew("Put the files that belong together back")
            }
            Halt::Rival { .. } => "Stop one of them".to_owned(),
            Halt::ForeignSink(_) => "Correct it, and start again".to_owned(),
            Halt::Mirror(_) => {
                "Look at the disk and its room (dmesg, df), then start again: the sink has it".to_owned()
            }
            Halt::Unbalanced { .. } => "Start again, and report it if it comes again".to_owned(),
            Halt::Row { .. } => "Keep the directory, and report it".to_owned(),
            Halt::Log(_) => "`tollgate wal verify` says what is lost".to_owned(),
            Halt::Sink(_) => {
                "The log holds what is not exported: look at the disk and its room (dmesg, df), then start \
                              again"
                    .to_owned()
            }
        }
    }

    /// Where it differs from a sink in the data directory.
    fn way_of_kafka(&self) -> Option<String> {
        let way = match self {
            Halt::ForeignEdge { .. } => return Some("Look who else writes to the topic of checkpoints".to_owned()),
            Halt::Sink(_) => {
                return Some("The log holds what is not exported: mend what it names, then start again".to_owned());
            }
            Halt::ForeignDataDir { .. } => {
                "If that one is another host, give this one an --edge-id of its own and an empty --data-dir; if this one takes its place, \
                 stop that one for good"
            }
            Halt::ForeignLog { .. } => "Bring its files back, in the place of those in logs/",
            Halt::UnknownNonce { .. } | Halt::Overtaken { .. } | Halt::Replaced { .. } => {
                "If that one is still there, start it and not this one; if this one takes its place, stop that one for good"
            }
            Halt::OtherChain { .. } | Halt::BeyondEnd { .. } => {
                "Bring the newer files back; if this one takes the place of another that exported, stop that one for good"
            }
            Halt::BelowStart { .. } => "Bring the older segments back",
            Halt::Totals { .. } => "Put the files that belong together back",
            Halt::Vanished { .. } => "Name the right brokers and topics, if it is another one",
            Halt::Rewound { .. } => "Bring back what the topic lost, if it can be",
            Halt::Rival { .. }
            | Halt::ForeignSink(_)
            | Halt::Mirror(_)
            | Halt::Unbalanced { .. }
            | Halt::Row { .. }
            | Halt::Log(_) => return None,
        };
        Some(format!("{way}. {ADOPT}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contradiction_names_a_way_out_that_works_with_its_sink() {
        let log = [1; 16];
        for halt in [
            Halt::ForeignDataDir { found: vec![2; 16], ours: log },
            Halt::ForeignLog { log: log.to_vec() },
            Halt::UnknownNonce { nonce: vec![3; 16] },
            Halt::OtherChain { log, lsn: 1, chain: 2 },
            Halt::BeyondEnd { log, lsn: 2, end: 1 },
            Halt::BelowStart { log, lsn: 0, base: 1 },
            Halt::Totals { log, found: 1, expected: 2 },
            Halt::Vanished { ours: 1 },
            Halt::Rewound { found: 1, ours: 2 },
            Halt::Overtaken { found: 3, ours: 1 },
            Halt::Replaced { seq: 1 },
        ] {
            let (kafka, store) = (halt.way_out(true), halt.way_out(false));
            assert!(kafka.contains("`tollgate adopt`") && !kafka.contains("store.redb"), "{kafka}");
            assert!(store.contains("`tollgate wal export`") && !store.contains("adopt"), "{store}");
            assert_eq!(halt.exit(), Exit::Checkpoint);
            assert!(!halt.to_string().ends_with('.'), "a sentence follows");
        }
    }
}
