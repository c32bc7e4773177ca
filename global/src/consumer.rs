//! Consuming: from records of the topic to commits of the store. One thread; it ends when it is told to, when the store fails, or
//! when to go on would be to guess.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::kafka::{ConsumeError, KafkaSettings, Polled, Reader};
use crate::metrics::Meter;
use crate::reading::{self, Reading};
use crate::store::Store;
use crate::tables::StoreError;

/// A batch is committed when nothing more is at hand, or after so long, or with so many partials.
const BATCH_TIME: Duration = Duration::from_millis(200);
const BATCH_PARTIALS: usize = 200_000;
/// How long nothing must come before what is there is committed: records of a transaction come together.
const LULL: Duration = Duration::from_millis(5);
const POLL: Duration = Duration::from_millis(100);
/// Between two looks at partitions: new ones, and how far behind.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a partition that has more may give nothing before the client is made anew: one was seen that asked for ever with an epoch
/// that no broker knew, after its broker had been killed.
const STANDSTILL: Duration = Duration::from_secs(30);
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

/// How far a partition was when it was looked at, and since when it is no further though there is more.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    looked_at: i64,
    stands_since: Option<Instant>,
}

impl Progress {
    /// Whether it has stood still for too long.
    fn stands_still(&mut self, next_offset: i64, end: i64, now: Instant) -> bool {
        let stands = end > next_offset && next_offset == self.looked_at;
        self.looked_at = next_offset;
        self.stands_since = stands.then(|| self.stands_since.unwrap_or(now));
        self.stands_since.is_some_and(|since| now.duration_since(since) >= STANDSTILL)
    }
}

pub struct Consumer {
    store: Arc<Store>,
    settings: KafkaSettings,
    meter: Arc<Meter>,
    stop: Arc<AtomicBool>,
    reader: Option<Reader>,
    reading: Reading,
    progress: BTreeMap<i32, Progress>,
}

impl Consumer {
    pub fn new(store: Arc<Store>, settings: KafkaSettings, meter: Arc<Meter>, stop: Arc<AtomicBool>) -> Consumer {
        Consumer { store, settings, meter, stop, reader: None, reading: Reading::default(), progress: BTreeMap::new() }
    }

    /// Consumes until it is told to stop.
    pub fn run(mut self) -> Result<(), Stopped> {
        // Whoever is not heard yet holds all windows open.
        self.commit_if_due(true)?;
        while !self.stop.load(Ordering::Acquire) {
            match self.turn() {
                Ok(()) => self.answers()?,
                Err(Turn::Store(error)) => return Err(error.into()),
                Err(Turn::Kafka(ConsumeError::Halt(why))) => return Err(Stopped::Kafka(why)),
                Err(Turn::Kafka(ConsumeError::Away(why))) => {
                    self.falls_silent(&why)?;
                    std::thread::sleep(AWAY_PAUSE);
                }
            }
        }
        // What is whole is taken along; the rest is read again.
        self.commit_if_due(false)?;
        Ok(())
    }

    /// Reads for a while, and commits what came.
    fn turn(&mut self) -> Result<(), Turn> {
        if self.reader.is_none() {
            self.reader = Some(self.connect()?);
        }
        self.look_at_partitions()?;
        if self.reading.reads_nothing() {
            // They are read anew.
            self.look_at_partitions()?;
        }
        if self.reading.has_moved() {
            self.commit_if_due(true)?;
        }
        let until = Instant::now() + LOOK_EVERY;
        while Instant::now() < until && !self.stop.load(Ordering::Acquire) {
            self.gather()?;
            self.commit_if_due(false)?;
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
        let reader = self.reader.as_mut().expect("connected before");
        let count = reader.partitions()?;
        if count == 0 {
            return Err(ConsumeError::Away(format!("there is no topic {} yet", self.settings.topic)).into());
        }
        let (stored, mut fresh) = (self.store.offsets()?, BTreeMap::new());
        for partition in (0..count).filter(|partition| !self.reading.is_read(*partition)) {
            let (first, end) = reader.ends(partition)?;
            let known = stored.get(&partition).copied();
            let Some(offset) = reading::begin_at(known, first, end) else {
                return Err(lost(&self.settings.topic, partition, known.unwrap_or(first), first, end).into());
            };
            fresh.insert(partition, offset);
        }
        if !fresh.is_empty() {
            reader.assign(&fresh)?;
            for (&partition, &next_offset) in &fresh {
                self.reading.begin(partition, next_offset, self.store.watermark_of_partition(partition));
            }
        }
        let mut standing = None;
        for (partition, next_offset) in self.reading.next_offsets() {
            // Asked in any case: it tells whether Kafka answers.
            let (_, end) = reader.ends(partition)?;
            self.meter.lag(partition, end.saturating_sub(next_offset).max(0) as u64);
            if self.progress.entry(partition).or_default().stands_still(next_offset, end, Instant::now()) {
                standing = Some((partition, next_offset, end));
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

    /// Commits what is whole, and reads on behind it with a new client.
    fn read_anew(&mut self) -> Result<(), Turn> {
        self.commit_if_due(true)?;
        self.reading.begin_anew();
        self.progress.clear();
        self.reader = Some(self.connect()?);
        Ok(())
    }

    /// Reads until there is something to commit, and nothing more at hand.
    fn gather(&mut self) -> Result<(), Turn> {
        let until = Instant::now() + BATCH_TIME;
        while self.reading.ready_partials() < BATCH_PARTIALS && Instant::now() < until {
            let timeout = if self.reading.is_ready() { LULL } else { POLL };
            let reader = self.reader.as_ref().expect("connected before");
            let (reading, meter) = (&mut self.reading, &self.meter);
            let more = reader.poll(timeout, |polled| match polled {
                Polled::Nothing => Ok(false),
                Polled::AtEnd { partition, next_offset } => {
                    reading.at_end(partition, next_offset);
                    Ok(true)
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
        }
        Ok(())
    }

    /// Commits what is whole, and where windows may close.
    fn commit_if_due(&mut self, must: bool) -> Result<(), StoreError> {
        let Some(applied) = self.reading.commit(&self.store, wall_ms(), must)? else { return Ok(()) };
        self.meter.applied(&applied);
        for (edge_id, trouble) in &applied.troubles {
            tracing::warn!("edge {edge_id}: {}", trouble.text);
        }
        Ok(())
    }

    fn falls_silent(&mut self, why: &str) -> Result<(), Stopped> {
        if self.reading.set_away(true) {
            tracing::warn!("nothing is consumed: {why}");
            self.meter.away(true);
            self.commit_if_due(false)?;
        }
        Ok(())
    }

    fn answers(&mut self) -> Result<(), Stopped> {
        if self.reading.set_away(false) {
            tracing::info!("Kafka answers again");
            self.meter.away(false);
            // Until now nobody could be heard.
            self.store.listen_since(wall_ms());
        }
        Ok(())
    }
}

fn lost(topic: &str, partition: i32, offset: i64, first: i64, end: i64) -> ConsumeError {
    let what = if offset < first {
        "records that were not read are deleted: the topic's retention was shorter than nobody read"
    } else {
        "the topic was emptied, made anew or rewound"
    };
    ConsumeError::Halt(format!(
        "{topic}/{partition} is to be read from offset {offset}, and has {first} to {end}: {what}. Nothing is guessed: restore a \
         backup of the store that fits, or count anew what the topic has with --rebuild"
    ))
}

/// Why a turn ended early.
enum Turn {
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

    #[test]
    fn a_partition_stands_still_when_it_has_more_and_gives_nothing() {
        let (begin, mut progress) = (Instant::now(), Progress::default());
        let mut looks =
            |next_offset, end, seconds| progress.stands_still(next_offset, end, begin + Duration::from_secs(seconds));
        assert!(!looks(5, 9, 0), "it was never looked at");
        assert!(!looks(5, 9, 5) && !looks(5, 9, 34) && looks(5, 9, 35));
        assert!(!looks(6, 9, 40) && !looks(6, 9, 45), "it goes on");
        assert!(!looks(6, 6, 100), "there is nothing more");
        assert!(!looks(6, 9, 105) && !looks(6, 9, 134) && looks(6, 9, 135));
    }
}
