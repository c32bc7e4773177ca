//! Pure. Kafka as the protocol meets it: a partition of partials and one of checkpoints, append-only, with transactional records and the
//! control markers that end them; a coordinator whose epochs fence, that ends what a dead producer left open after its time-out, and
//! whose markers reach one partition after the other. What is committed is visible up to the first open transaction.

use std::collections::BTreeMap;

/// `transaction.timeout.ms` of who writes here.
const TRANSACTION_TIMEOUT_NS: u64 = 15_000_000_000;

pub const PARTIALS: usize = 0;
pub const CHECKPOINTS: usize = 1;

/// Who writes: each has one transactional id.
pub type Writer = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Partial,
    End,
    Checkpoint,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub kind: Kind,
    /// The edge's id.
    pub key: String,
    pub payload: Vec<u8>,
}

/// What stands at an offset.
#[derive(Clone, Debug)]
enum Entry {
    Data { txn: u64, record: Record },
    Marker,
}

#[derive(Debug, Default)]
struct Partition {
    entries: Vec<Entry>,
    /// Where the open transactions begin, by their number.
    open: BTreeMap<u64, usize>,
    /// Those that ended, committed or not.
    ended: BTreeMap<u64, bool>,
}

/// Why a producer was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A later producer of its id was made, or its time ran out.
    Fenced,
    /// What the coordinator ended is not at an end yet: the client asks again.
    Concurrent,
    /// There is no transaction to end.
    NoTransaction,
}

#[derive(Clone, Debug)]
enum State {
    Empty,
    Open {
        txn: u64,
        since_ns: u64,
        partitions: Vec<usize>,
    },
    /// It is decided; markers are on their way, one for each partition.
    Ending {
        txn: u64,
        commit: bool,
        markers: Vec<(usize, u64)>,
    },
}

#[derive(Debug)]
struct Coordinator {
    epoch: u32,
    state: State,
    /// How the last transaction ended, and of which epoch it was: a repeated word about it changes nothing.
    last: Option<(u32, bool)>,
}

/// A transaction that is committed: what is in it, in order, partition by partition.
pub struct Committed {
    pub records: Vec<Record>,
}

pub struct Broker {
    partitions: [Partition; 2],
    coordinators: Vec<Coordinator>,
    txns: u64,
    /// Whose transaction was open for too long.
    pub timed_out: Vec<bool>,
}

impl Partition {
    /// The last stable offset.
    fn stable(&self) -> usize {
        self.open.values().copied().min().unwrap_or(self.entries.len())
    }
}

impl Broker {
    pub fn new(writers: usize) -> Broker {
        let coordinator = |_| Coordinator { epoch: 0, state: State::Empty, last: None };
        let coordinators = (0..writers).map(coordinator).collect();
        Broker { partitions: Default::default(), coordinators, txns: 0, timed_out: vec![false; writers] }
    }

    /// Where a partition begins and ends for everybody.
    pub fn ends(&self, partition: usize) -> (i64, i64) {
        (0, self.partitions[partition].entries.len() as i64)
    }

    /// What is committed from an offset on, with offsets; and up to where that is: the last stable offset.
    pub fn committed(&self, partition: usize, from: i64) -> (Vec<(i64, &Record)>, i64) {
        let log = &self.partitions[partition];
        let (from, stable) = (from as usize, log.stable());
        let data = |at: usize| match &log.entries[at] {
            Entry::Data { txn, record } if log.ended.get(txn) == Some(&true) => Some((at as i64, record)),
            Entry::Data { .. } | Entry::Marker => None,
        };
        ((from..stable).filter_map(data).collect(), stable.max(from) as i64)
    }

    /// `init_transactions`: what an earlier producer left open is aborted, and it is fenced; the client asks until that is done.
    pub fn init(&mut self, writer: Writer, now_ns: u64, delays_ns: [u64; 2]) -> Result<u32, Refused> {
        match self.coordinators[writer].state {
            State::Empty => {
                self.coordinators[writer].epoch += 1;
                Ok(self.coordinators[writer].epoch)
            }
            State::Open { .. } => {
                self.coordinators[writer].epoch += 1;
                self.decide(writer, false, now_ns, delays_ns);
                Err(Refused::Concurrent)
            }
            State::Ending { .. } => Err(Refused::Concurrent),
        }
    }

    /// Appends to the producer's transaction, which the first record begins.
    pub fn produce(
        &mut self,
        writer: Writer,
        epoch: u32,
        now_ns: u64,
        partition: usize,
        record: Record,
    ) -> Result<(), Refused> {
        let coordinator = &mut self.coordinators[writer];
        if coordinator.epoch != epoch {
            return Err(Refused::Fenced);
        }
        if let State::Empty = coordinator.state {
            self.txns += 1;
            coordinator.state = State::Open { txn: self.txns, since_ns: now_ns, partitions: Vec::new() };
        }
        let State::Open { txn, partitions, .. } = &mut coordinator.state else { return Err(Refused::Concurrent) };
        if !partitions.contains(&partition) {
            partitions.push(partition);
        }
        let log = &mut self.partitions[partition];
        log.open.entry(*txn).or_insert(log.entries.len());
        log.entries.push(Entry::Data { txn: *txn, record });
        Ok(())
    }

    /// `EndTxn`: decided when it arrives, whoever still waits for the answer. What it commits.
    pub fn end(
        &mut self,
        writer: Writer,
        epoch: u32,
        commit: bool,
        now_ns: u64,
        delays_ns: [u64; 2],
    ) -> Result<Option<Committed>, Refused> {
        let coordinator = &self.coordinators[writer];
        if coordinator.epoch != epoch {
            return Err(Refused::Fenced);
        }
        match &coordinator.state {
            State::Open { .. } => Ok(self.decide(writer, commit, now_ns, delays_ns)),
            State::Ending { commit: decided, .. } if *decided == commit => Ok(None),
            State::Empty if coordinator.last == Some((epoch, commit)) => Ok(None),
            State::Ending { .. } | State::Empty => Err(Refused::NoTransaction),
        }
    }

    fn decide(&mut self, writer: Writer, commit: bool, now_ns: u64, delays_ns: [u64; 2]) -> Option<Committed> {
        let coordinator = &mut self.coordinators[writer];
        let State::Open { txn, ref partitions, .. } = coordinator.state else { panic!("nothing is open") };
        let marker = |partition: &usize| (*partition, now_ns + delays_ns[*partition]);
        let markers = partitions.iter().map(marker).collect();
        coordinator.state = State::Ending { txn, commit, markers };
        coordinator.last = Some((coordinator.epoch, commit));
        let in_it = |entry: &Entry| match entry {
            Entry::Data { txn: of, record } if *of == txn => Some(record.clone()),
            Entry::Data { .. } | Entry::Marker => None,
        };
        let of_partition = |log: &Partition| {
            let from = log.open.get(&txn).copied().unwrap_or(log.entries.len());
            log.entries[from..].iter().filter_map(in_it).collect::<Vec<_>>()
        };
        commit.then(|| Committed { records: self.partitions.iter().flat_map(of_partition).collect() })
    }

    /// Time has passed: markers arrive, and what was open for too long is aborted, and its producer fenced. True: something changed.
    pub fn tick(&mut self, now_ns: u64) -> bool {
        let mut changed = false;
        for writer in 0..self.coordinators.len() {
            let coordinator = &mut self.coordinators[writer];
            match &mut coordinator.state {
                State::Open { since_ns, .. } if now_ns >= *since_ns + TRANSACTION_TIMEOUT_NS => {
                    coordinator.epoch += 1;
                    self.timed_out[writer] = true;
                    self.decide(writer, false, now_ns, [0; 2]);
                    changed = true;
                }
                State::Ending { txn, commit, markers } => {
                    let (txn, commit) = (*txn, *commit);
                    let arrived = |(partition, due_ns): &mut (usize, u64)| (*due_ns <= now_ns).then_some(*partition);
                    let here: Vec<usize> = markers.iter_mut().filter_map(arrived).collect();
                    markers.retain(|(_, due_ns)| *due_ns > now_ns);
                    if markers.is_empty() {
                        coordinator.state = State::Empty;
                    }
                    changed |= !here.is_empty();
                    for partition in here {
                        self.partitions[partition].mark(txn, commit);
                    }
                }
                State::Empty | State::Open { .. } => {}
            }
        }
        changed
    }

    /// Nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.coordinators.iter().all(|coordinator| matches!(coordinator.state, State::Empty))
    }

    /// The last entries of a partition are lost: a leader was elected that had not got them, or the topic was made anew.
    pub fn rewind(&mut self, partition: usize, entries: usize) {
        let log = &mut self.partitions[partition];
        let left = log.entries.len().saturating_sub(entries);
        log.entries.truncate(left);
    }
}

impl Partition {
    fn mark(&mut self, txn: u64, commit: bool) {
        self.entries.push(Entry::Marker);
        self.open.remove(&txn);
        self.ended.insert(txn, commit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: u8) -> Record {
        Record { kind: Kind::Partial, key: "e".to_owned(), payload: vec![payload] }
    }

    fn seen(broker: &Broker, partition: usize) -> Vec<u8> {
        broker.committed(partition, 0).0.iter().map(|(_, record)| record.payload[0]).collect()
    }

    /// What Kafka's own rules say, in the order in which the protocol relies on them.
    #[test]
    fn transactions_are_seen_whole_marker_by_marker_and_later_producers_fence() {
        let mut broker = Broker::new(2);
        let first = broker.init(0, 0, [0; 2]).unwrap();
        broker.produce(0, first, 0, PARTIALS, record(1)).unwrap();
        broker.produce(0, first, 0, CHECKPOINTS, record(2)).unwrap();
        assert!(seen(&broker, PARTIALS).is_empty() && broker.ends(PARTIALS) == (0, 1));
        let committed = broker.end(0, first, true, 10, [0, 5]).unwrap().expect("committed");
        assert_eq!(committed.records.len(), 2);
        broker.tick(10);
        assert_eq!((seen(&broker, PARTIALS), seen(&broker, CHECKPOINTS)), (vec![1], vec![]), "one marker is there");
        assert_eq!(broker.init(0, 11, [0; 2]), Err(Refused::Concurrent), "settled before the next");
        assert_eq!(broker.produce(0, first, 11, PARTIALS, record(3)), Err(Refused::Concurrent));
        broker.tick(15);
        assert_eq!(seen(&broker, CHECKPOINTS), [2]);
        assert!(broker.end(0, first, true, 16, [0; 2]).unwrap().is_none(), "a repeated word changes nothing");
        // A late word of the same epoch ends a later transaction; of an earlier epoch, nothing.
        broker.produce(0, first, 17, PARTIALS, record(4)).unwrap();
        assert!(broker.end(0, first, true, 18, [0; 2]).unwrap().is_some());
        broker.tick(18);
        let second = broker.init(0, 19, [0; 2]).unwrap();
        broker.produce(0, second, 19, PARTIALS, record(5)).unwrap();
        assert_eq!(broker.end(0, first, true, 20, [0; 2]).err(), Some(Refused::Fenced));
        // Another's open transaction hides what is committed behind it.
        let other = broker.init(1, 20, [0; 2]).unwrap();
        broker.produce(1, other, 20, CHECKPOINTS, record(6)).unwrap();
        broker.produce(0, second, 21, CHECKPOINTS, record(7)).unwrap();
        broker.end(0, second, true, 22, [0; 2]).unwrap();
        broker.tick(22);
        assert_eq!((seen(&broker, PARTIALS), seen(&broker, CHECKPOINTS)), (vec![1, 4, 5], vec![2]));
        assert!(broker.tick(20 + TRANSACTION_TIMEOUT_NS) && broker.tick(20 + TRANSACTION_TIMEOUT_NS));
        assert_eq!(seen(&broker, CHECKPOINTS), [2, 7], "the dead one's time ran out");
        assert_eq!(broker.produce(1, other, 0, CHECKPOINTS, record(8)), Err(Refused::Fenced));
    }
}
