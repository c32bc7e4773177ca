//! Consuming: from records of the topic to commits of the store. One thread; it ends when it is told to, when the store fails, or
//! when to go on would be to guess.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::kafka::{ConsumeError, KafkaSettings, Polled, Reader};
use crate::metrics::{Away, Meter};
use crate::partitions::{Asking, Hold, STANDSTILL};
use crate::reading::Reading;
use crate::source::Witness;
use crate::store::Store;
use crate::tables::StoreError;
use crate::topic::Topic;

/// A batch is committed when nothing more is at hand, or after so long, or with as much as may be unfinished. A row that is counted ten
/// times in a batch costs little more than one that is counted once.
const BATCH_TIME: Duration = Duration::from_millis(500);
/// And with no more than this and a transaction: a run of it is one value of the file.
const BATCH_BYTES_MAX: usize = 256 << 20;
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
    /// Partitions are read since the start, or were.
    has_begun: bool,
    /// A partition lacks what was to be read next, as the client said it.
    lacking: Option<String>,
    asking: Asking,
    reading: Reading,
    /// When it answered last.
    answered_ms: i64,
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
            has_begun: false,
            lacking: None,
            asking: Asking::default(),
            reading: Reading::new(wall_ms()),
            answered_ms: wall_ms(),
        }
    }

    /// Where the topic does not have what is to be read next, it is read from the first that it has, into what is counted.
    pub fn from_earliest(self) -> Consumer {
        Consumer { from_earliest: true, ..self }
    }

    /// Records at these offsets of partitions are torn where they are of a later version: no tollgate wrote them.
    pub fn passing_over(self, pass_over: BTreeSet<(i32, i64)>) -> Consumer {
        Consumer { reading: self.reading.passing_over(pass_over), ..self }
    }

    /// Whoever is not heard yet holds all windows open: to be called before anybody else commits.
    pub fn begin(&mut self) -> Result<(), StoreError> {
        self.reading.listen(&self.store, wall_ms());
        self.commit()
    }

    /// Consumes until it is told to stop, after [`Consumer::begin`].
    pub fn run(mut self) -> Result<(), Stopped> {
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
        if self.reading.has_moved() {
            self.commit_if_due(true)?;
        }
        let until = Instant::now() + LOOK_EVERY;
        while Instant::now() < until && !self.stop.load(Ordering::Acquire) {
            if self.reading.listen(&self.store, wall_ms()) {
                return Ok(());
            }
            let came = self.gather()?;
            if let Some(partition) = self.reading.put_back() {
                return self.was_put_back(partition);
            }
            if self.lacking.is_some() {
                return self.lacks();
            }
            self.word_may_end();
            if came {
                self.answered_ms = wall_ms();
                self.answers();
            }
            self.reading.tell(&self.store, wall_ms());
            self.commit_if_due(false)?;
            self.hold_back()?;
            if self.reading.partitions.were_read() {
                self.meter.set_caught_up();
            }
        }
        if self.reading.partitions.are_read() {
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
        let (led, topic) = (reader.partitions()?, self.topic());
        if led.is_empty() {
            return Err(topic.missing(&self.store)?.into());
        }
        self.same_topic().know(&self.store, reader)?;
        let asked_ms = wall_ms();
        let ends = ask_for_ends(reader, &led, &mut self.asking)?;
        let partitions = &self.reading.partitions;
        let (stored, mut fresh, mut witnesses) = (self.store.offsets()?, BTreeMap::new(), BTreeMap::new());
        let answered = ends.iter().filter_map(|(&of, ends)| Some((of, (*ends)?)));
        for (partition, (first, end)) in answered.filter(|(of, _)| !partitions.all.contains_key(of)) {
            let known = stored.get(&partition).copied();
            fresh.insert(partition, topic.begin_at(&self.store, partition, known, (first, end))?);
            // None where it is to be read from its beginning.
            let last = self.store.last_counted(partition, fresh[&partition]).filter(|last| last.offset >= first);
            witnesses.extend(last.map(|last| (partition, last)));
        }
        if !fresh.is_empty() {
            let from = |(&of, &at)| (of, witnesses.get(&of).map_or(at, |witness: &Witness| witness.offset));
            self.reader.as_mut().expect("connected before").assign(&fresh.iter().map(from).collect())?;
        }
        for (partition, next_offset) in fresh {
            let watermark_ms = self.store.watermark_of_partition(partition);
            self.reading.partitions.begin(partition, next_offset, watermark_ms, wall_ms());
        }
        for (partition, witness) in witnesses {
            self.reading.expect(partition, witness);
        }
        let partitions = &mut self.reading.partitions;
        partitions.some_unknown = (0..led.len() as i32).any(|partition| !partitions.all.contains_key(&partition));
        self.has_begun |= !partitions.all.is_empty();
        // The answers are of after whatever this waited for.
        self.reading.listen(&self.store, wall_ms());
        let end = |of: i32| ends.get(&of).map(|answer| answer.map(|(_, end)| end));
        self.reading.partitions.ask(end, asked_ms);
        self.look_for_standstill(&ends)
    }

    fn look_for_standstill(&mut self, ends: &Ends) -> Result<(), Turn> {
        let (partitions, mut standing) = (&mut self.reading.partitions, None);
        for (&partition, answer) in ends {
            let Some(next_offset) = partitions.all.get(&partition).map(|state| state.next_offset) else { continue };
            let end = answer.map(|(_, end)| end);
            if let Some(end) = end {
                self.meter.lag(partition, end.saturating_sub(next_offset).max(0) as u64);
            }
            if partitions.looks(partition, end, Instant::now()) {
                standing = Some((partition, next_offset));
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

    fn topic(&self) -> Topic {
        Topic { name: self.settings.topic.clone(), from_earliest: self.from_earliest }
    }

    /// What was read of one that is made anew after that is of the old one, and so is where its partitions are read on.
    fn same_topic(&self) -> Topic {
        Topic { from_earliest: self.from_earliest && !self.has_begun, ..self.topic() }
    }

    /// The word of --from-earliest is of what a start finds, in all partitions.
    fn word_may_end(&mut self) {
        let has_found = self.has_begun && !self.reading.partitions.some_unknown && self.reading.is_witnessed();
        self.from_earliest &= !has_found;
    }

    /// Ends, or reads the partition from its beginning with a new client.
    fn was_put_back(&mut self, partition: i32) -> Result<(), Turn> {
        // What came of others is of use; the offset of this one goes with what is forgotten.
        self.read_anew()?;
        self.topic().was_put_back(&self.store, partition)
    }

    /// Ends, unless what is lacking was counted: retention may take that after it was asked what the topic has, and before it is read
    /// again. Then all are asked again, and each is read from what is to be read next, if the topic has that.
    fn lacks(&mut self) -> Result<(), Turn> {
        let reader = self.reader.as_ref().expect("connected before");
        let first = |partition| reader.ends(partition, reader.timeout()).ok().map(|(first, _)| first);
        if !self.reading.partitions.lack_what_was_read(first) {
            return Err(ConsumeError::Halt(self.lacking.take().unwrap_or_default()).into());
        }
        tracing::info!("what was counted was deleted while it was read again: partitions are read by a new client");
        self.read_anew()
    }

    /// Commits what is whole; the next turn reads on behind it with a new client.
    fn read_anew(&mut self) -> Result<(), Turn> {
        self.commit_if_due(true)?;
        (self.reader, self.lacking) = (None, None);
        self.reading.begin_anew();
        Ok(())
    }

    /// Reads until there is something to commit, and nothing more at hand. True: Kafka gave something.
    fn gather(&mut self) -> Result<bool, Turn> {
        let (until, mut came) = (Instant::now() + BATCH_TIME, false);
        let bytes_max = self.settings.unfinished_bytes_max.min(BATCH_BYTES_MAX);
        while self.reading.ready_bytes() < bytes_max && Instant::now() < until {
            let timeout = if self.reading.is_ready() { LULL } else { POLL };
            let reader = self.reader.as_ref().expect("connected before");
            let (reading, meter, lacking) = (&mut self.reading, &self.meter, &mut self.lacking);
            let more = reader.poll(timeout, |polled| match polled {
                Polled::Nothing => Ok(false),
                Polled::AtEnd { partition, next_offset, high } => {
                    reading.at_end(partition, next_offset, high);
                    Ok(true)
                }
                Polled::Lacking(why) => {
                    *lacking = Some(why);
                    Ok(false)
                }
                Polled::Record { place, kind, edge, payload } => {
                    if kind.is_none() {
                        meter.foreign_record();
                    }
                    reading.record(place, kind, edge, payload).map(|()| true)
                }
            })?;
            if !more.map_err(|too_new| ConsumeError::Halt(too_new.to_string()))? {
                break;
            }
            came = true;
        }
        Ok(came)
    }

    fn hold_back(&mut self) -> Result<(), ConsumeError> {
        let reader = self.reader.as_ref().expect("connected before");
        match self.reading.hold_back(self.settings.unfinished_bytes_max) {
            Some(Hold::Pause(others)) => {
                self.meter.held_back(others.len());
                reader.pause(&others)
            }
            Some(Hold::Resume(others)) => reader.resume(&others),
            None => Ok(()),
        }
    }

    /// Commits what is whole, and where windows may close.
    fn commit_if_due(&mut self, must: bool) -> Result<(), Turn> {
        if !must && !self.reading.is_due() {
            return Ok(());
        }
        if let Some(reader) = self.reader.as_ref().filter(|_| self.reading.is_ready()) {
            // The client reads on in a topic that was made anew meanwhile. What came before the answer is of the topic of the answer.
            self.same_topic().know(&self.store, reader)?;
        }
        Ok(self.commit()?)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let applied = self.reading.commit(&self.store, wall_ms())?;
        self.meter.applied(&applied);
        for (edge_id, trouble) in &applied.troubles {
            tracing::warn!("edge {edge_id}: {}", trouble.text);
        }
        Ok(())
    }

    fn falls_silent(&mut self, why: &str) -> Result<(), Stopped> {
        let since_ms = self.meter.away().map_or_else(wall_ms, |away| away.since_ms);
        // What was heard last says most.
        self.meter.set_away(Some(Away { since_ms, why: why.to_owned() }));
        if self.reading.falls_silent(&self.store, self.answered_ms, wall_ms())? {
            tracing::warn!("nothing is consumed: {why}");
        }
        Ok(())
    }

    fn answers(&mut self) {
        if self.reading.answers(&self.store, wall_ms()) {
            tracing::info!("Kafka answers again");
            self.meter.set_away(None);
        }
    }
}

/// Of each partition that was asked, the first offset that it has and the one after its last; None: it did not answer.
type Ends = BTreeMap<i32, Option<(i64, i64)>>;

/// Once partitions are read, all questions together take no longer than one may, and at a start no longer than two: nothing is consumed
/// meanwhile. Fails where nobody answers.
fn ask_for_ends(reader: &Reader, led: &[bool], asking: &mut Asking) -> Result<Ends, ConsumeError> {
    let until = Instant::now() + if reader.is_reading() { reader.timeout() } else { 2 * reader.timeout() };
    let left = || until.saturating_duration_since(Instant::now()).min(reader.timeout());
    let mut why = None;
    let ends = asking
        .ask(led, left, |partition, timeout| reader.ends(partition, timeout).map_err(|error| why = Some(error)).ok());
    let none = || ConsumeError::Away("no partition of the topic has a leader".to_owned());
    // One that does not answer keeps nobody from being counted; it tells whether Kafka does when none does.
    if asking.nobody_answers(led) { Err(why.unwrap_or_else(none)) } else { Ok(ends) }
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
    use crate::batch::{Batch, Delivered, Delivery};
    use crate::fixture::{partial, transaction};
    use crate::kafka::tests::Cluster;
    use crate::records::Place;

    /// The keeper commits, too, and who asks the admin port: windows would close up to what the edges had said, whatever the topic has.
    #[test]
    fn what_begins_lets_nobody_close_windows_before_partitions_are_read() {
        let folder = tempfile::tempdir().expect("folder");
        let open = || Arc::new(Store::open(&folder.path().join("store")).expect("a store"));
        let (store, now_ms) = (open(), wall_ms());
        let sent = transaction("a", 1, 420_000, vec![partial("ad", 0, 0, 1, &[])]);
        let place = Place { partition: 0, offset: 4 };
        let whole = Delivered::Whole(Delivery::of(sent, place).expect("rows"));
        let offsets = BTreeMap::from([(0, 5)]);
        let batch = Batch { deliveries: &[whole], offsets: &offsets, now_ms, closing_cap_ms: Some(i64::MIN) };
        store.apply(&batch).expect("counted");
        drop(store);
        let store = open();
        let mut consumer = Consumer::new(store.clone(), settings(), Arc::default(), Arc::default());
        consumer.begin().expect("begun");
        assert!(store.accept("a", now_ms).expect("committed"));
        let marks = store.snapshot().expect("read").as_of().marks;
        assert_eq!(marks.closed_before_ms, i64::MIN, "partition 0 may have more");
    }

    /// An edge was retired a week ago, and its last end record is the oldest that is left; then that goes, too. What is to be read next
    /// is there all the time.
    #[test]
    fn what_was_counted_may_be_deleted_before_it_is_read_again() {
        let (cluster, folder) = (Cluster::new("t"), tempfile::tempdir().expect("folder"));
        cluster.write(8);
        let settings = KafkaSettings { brokers: cluster.brokers(), ..settings() };
        let begun = |next_offset: i64| {
            let name = format!("store {next_offset}");
            let store = Arc::new(Store::open(&folder.path().join(name)).expect("a new store"));
            let sent = transaction("a", 1, 420_000, vec![partial("ad", 0, 0, 1, &[])]);
            let whole = Delivered::Whole(Delivery::of(sent, Place { partition: 0, offset: 0 }).expect("rows"));
            let offsets = BTreeMap::from([(0, next_offset)]);
            let batch = Batch { deliveries: &[whole], offsets: &offsets, now_ms: wall_ms(), closing_cap_ms: None };
            store.apply(&batch).expect("counted");
            let mut consumer = Consumer::new(store.clone(), settings.clone(), Arc::default(), Arc::default());
            // As if it had asked what the topic has while that had all.
            let mut reader = Reader::new(&settings).expect("a client");
            reader.assign(&BTreeMap::from([(0, 0)])).expect("it has none yet");
            consumer.reader = Some(reader);
            consumer.reading.partitions.begin(0, next_offset, None, wall_ms());
            consumer.reading.expect(0, store.last_counted(0, next_offset).expect("one was counted"));
            (store, consumer)
        };
        // Until the client says that something is not there.
        let gathers = |consumer: &mut Consumer| {
            let until = Instant::now() + Duration::from_secs(60);
            while consumer.lacking.is_none() && Instant::now() < until {
                consumer.gather().map_err(told)?;
            }
            consumer.lacks().map_err(told)
        };
        let (store, mut consumer) = begun(8);
        assert_eq!(gathers(&mut consumer), Ok(()), "what is to be read next is there");
        assert!(consumer.reader.is_none() && consumer.lacking.is_none() && consumer.reading.is_witnessed());
        let has = Reader::new(&settings).expect("a client").ends(0, Duration::from_secs(60)).expect("told");
        assert!(has.0 > 1 && has.1 == 8, "{has:?}");
        let begin_at = |stored| consumer.topic().begin_at(&store, 0, Some(stored), has).map_err(told);
        assert_eq!(begin_at(8), Ok(8));
        let why = begin_at(1).expect_err("retention was too short");
        assert!(why.contains("t/0 is to be read on from offset 1, and has "), "{why}");
        // What is to be read next may go in the same way.
        let (_store, mut consumer) = begun(7);
        consumer.reading = Reading::new(wall_ms());
        consumer.reading.partitions.begin(0, 0, None, wall_ms());
        let why = gathers(&mut consumer).expect_err("it was not read");
        assert!(why.contains("the topic t no longer has what is to be read next"), "{why}");
        assert!(consumer.lacking.is_none());
    }

    fn told(turn: Turn) -> String {
        match turn {
            Turn::Kafka(error) => error.to_string(),
            Turn::Store(error) => error.to_string(),
        }
    }

    fn settings() -> KafkaSettings {
        let (brokers, topic) = ("127.0.0.1:1".to_owned(), "t".to_owned());
        KafkaSettings { brokers, topic, properties: Vec::new(), unfinished_bytes_max: 1 }
    }

    /// A client that was given partitions cannot be given them again: it must not be kept where another cannot be made at once.
    #[test]
    fn a_client_that_gave_nothing_is_let_go_before_another_is_made() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Arc::new(Store::open(&folder.path().join("store")).expect("a new store"));
        let mut reader = Reader::new(&settings()).expect("a client");
        reader.assign(&BTreeMap::from([(0, 5)])).expect("it has none yet");
        assert!(reader.assign(&BTreeMap::from([(0, 5)])).is_err(), "again");
        let mut consumer = Consumer::new(store.clone(), settings(), Arc::default(), Arc::default());
        consumer.reader = Some(reader);
        consumer.reading.partitions.begin(0, 5, Some(7), 1);
        assert!(consumer.read_anew().is_ok());
        assert!(consumer.reader.is_none() && consumer.reading.partitions.all.is_empty());
        assert_eq!(store.offsets().expect("read"), BTreeMap::from([(0, 5)]), "what it had read is kept");
        assert_eq!(consumer.reading.partitions.closing_cap(false), Some(i64::MIN), "nothing closes meanwhile");
    }

    /// A partition whose broker is away for a moment may lack what is to be read next, as others did. A topic that is made anew while it is
    /// waited for is another one.
    #[test]
    fn the_word_of_from_earliest_is_of_all_partitions_and_of_the_topic_that_the_start_found() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Arc::new(Store::open(&folder.path().join("store")).expect("a new store"));
        let mut consumer = Consumer::new(store, settings(), Arc::default(), Arc::default()).from_earliest();
        let holds = |consumer: &mut Consumer, some_unknown: bool| {
            consumer.reading.partitions.some_unknown = some_unknown;
            consumer.word_may_end();
            (consumer.topic().from_earliest, consumer.same_topic().from_earliest)
        };
        assert_eq!(holds(&mut consumer, true), (true, true), "nothing is read yet");
        consumer.has_begun = true;
        assert_eq!(holds(&mut consumer, true), (true, false));
        let end = transaction("a", 1, 0, Vec::new()).end;
        consumer.reading.expect(0, Witness { offset: 4, end });
        assert_eq!(holds(&mut consumer, false), (true, false));
        consumer.reading.begin_anew();
        assert_eq!(holds(&mut consumer, false), (false, false));
    }
}
