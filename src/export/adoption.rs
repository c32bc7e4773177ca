//! Pure. Where export can go on when the checkpoint in Kafka and a data directory contradict each other, and what each way
//! means in clicks. The judgement is the exporter's own; which way is right follows from what was found, or is left to a person.
//!
//! ```text
//! a copy that went on       the other one    ──────┬── exported by it ──▶ p, the checkpoint
//! while another exported    our log          ──────┴─Start─ ours ───────▶ end
//!                                                  the fork: up to here both are one log, and all of it is exported
//! ```

mod held;

pub use held::{Began, Held, Mark};

use crate::cut::{LogId, Position, Totals};
use crate::export::ranges::{Adopted, Behind, LogStart, Mirror, Start};
use crate::export::{Found, Halt, compare};
use crate::wal::replay::hex;
use tollgate_wire::{Checkpoint, LogPosition};

/// Everything that is known.
#[derive(Clone, Debug)]
pub struct Seen {
    pub edge_id: String,
    pub data_dir: [u8; 16],
    pub logs: Vec<Held>,
    /// What the directory remembers as its last transaction, and what an operator said before.
    pub remembered: Option<Checkpoint>,
    pub adopted: Option<Adopted>,
    /// Kafka's checkpoint of this edge.
    pub found: Option<Checkpoint>,
    /// It was looked for in another cluster, or other topics, than the directory exported to.
    pub moved: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Conflict {
    Moved,
    Halt(Halt),
}

/// One way on.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// As `--from` takes it.
    pub from: Vec<String>,
    pub marks: Vec<(LogId, Mark)>,
    /// Clicks that will be exported, and that are taken for exported.
    pub out: u64,
    pub taken: u64,
    /// Of `out`: counted before; of `taken`: counted nowhere. None: not known.
    pub twice: Option<u64>,
    pub missing: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub conflict: Conflict,
    pub ways: Vec<Way>,
    /// The one of `ways` that is right, where that is known.
    pub right: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Agrees,
    Contradicts(Plan),
}

impl Seen {
    pub fn judge(&self) -> Verdict {
        let conflict = match self.agrees() {
            _ if self.moved => Conflict::Moved,
            Ok(()) => return Verdict::Agrees,
            Err(halt) => Conflict::Halt(halt),
        };
        let ways = self.ways(&conflict);
        let right = self.right(&conflict).and_then(|right| ways.iter().position(|way| way.from == right));
        Verdict::Contradicts(Plan { conflict, ways, right })
    }

    /// An operator's word about this very checkpoint is there: the next start follows it.
    pub fn followed(&self) -> bool {
        let found = self.found.as_ref().map(|found| found.txn_seq);
        !self.moved && self.adopted.as_ref().is_some_and(|adopted| adopted.found == found)
    }

    /// As the exporter judges it.
    fn agrees(&self) -> Result<(), Halt> {
        let mut nonces: Vec<[u8; 16]> = self.logs.iter().flat_map(|log| log.nonces.iter().copied()).collect();
        if self.logs.iter().any(|log| log.repaired) {
            let remembered = self.remembered.as_ref().map(|remembered| remembered.nonce.as_slice());
            nonces.extend(remembered.and_then(|nonce| <[u8; 16]>::try_from(nonce).ok()));
        }
        let log = |log: &Held| LogStart {
            end: Position { log_id: log.log_id, lsn: log.end.lsn, chain: log.end.chain },
            totals: Totals { clicks: log.end.clicks, dead_letters: 0 },
            horizon_ms: 0,
            watermark_ms: 0,
            base_lsn: log.base.lsn,
            open: true,
            behind: Behind::default(),
        };
        let start = Start {
            edge_id: self.edge_id.clone(),
            data_dir: self.data_dir,
            nonce: [0; 16],
            nonces,
            logs: self.logs.iter().map(log).collect(),
            mirror: Mirror::Kept { checkpoint: self.remembered.clone(), adopted: None },
        };
        let found = self.found.as_ref();
        found.map_or(Ok(()), |found| compare::owner(&start, found))?;
        compare::mirror(&start, found)?;
        compare::listed_logs(&start, found)?;
        let Some(found) = found else { return Ok(()) };
        let held = |position: &Position| {
            let log = self.logs.iter().find(|log| log.log_id == position.log_id);
            let met = log.is_some_and(|log| log.mark_of(found).is_some());
            if met { Found::Same } else { Found::Other }
        };
        let answers: Vec<Found> = compare::positions(found).iter().map(held).collect();
        compare::chains(found, &answers)?;
        self.logs.iter().filter(|log| !log.repaired).try_for_each(|log| {
            let (listed, mark) = (log.listed(found).map_or(0, |listed| listed.clicks_total), log.mark_of(found));
            match mark {
                Some(mark) if mark.clicks != listed && listed > 0 => {
                    Err(Halt::Totals { log: log.log_id, found: mark.clicks, expected: listed })
                }
                Some(_) | None => Ok(()),
            }
        })
    }

    /// Up to where a log's clicks are counted, here or where the directory exported to before.
    fn counted(&self, conflict: &Conflict, log: &Held) -> Option<Mark> {
        if self.goes_by_a_lost_name() {
            return None;
        }
        let of = |checkpoint: &Option<Checkpoint>| {
            checkpoint.as_ref().map_or(Some(Mark::default()), |checkpoint| log.mark_of(checkpoint))
        };
        match conflict {
            Conflict::Moved => of(&self.remembered),
            Conflict::Halt(halt) => match halt {
                Halt::Vanished { .. } | Halt::ForeignEdge { .. } | Halt::ForeignDataDir { .. } => of(&self.remembered),
                Halt::ForeignLog { .. } if !self.found_lists_ours() => of(&self.remembered),
                // One of several is not here; of the others, what was found knows more.
                Halt::ForeignLog { .. }
                | Halt::UnknownNonce { .. }
                | Halt::OtherChain { .. }
                | Halt::BeyondEnd { .. }
                | Halt::Overtaken { .. }
                | Halt::Replaced { .. } => of(&self.found).or_else(|| self.fork_of(log)),
                Halt::Rewound { .. } | Halt::BelowStart { .. } | Halt::Totals { .. } => of(&self.found),
                Halt::ForeignSink(_)
                | Halt::Mirror(_)
                | Halt::Rival { .. }
                | Halt::Unbalanced { .. }
                | Halt::Row { .. }
                | Halt::Log(_)
                | Halt::Sink(_) => None,
            },
        }
    }

    fn fork_of(&self, log: &Held) -> Option<Mark> {
        log.fork(self.found.as_ref()?, self.remembered.as_ref())
    }

    fn ways(&self, conflict: &Conflict) -> Vec<Way> {
        let all = |mark: &dyn Fn(&Held) -> Option<Mark>| self.logs.iter().map(mark).collect::<Option<Vec<Mark>>>();
        let mut ways = Vec::new();
        let mut add = |from: Vec<String>, marks: Option<Vec<Mark>>| {
            ways.extend(marks.map(|marks| self.way(conflict, from, &marks)));
        };
        if let Some(remembered) = &self.remembered {
            add(vec!["exported".to_owned()], all(&|log| log.mark_of(remembered)));
        }
        if let Some(found) = self.found.as_ref().filter(|found| self.lists_ours(found)) {
            let marks = all(&|log| log.mark_of(found));
            if marks.is_none() {
                let forks = all(&|log| log.mark_of(found).or_else(|| self.fork_of(log)));
                add(forks.iter().flat_map(|marks| self.named(marks)).collect(), forks);
            }
            add(vec!["found".to_owned()], marks);
        }
        add(vec!["start".to_owned()], all(&|log| Some(log.base)));
        ways
    }

    fn way(&self, conflict: &Conflict, from: Vec<String>, marks: &[Mark]) -> Way {
        let marks: Vec<Mark> = self.logs.iter().zip(marks).map(|(log, mark)| log.clamped(*mark)).collect();
        let sum = |of: &dyn Fn(&Held, &Mark) -> Option<u64>| {
            self.logs.iter().zip(&marks).map(|(log, mark)| of(log, mark)).sum::<Option<u64>>()
        };
        let counted = |log: &Held| self.counted(conflict, log).map(|mark| mark.clicks);
        Way {
            from,
            out: sum(&|log, mark| Some(log.end.clicks.saturating_sub(mark.clicks))).unwrap_or(0),
            taken: marks.iter().map(|mark| mark.clicks).sum(),
            twice: sum(&|log, mark| Some(counted(log)?.saturating_sub(mark.clicks))),
            missing: sum(&|log, mark| Some(mark.clicks.saturating_sub(counted(log)?))),
            marks: self.logs.iter().map(|log| log.log_id).zip(marks).collect(),
        }
    }

    /// A twin exported what is not ours under the id of one of our logs. Where all that was found is in our logs, nobody did.
    pub fn has_forked(&self, conflict: &Conflict) -> bool {
        let all_ours =
            self.found.as_ref().is_some_and(|found| self.logs.iter().all(|log| log.mark_of(found).is_some()));
        let twin = matches!(conflict, Conflict::Halt(halt) if halt.is_a_fork());
        twin && (!all_ours || self.goes_by_a_lost_name())
    }

    /// An incarnation of ours wrote what was found, and a log in it is neither here nor remembered: one of ours had a name that is not
    /// remembered.
    fn goes_by_a_lost_name(&self) -> bool {
        let nonces = || self.logs.iter().flat_map(|log| &log.nonces);
        let here = |uuid: &[u8]| self.logs.iter().any(|log| log.log_id == *uuid);
        let remembered = |uuid: &[u8]| {
            let listed = self.remembered.iter().flat_map(|remembered| &remembered.logs);
            listed.into_iter().any(|log| log.log_uuid == uuid)
        };
        let lost = |uuid: &[u8]| !here(uuid) && !remembered(uuid);
        self.found.as_ref().is_some_and(|found| {
            nonces().any(|nonce| *nonce == *found.nonce) && found.logs.iter().any(|log| lost(&log.log_uuid))
        })
    }

    fn found_lists_ours(&self) -> bool {
        self.found.as_ref().is_some_and(|found| self.lists_ours(found))
    }

    fn lists_ours(&self, checkpoint: &Checkpoint) -> bool {
        self.logs.iter().any(|log| log.listed(checkpoint).is_some())
    }

    fn named(&self, marks: &[Mark]) -> Vec<String> {
        let name = |(log, mark): (&Held, &Mark)| format!("{}:{}", hex(&log.log_id), mark.lsn);
        self.logs.iter().zip(marks).map(name).collect()
    }

    /// The way by which nothing is counted twice, and nothing is left out that can still be counted.
    fn right(&self, conflict: &Conflict) -> Option<Vec<String>> {
        if self.goes_by_a_lost_name() {
            return None;
        }
        let say = |from: &str| Some(vec![from.to_owned()]);
        let ours = self.remembered.as_ref().filter(|remembered| self.lists_ours(remembered));
        let where_we_were = || say(if ours.is_some() { "exported" } else { "start" });
        match conflict {
            Conflict::Moved => match (&self.found, &self.remembered) {
                (Some(found), _) if !self.lists_ours(found) => where_we_were(),
                // Copied with its records, or written to before: that nothing came between, only the same place proves.
                (Some(found), Some(remembered)) if found.logs == remembered.logs => say("exported"),
                (Some(_), _) => None,
                (None, _) => where_we_were(),
            },
            Conflict::Halt(halt) => match halt {
                Halt::Vanished { .. } => say("exported"),
                Halt::Rewound { .. } => say("found"),
                Halt::ForeignDataDir { .. } => where_we_were(),
                Halt::ForeignLog { .. } if !self.found_lists_ours() => where_we_were(),
                Halt::ForeignLog { .. }
                | Halt::UnknownNonce { .. }
                | Halt::OtherChain { .. }
                | Halt::BeyondEnd { .. }
                | Halt::Overtaken { .. }
                | Halt::Replaced { .. } => {
                    let found = self.found.as_ref()?;
                    if self.logs.iter().all(|log| log.mark_of(found).is_some()) {
                        return say("found");
                    }
                    let forks = self.logs.iter().map(|log| log.mark_of(found).or_else(|| self.fork_of(log)));
                    Some(self.named(&forks.collect::<Option<Vec<Mark>>>()?))
                }
                Halt::ForeignEdge { .. }
                | Halt::BelowStart { .. }
                | Halt::Totals { .. }
                | Halt::ForeignSink(_)
                | Halt::Mirror(_)
                | Halt::Rival { .. }
                | Halt::Unbalanced { .. }
                | Halt::Row { .. }
                | Halt::Log(_)
                | Halt::Sink(_) => None,
            },
        }
    }

    /// The way that an operator names place by place: each log, and each at a frame's end.
    pub fn way_at(&self, conflict: &Conflict, places: &[(LogId, u64)]) -> Result<Way, String> {
        if let Some((id, _)) = places.iter().find(|(id, _)| !self.logs.iter().any(|log| log.log_id == *id)) {
            return Err(format!("--from names log {}, which this data directory does not hold", hex(id)));
        }
        let mark = |log: &Held| {
            let id = hex(&log.log_id);
            let mut lsns = places.iter().filter(|(id, _)| *id == log.log_id).map(|(_, lsn)| *lsn);
            let (Some(lsn), None) = (lsns.next(), lsns.next()) else {
                return Err(format!("say --from {id}:LSN once for this log too"));
            };
            let began = || log.began.iter().map(|began| began.before);
            let marks = || log.marks.iter().copied().chain(began()).chain([log.base, log.end]);
            if !(log.base.lsn..=log.end.lsn).contains(&lsn) {
                let (base, end) = (log.base.lsn, log.end.lsn);
                return Err(format!("--from {id}:{lsn}: the log goes from {base} to {end}"));
            }
            marks().find(|mark| mark.lsn == lsn).ok_or_else(|| {
                let below = marks().map(|mark| mark.lsn).filter(|at| *at < lsn).max().unwrap_or(log.base.lsn);
                let above = marks().map(|mark| mark.lsn).filter(|at| *at > lsn).min().unwrap_or(log.end.lsn);
                format!("--from {id}:{lsn}: no frame ends there; those next to it end at {below} and {above}")
            })
        };
        let marks = self.logs.iter().map(mark).collect::<Result<Vec<Mark>, String>>()?;
        Ok(self.way(conflict, self.named(&marks), &marks))
    }

    /// The operator's word, as the exporter follows it.
    pub fn word(&self, way: &Way) -> Adopted {
        let position = |(log, mark): &(LogId, Mark)| LogPosition {
            log_uuid: log.to_vec(),
            lsn: mark.lsn,
            chain: mark.chain,
            clicks_total: mark.clicks,
        };
        let found = self.found.as_ref().map(|found| found.txn_seq);
        Adopted { found, logs: way.marks.iter().map(position).collect() }
    }
}
