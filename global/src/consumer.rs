//! Consuming: from records of the topic to commits of the store. One thread; it ends when it is told to, when the store fails, or
//! when to go on would be to guess.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::assembly::{Assembly, Kind};
use crate::batch::{Applied, Batch, Delivered, TornTransaction};
use crate::kafka::{ConsumeError, KafkaSettings, Polled, Reader};
use crate::metrics::{Away, Meter};
use crate::partition::{Partition, STANDSTILL};
use crate::records::Place;
use crate::store::Store;
use crate::tables::StoreError;
use crate::topic::Topic;

/// A batch is committed when nothing more is at hand, or after so long, or with so many partials.
const BATCH_TIME: Duration = Duration::from_millis(200);
const BATCH_PARTIALS: usize = 200_000;
/// How long nothing must come before what is there is committed: records of a transaction come together.
const LULL: Duration = Duration::from_millis(5);
const POLL: Duration = Duration::from_millis(100);
/// Between two looks at partitions: new ones, and how far behind.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two tries of a Kafka that is away.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// Why consuming ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error("{0}")]
    Kafka(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub struct Consumer {
    store: Arc<Store>,
    settings: KafkaSettings,
    meter: Arc<Meter>,
    stop: Arc<AtomicBool>,
    /// What the topic does not have any more is passed over.
    from_earliest: bool,
    reader: Option<Reader>,
    partitions: BTreeMap<i32, Partition>,
    assembly: Assembly,
    ready: Vec<Delivered>,
    ready_partials: usize,
    /// Kafka does not answer: silence of edges means nothing.
    away: bool,
    /// When it answered last.
    answered_ms: i64,
    cap_ms: Option<i64>,
    committed_offsets: BTreeMap<i32, i64>,
}

impl Consumer {
    pub fn new(store: Arc<Store>, settings: KafkaSettings, meter: Arc<Meter>, stop: Arc<AtomicBool>) -> Consumer {
        Consumer {
            store,
            settings,
            meter,
            stop,
            from_earliest: false,
            reader: None,
            partitions: BTreeMap::new(),
            assembly: Assembly::default(),
            ready: Vec::new(),
            ready_partials: 0,
            away: false,
            answered_ms: wall_ms(),
            cap_ms: None,
            committed_offsets: BTreeMap::new(),
        }
    }

    /// Where the topic does not have what is to be read next, it is read from the first that it has, into what is counted.
    pub fn from_earliest(self) -> Consumer {
        Consumer { from_earliest: true, ..self }
    }

    /// Consumes until it is told to stop.
    pub fn run(mut self) -> Result<(), Stopped> {
        // Whoever is not heard yet holds all windows open.
        self.commit(self.closing_cap())?;
        while !self.stop.load(Ordering::Acquire) {
            match self.turn() {
                Ok(()) => {}
                Err(Turn::Store(error)) => return Err(error.into()),
                Err(Turn::Kafka(ConsumeError::Halt(why))) => return Err(Stopped::Kafka(why)),
                Err(Turn::Kafka(ConsumeError::Away(why))) => {
                    self.falls_silent(&why)?;
                    std::thread::sleep(AWAY_PAUSE);
                }
            }
        }
        // What is whole is taken along; the rest is read again. So is all of it where Kafka does not say that it is of this topic.
        match self.commit_if_due(false) {
            Err(Turn::Store(error)) => Err(error.into()),
            Ok(()) | Err(Turn::Kafka(_)) => Ok(()),
        }
    }

    /// Reads for a while, and commits what came.
    fn turn(&mut self) -> Result<(), Turn> {
        if self.reader.is_none() {
            self.reader = Some(self.connect()?);
        }
        self.look_at_partitions()?;
        if self.partitions.is_empty() {
            // They are read anew.
            self.look_at_partitions()?;
        }
        self.answers();
        if self.offsets() != self.committed_offsets {
            self.commit_if_due(true)?;
        }
        let until = Instant::now() + LOOK_EVERY;
        while Instant::now() < until && !self.stop.load(Ordering::Acquire) {
            self.gather()?;
            self.commit_if_due(false)?;
            if self.partitions.values().all(|state| state.at_end) {
                self.meter.set_caught_up();
            }
        }
        Ok(())
    }

    /// A connection to the cluster that the store is of.
    fn connect(&self) -> Result<Reader, Turn> {
        let reader = Reader::new(&self.settings)?;
        let source = format!("{}/{}", reader.cluster()?, self.settings.topic);
        match self.store.source()? {
            None => self.store.set_source(&source)?,
            Some(known) if known == source => {}
            Some(known) => {
                return Err(ConsumeError::Halt(format!(
                    "the store holds what was read from {known} (cluster/topic), and this is {source}: correct --kafka-brokers or \
                     --kafka-topic-partials, or begin anew from this topic with --rebuild"
                ))
                .into());
            }
        }
        Ok(reader)
    }

    /// Begins to read partitions that are new, and asks how far all are behind.
    fn look_at_partitions(&mut self) -> Result<(), Turn> {
        let reader = self.reader.as_ref().expect("connected before");
        let count = reader.partitions()?;
        if count == 0 {
            return Err(self.topic().missing(&self.store)?.into());
        }
        self.know_topic(reader)?;
        let (stored, mut fresh) = (self.store.offsets()?, BTreeMap::new());
        for partition in (0..count).filter(|partition| !self.partitions.contains_key(partition)) {
            let (first, end) = reader.ends(partition)?;
            // A partition that was never read is read from its beginning, deliberately: all that it has is to be counted.
            let offset = stored.get(&partition).copied().unwrap_or(first);
            let offset = self.topic().begin_at(&self.store, partition, offset, (first, end))?;
            fresh.insert(partition, offset);
        }
        let reader = self.reader.as_mut().expect("connected before");
        if !fresh.is_empty() {
            reader.assign(&fresh)?;
            for (&partition, &next_offset) in &fresh {
                let watermark_ms = self.store.watermark_of_partition(partition);
                self.partitions.insert(partition, Partition { next_offset, watermark_ms, ..Partition::default() });
            }
        }
        let mut standing = None;
        for (&partition, state) in &mut self.partitions {
            // Asked in any case: it tells whether Kafka answers.
            let (_, end) = reader.ends(partition)?;
            self.meter.lag(partition, end.saturating_sub(state.next_offset).max(0) as u64);
            if state.stands_still(end, Instant::now()) {
                standing = Some((partition, state.next_offset, end));
            }
        }
        if let Some((partition, next_offset, end)) = standing {
            let waited_s = STANDSTILL.as_secs();
            tracing::warn!(
                "partition {partition} gave nothing for {waited_s} s at offset {next_offset}, and ends at {end}: it is read by a new \
                 client; a transaction that its writer left open does this too, until Kafka aborts it"
            );
            self.read_anew()?;
        }
        Ok(())
    }

    fn topic(&self) -> Topic<'_> {
        Topic { name: &self.settings.topic, from_earliest: self.from_earliest }
    }

    /// Fails where it is another topic than the one that was read before.
    fn know_topic(&self, reader: &Reader) -> Result<(), Turn> {
        self.topic().know(&self.store, reader, self.partitions.is_empty())
    }

    /// Commits what is whole, and reads on behind it with a new client.
    fn read_anew(&mut self) -> Result<(), Turn> {
        self.commit_if_due(true)?;
        self.partitions.clear();
        self.assembly = Assembly::default();
        self.reader = Some(self.connect()?);
        Ok(())
    }

    /// Reads until there is something to commit, and nothing more at hand.
    fn gather(&mut self) -> Result<(), Turn> {
        let until = Instant::now() + BATCH_TIME;
        while self.ready_partials < BATCH_PARTIALS && Instant::now() < until {
            let timeout = if self.ready.is_empty() { POLL } else { LULL };
            let reader = self.reader.as_ref().expect("connected before");
            let (partitions, assembly) = (&mut self.partitions, &mut self.assembly);
            let (ready, meter) = (&mut self.ready, &self.meter);
            let mut partials = 0;
            let more = reader.poll(timeout, |polled| match polled {
                Polled::Nothing => Ok(false),
                Polled::AtEnd { partition, next_offset } => {
                    if let Some(state) = partitions.get_mut(&partition) {
                        state.at_end = true;
                        state.next_offset = state.next_offset.max(next_offset.unwrap_or(0));
                    }
                    Ok(true)
                }
                Polled::Record { place, kind, edge, payload } => {
                    let state = partitions.entry(place.partition).or_default();
                    (state.next_offset, state.at_end) = (place.offset + 1, false);
                    partials = usize::from(kind == Some(Kind::Partial));
                    take(assembly, ready, meter, state, (place, kind, edge, payload)).map(|()| true)
                }
            })?;
            self.ready_partials += partials;
            if !more? {
                break;
            }
        }
        Ok(())
    }

    /// Commits what is whole, and where windows may close.
    fn commit_if_due(&mut self, must: bool) -> Result<(), Turn> {
        let cap_ms = self.closing_cap();
        if self.ready.is_empty() && cap_ms == self.cap_ms && !must {
            return Ok(());
        }
        if let Some(reader) = self.reader.as_ref().filter(|_| !self.ready.is_empty()) {
            // The client reads on in a topic that was made anew meanwhile. What came before the answer is of the topic of the answer.
            self.know_topic(reader)?;
        }
        Ok(self.commit(cap_ms)?)
    }

    fn commit(&mut self, cap_ms: Option<i64>) -> Result<(), StoreError> {
        let offsets = self.offsets();
        let applied = self.apply(&offsets, cap_ms)?;
        self.meter.applied(&applied);
        for (edge_id, trouble) in &applied.troubles {
            tracing::warn!("edge {edge_id}: {}", trouble.text);
        }
        (self.cap_ms, self.committed_offsets) = (cap_ms, offsets);
        self.ready.clear();
        self.ready_partials = 0;
        Ok(())
    }

    fn apply(&self, offsets: &BTreeMap<i32, i64>, closing_cap_ms: Option<i64>) -> Result<Applied, StoreError> {
        let now_ms = wall_ms();
        let batch = Batch { deliveries: &self.ready, offsets, now_ms, closing_cap_ms };
        match self.store.apply(&batch) {
            Err(StoreError::Refused(_)) => {}
            outcome => return outcome,
        }
        // One of them cannot be kept, and nothing of the batch was. Each by itself, that one is reported, and what is behind it
        // counted; offsets move on when all are judged, and who is read again is known.
        let (none, mut all) = (BTreeMap::new(), Applied::default());
        for delivered in &self.ready {
            let alone = Batch { deliveries: std::slice::from_ref(delivered), offsets: &none, now_ms, closing_cap_ms };
            let applied = match (self.store.apply(&alone), delivered) {
                (Err(StoreError::Refused(refusal)), Delivered::Whole(whole)) => {
                    let torn = TornTransaction {
                        edge_id: whole.end.edge_id.clone(),
                        txn_seq: whole.end.txn_seq,
                        place: whole.place,
                        why: refusal.to_string(),
                    };
                    self.store.apply(&Batch { deliveries: &[Delivered::Torn(torn)], ..alone })?
                }
                (outcome, _) => outcome?,
            };
            all.add(applied);
        }
        all.add(self.store.apply(&Batch { deliveries: &[], ..batch })?);
        Ok(all)
    }

    /// Where to read on after what is in `ready`.
    fn offsets(&self) -> BTreeMap<i32, i64> {
        let resume_at = |(&partition, state): (&i32, &Partition)| {
            (partition, self.assembly.resume_at(partition, state.next_offset))
        };
        self.partitions.iter().map(resume_at).collect()
    }

    /// Windows close no further than what every partition that is behind has said.
    fn closing_cap(&self) -> Option<i64> {
        if self.partitions.is_empty() {
            return Some(i64::MIN);
        }
        let holds = |state: &&Partition| self.away || !state.at_end;
        self.partitions.values().filter(holds).map(|state| state.watermark_ms.unwrap_or(i64::MIN)).min()
    }

    fn falls_silent(&mut self, why: &str) -> Result<(), Stopped> {
        let since_ms = self.meter.away().map_or_else(wall_ms, |away| away.since_ms);
        // What was heard last says most.
        self.meter.set_away(Some(Away { since_ms, why: why.to_owned() }));
        if !self.away {
            tracing::warn!("nothing is consumed: {why}");
            self.away = true;
            self.store.is_deaf(self.answered_ms);
            // What is not committed waits: whether it is of this topic, nobody says now.
            let (closing_cap_ms, none) = (self.closing_cap(), BTreeMap::new());
            self.store.apply(&Batch { deliveries: &[], offsets: &none, now_ms: wall_ms(), closing_cap_ms })?;
            self.cap_ms = closing_cap_ms;
        }
        Ok(())
    }

    fn answers(&mut self) {
        self.answered_ms = wall_ms();
        if self.away {
            tracing::info!("Kafka answers again");
            self.away = false;
            self.meter.set_away(None);
            self.store.hears(wall_ms());
        }
    }
}

/// Takes a record in.
fn take(
    assembly: &mut Assembly,
    ready: &mut Vec<Delivered>,
    meter: &Meter,
    state: &mut Partition,
    (place, kind, edge, payload): (Place, Option<Kind>, &[u8], &[u8]),
) -> Result<(), ConsumeError> {
    let Some(kind) = kind else {
        meter.foreign_record();
        return Ok(());
    };
    let delivered =
        assembly.take(place, kind, edge, payload).map_err(|too_new| ConsumeError::Halt(too_new.to_string()))?;
    for one in &delivered {
        if let Delivered::Whole(whole) = one {
            state.watermark_ms = state.watermark_ms.max(Some(whole.end.watermark_ms));
        }
    }
    ready.extend(delivered);
    Ok(())
}

/// Why a turn ended early.
pub enum Turn {
    Kafka(ConsumeError),
    Store(StoreError),
}

impl From<ConsumeError> for Turn {
    fn from(error: ConsumeError) -> Turn {
        Turn::Kafka(error)
    }
}

impl From<StoreError> for Turn {
    fn from(error: StoreError) -> Turn {
        Turn::Store(error)
    }
}

pub fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an edge has not said yet may be in a partition that is behind, or that nobody answers for.
    #[test]
    fn windows_close_no_further_than_what_partitions_that_are_behind_have_said() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Arc::new(Store::open(&folder.path().join("store")).expect("a new store"));
        let settings = KafkaSettings { brokers: String::new(), topic: String::new(), properties: Vec::new() };
        let mut consumer = Consumer::new(store, settings, Arc::default(), Arc::default());
        assert_eq!(consumer.closing_cap(), Some(i64::MIN), "nothing is known of any");
        let read = |watermark_ms| Partition { at_end: true, watermark_ms, ..Partition::default() };
        consumer.partitions = BTreeMap::from([(0, read(Some(5))), (1, read(Some(9)))]);
        assert_eq!(consumer.closing_cap(), None);
        consumer.away = true;
        assert_eq!(consumer.closing_cap(), Some(5), "nobody's silence is believed");
        consumer.away = false;
        consumer.partitions.get_mut(&1).expect("it is there").at_end = false;
        assert_eq!(consumer.closing_cap(), Some(9));
        // One that was added, and of which nothing is read.
        consumer.partitions.insert(2, Partition::default());
        assert_eq!(consumer.closing_cap(), Some(i64::MIN));
    }
}
