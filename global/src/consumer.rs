//! Consuming: from records of the topic to commits of the store. One thread; it ends when it is told to, when the store fails, or
//! when to go on would be to guess.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::assembly::{Assembly, Kind};
use crate::batch::{Batch, Delivered};
use crate::kafka::{ConsumeError, KafkaSettings, Polled, Reader};
use crate::metrics::{Away, Meter};
use crate::partitions::{Hold, Partition, Partitions, STANDSTILL};
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
    /// Partitions were looked at since the start.
    has_looked: bool,
    partitions: Partitions,
    assembly: Assembly,
    ready: Vec<Delivered>,
    /// In `ready`.
    ready_partials: usize,
    /// Kafka does not answer, or does not give what is to be read, since then: silence of edges means nothing.
    away_since_ms: Option<i64>,
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
            has_looked: false,
            partitions: Partitions::new(wall_ms()),
            assembly: Assembly::default(),
            ready: Vec::new(),
            ready_partials: 0,
            away_since_ms: None,
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
        self.listen();
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
        if self.reader.is_none() {
            // It is made anew.
            return Ok(());
        }
        self.answered_ms = wall_ms();
        if self.offsets() != self.committed_offsets {
            self.commit_if_due(true)?;
        }
        let until = Instant::now() + LOOK_EVERY;
        while Instant::now() < until && !self.stop.load(Ordering::Acquire) {
            let came = self.gather()?;
            if came {
                self.answered_ms = wall_ms();
                self.answers();
            }
            self.listen();
            self.commit_if_due(false)?;
            self.hold_back()?;
            if self.partitions.are_read() {
                self.meter.set_caught_up();
            }
        }
        if self.partitions.are_read() {
            // There was nothing to give.
            self.answers();
        }
        Ok(())
    }

    /// A connection to the cluster that the store is of.
    fn connect(&self) -> Result<Reader, Turn> {
        let reader = Reader::new(&self.settings)?;
        self.topic().is_of(&self.store, &reader.cluster()?)?;
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
        // One without a leader keeps nobody from being counted; it tells whether Kafka answers when none is answered for.
        let (mut ends, mut unanswered) = (BTreeMap::new(), None);
        for partition in 0..count {
            match reader.ends(partition) {
                Ok(found) => drop(ends.insert(partition, found)),
                Err(halt @ ConsumeError::Halt(_)) => return Err(halt.into()),
                Err(away) => unanswered = Some(away),
            }
        }
        if let Some(away) = unanswered.filter(|_| ends.is_empty()) {
            return Err(away.into());
        }
        let (stored, mut fresh) = (self.store.offsets()?, BTreeMap::new());
        for (&partition, &(first, end)) in ends.iter().filter(|(of, _)| !self.partitions.all.contains_key(of)) {
            // A partition that was never read is read from its beginning, deliberately: all that it has is to be counted.
            let offset = stored.get(&partition).copied().unwrap_or(first);
            fresh.insert(partition, self.topic().begin_at(&self.store, partition, offset, (first, end))?);
        }
        if !fresh.is_empty() {
            self.reader.as_mut().expect("connected before").assign(&fresh)?;
        }
        for (partition, next_offset) in fresh {
            let watermark_ms = self.store.watermark_of_partition(partition);
            self.partitions.begin(partition, next_offset, watermark_ms, wall_ms());
        }
        self.partitions.some_unknown = (0..count).any(|partition| !self.partitions.all.contains_key(&partition));
        self.has_looked = true;
        self.look_for_standstill(&ends)
    }

    fn look_for_standstill(&mut self, ends: &BTreeMap<i32, (i64, i64)>) -> Result<(), Turn> {
        let mut standing = None;
        for (&partition, state) in &mut self.partitions.all {
            let end = ends.get(&partition).map(|(_, end)| *end);
            if let Some(end) = end {
                self.meter.lag(partition, end.saturating_sub(state.next_offset).max(0) as u64);
            }
            if state.looks(end, Instant::now()) && self.partitions.reads_alone.is_none() {
                standing = Some((partition, state.next_offset));
            }
        }
        if let Some((partition, next_offset)) = standing {
            let waited_s = STANDSTILL.as_secs();
            tracing::warn!(
                "partition {partition} has more and gave nothing for {waited_s} s at offset {next_offset}: it is read by a new client"
            );
            self.read_anew()?;
        }
        Ok(())
    }

    fn topic(&self) -> Topic<'_> {
        Topic { name: &self.settings.topic, from_earliest: self.from_earliest && !self.has_looked }
    }

    /// Fails where it is another topic than the one that was read before.
    fn know_topic(&self, reader: &Reader) -> Result<(), Turn> {
        self.topic().know(&self.store, reader)
    }

    /// Commits what is whole; the next turn reads on behind it with a new client.
    fn read_anew(&mut self) -> Result<(), Turn> {
        self.commit_if_due(true)?;
        self.reader = None;
        self.partitions.let_go();
        self.assembly = Assembly::default();
        Ok(())
    }

    /// Reads until there is something to commit, and nothing more at hand. True: Kafka gave something.
    fn gather(&mut self) -> Result<bool, Turn> {
        let (until, mut came) = (Instant::now() + BATCH_TIME, false);
        while self.ready_partials < BATCH_PARTIALS && Instant::now() < until {
            let timeout = if self.ready.is_empty() { POLL } else { LULL };
            let reader = self.reader.as_ref().expect("connected before");
            let (partitions, assembly) = (&mut self.partitions.all, &mut self.assembly);
            let (ready, ready_partials, meter) = (&mut self.ready, &mut self.ready_partials, &self.meter);
            let more = reader.poll(timeout, |polled| match polled {
                Polled::Nothing => Ok::<bool, ConsumeError>(false),
                Polled::AtEnd { partition, next_offset } => {
                    if let Some(state) = partitions.get_mut(&partition) {
                        state.at_end = true;
                        state.next_offset = state.next_offset.max(next_offset.unwrap_or(0));
                    }
                    Ok(true)
                }
                Polled::Record { place, kind, edge, payload } => {
                    let Some(state) = partitions.get_mut(&place.partition) else { return Ok(true) };
                    if place.offset < state.next_offset {
                        // A client that was paused, or lost its broker, may give again what it gave.
                        return Ok(true);
                    }
                    (state.next_offset, state.at_end) = (place.offset + 1, false);
                    *ready_partials += take(assembly, ready, meter, state, (place, kind, edge, payload))?;
                    Ok(true)
                }
            })?;
            if !more? {
                break;
            }
            came = true;
        }
        Ok(came)
    }

    fn hold_back(&mut self) -> Result<(), ConsumeError> {
        let reader = self.reader.as_ref().expect("connected before");
        match self.partitions.hold_back(self.assembly.held_bytes(), self.settings.unfinished_bytes_max) {
            Some(Hold::Pause(others)) => reader.pause(&others),
            Some(Hold::Resume(others)) => reader.resume(&others),
            None => Ok(()),
        }
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
        let batch = Batch { deliveries: &self.ready, offsets: &offsets, now_ms: wall_ms(), closing_cap_ms: cap_ms };
        let applied = self.store.apply_what_can_be(&batch)?;
        self.meter.applied(&applied);
        for (edge_id, trouble) in &applied.troubles {
            tracing::warn!("edge {edge_id}: {}", trouble.text);
        }
        (self.cap_ms, self.committed_offsets) = (cap_ms, offsets);
        self.ready.clear();
        self.ready_partials = 0;
        Ok(())
    }

    /// Where to read on after what is in `ready`.
    fn offsets(&self) -> BTreeMap<i32, i64> {
        let resume_at = |(&partition, state): (&i32, &Partition)| {
            (partition, self.assembly.resume_at(partition, state.next_offset))
        };
        self.partitions.all.iter().map(resume_at).collect()
    }

    fn closing_cap(&self) -> Option<i64> {
        self.partitions.closing_cap(self.away_since_ms.is_some())
    }

    /// Tells the store whose silence means something.
    fn listen(&mut self) {
        let idle_after_ms = self.store.options().idle_after_ms;
        self.store.set_hearing(self.partitions.hearing(self.away_since_ms, wall_ms(), idle_after_ms));
    }

    fn falls_silent(&mut self, why: &str) -> Result<(), Stopped> {
        let since_ms = self.meter.away().map_or_else(wall_ms, |away| away.since_ms);
        // What was heard last says most.
        self.meter.set_away(Some(Away { since_ms, why: why.to_owned() }));
        if self.away_since_ms.is_none() {
            tracing::warn!("nothing is consumed: {why}");
            self.away_since_ms = Some(self.answered_ms);
            self.listen();
            // What is not committed waits: whether it is of this topic, nobody says now.
            let (closing_cap_ms, none) = (self.closing_cap(), BTreeMap::new());
            self.store.apply(&Batch { deliveries: &[], offsets: &none, now_ms: wall_ms(), closing_cap_ms })?;
            self.cap_ms = closing_cap_ms;
        }
        Ok(())
    }

    fn answers(&mut self) {
        if self.away_since_ms.take().is_some() {
            tracing::info!("Kafka answers again");
            self.meter.set_away(None);
            self.listen();
        }
    }
}

/// Takes a record in; how many partials of whole transactions are ready with it.
fn take(
    assembly: &mut Assembly,
    ready: &mut Vec<Delivered>,
    meter: &Meter,
    state: &mut Partition,
    (place, kind, edge, payload): (Place, Option<Kind>, &[u8], &[u8]),
) -> Result<usize, ConsumeError> {
    let Some(kind) = kind else {
        meter.foreign_record();
        return Ok(0);
    };
    let delivered =
        assembly.take(place, kind, edge, payload).map_err(|too_new| ConsumeError::Halt(too_new.to_string()))?;
    let mut partials = 0;
    for one in &delivered {
        if let Delivered::Whole(whole) = one {
            state.watermark_ms = state.watermark_ms.max(Some(whole.end.watermark_ms));
            partials += whole.partials.len();
        }
    }
    ready.extend(delivered);
    Ok(partials)
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

    /// A client that was given partitions cannot be given them again: it must not be kept where another cannot be made at once.
    #[test]
    fn a_client_that_gave_nothing_is_let_go_before_another_is_made() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Arc::new(Store::open(&folder.path().join("store")).expect("a new store"));
        let (brokers, topic) = ("127.0.0.1:1".to_owned(), "t".to_owned());
        let settings = KafkaSettings { brokers, topic, properties: Vec::new(), unfinished_bytes_max: 1 };
        let mut reader = Reader::new(&settings).expect("a client");
        reader.assign(&BTreeMap::from([(0, 5)])).expect("it has none yet");
        assert!(reader.assign(&BTreeMap::from([(0, 5)])).is_err(), "again");
        let mut consumer = Consumer::new(store.clone(), settings, Arc::default(), Arc::default());
        consumer.reader = Some(reader);
        consumer.partitions.begin(0, 5, Some(7), 1);
        assert!(consumer.read_anew().is_ok());
        assert!(consumer.reader.is_none() && consumer.partitions.all.is_empty());
        assert_eq!(store.offsets().expect("read"), BTreeMap::from([(0, 5)]), "what it had read is kept");
        assert_eq!(consumer.closing_cap(), Some(i64::MIN), "nothing closes meanwhile");
    }
}
