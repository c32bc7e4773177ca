//! Drives. The protocol's end in Kafka: partials, end record and checkpoint in one transaction of librdkafka. Nothing else knows
//! rdkafka. Runs on the exporter's thread, whose calls block.
//!
//! ```text
//! topic of partials      this edge's partition     partial, partial, …, end     key: the edge's id, header `type`
//! topic of checkpoints   this edge's partition     checkpoint                   key: the edge's id, header `type`
//! raw topic, if any      by key                    click, click, …              key: the ad's id, header `type`
//! ```
//!
//! librdkafka repeats EndTxn by itself, and a late one of its tries may end a later transaction of the same producer epoch, behind
//! a commit that looked clean. So each transaction has a producer of its own, which fences the one before it. What is asked in which
//! order is decided in `order` and `following`, which know no broker.

mod client;
pub mod following;
pub mod order;
mod place;
mod raw;
mod reader;
mod rights;
mod topics;
mod watch;

pub use client::{Client, ClientError};
pub use topics::{TopicFinding, TopicsPlan, check_topics, create_topics};

use std::path::PathBuf;
use std::time::{Duration, Instant};

use prost::Message as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::util::Timeout;
use tollgate_wire::{Checkpoint, Transaction};

use self::client::{Producer, Reports};
use self::following::Wait;
use self::order::{Ask, Order};
use self::watch::Watch;
use crate::config::{ExportConfig, TRANSACTION_TIMEOUT_MS};
use crate::export::mirror::{MirrorFile, Place};
use crate::export::sink::Sink;
use crate::export::thread::ReadFrames;
use crate::export::{Look, Names, Outcome, SinkError};

const TRANSACTION_TIMEOUT: Duration = Duration::from_millis(TRANSACTION_TIMEOUT_MS);
/// For the coordinator to settle what the producer before us left open.
const INIT_TIMEOUT: Duration = Duration::from_secs(20);
/// librdkafka's queue is full: time for it to send.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

/// Between two looks at the delivery reports.
const REPORT_PAUSE: Duration = Duration::from_micros(500);

pub struct Kafka {
    client: Client,
    edge_id: String,
    topic_raw: Option<String>,
    data_dir: PathBuf,
    /// As the file is; none before the first contact.
    mirror: Option<MirrorFile>,
    /// Has fenced every earlier one, and was not used yet.
    producer: Option<Producer>,
    /// Made ahead, so that its connections are there when it is its turn to fence.
    next: Option<Producer>,
    /// Of this edge's checkpoints.
    watch: Option<Watch>,
    order: Order,
    /// The topics were looked at since the start.
    checked: bool,
    /// Transactions in a row whose outcome was in doubt.
    doubts: u32,
    /// Why nothing more can be sent by this process.
    broken: Option<String>,
}

impl Kafka {
    pub fn new(client: Client, export: &ExportConfig, data_dir: PathBuf, mirror: Option<MirrorFile>) -> Kafka {
        let topic_raw = Some(export.kafka.topic_raw.clone()).filter(|topic| !topic.is_empty());
        Kafka {
            client,
            edge_id: export.edge_id.clone(),
            topic_raw,
            data_dir,
            mirror,
            producer: None,
            next: None,
            watch: None,
            order: Order::default(),
            checked: false,
            doubts: 0,
            broken: None,
        }
    }

    /// Where our records go: as remembered, else as found or chosen now.
    fn place(&mut self, watch: &Watch) -> Result<Place, SinkError> {
        let cluster = watch.all.cluster()?;
        match &self.mirror {
            Some(mirror) => place::same(&mirror.place, &cluster)?,
            None => {
                let place = place::choose(watch, &self.client.kafka, &self.edge_id, cluster)?;
                let mirror = MirrorFile::new(place);
                mirror.write(&self.data_dir).map_err(|error| SinkError::Broken(error.to_string()))?;
                self.mirror = Some(mirror);
            }
        }
        Ok(self.mirror.as_ref().expect("it was there, or is now").place.clone())
    }

    fn read(&mut self, look: Look) -> Result<Option<Checkpoint>, SinkError> {
        if let Some(why) = &self.broken {
            return Err(SinkError::Broken(why.clone()));
        }
        // A failure leaves none behind: the next try connects anew.
        let mut watch = self.watch.take().map_or_else(|| Watch::connect(&self.client), Ok)?;
        // A cheap question first: where nobody answers it, nothing larger is tried.
        let place = self.place(&watch)?;
        if !self.checked {
            topics::refuse_unsafe(&self.client, &watch.all)?;
            self.checked = true;
        }
        if look != Look::Again {
            place::refuse_missing(&watch.all, &place)?;
        }
        let mut ask = self.order.look(look);
        loop {
            let found = match ask {
                Ask::Fence { anew } => {
                    ask = self.fence(anew)?;
                    continue;
                }
                Ask::Find(wait) => self.find(&mut watch, &place, wait)?,
                Ask::Last => watch.last_checkpoint(&place, &self.edge_id)?,
                Ask::Found(found) => {
                    self.watch = Some(watch);
                    return Ok(found);
                }
                Ask::Send | Ask::Rival => unreachable!("a look sends nothing"),
            };
            ask = self.order.read(found.map(|found| self.names().inside(&found)));
        }
    }

    /// This edge's checkpoint. As long as this directory has exported nothing there, another host of its id may have chosen another
    /// partition at the same moment: then it is looked for in all of them, before anyone is fenced and behind the fence, where
    /// whoever is first to commit is seen by the other.
    fn find(&mut self, watch: &mut Watch, place: &Place, wait: Wait) -> Result<Option<Checkpoint>, SinkError> {
        let found = watch.checkpoint(place, &self.edge_id, wait)?;
        let mirror = self.mirror.as_mut().expect("a place was chosen");
        if found.is_some() || mirror.has_exported_there() {
            return Ok(found);
        }
        let Some(place) = place::elsewhere(watch, place, &self.edge_id, wait)? else { return Ok(None) };
        mirror.place = place.clone();
        mirror.write(&self.data_dir).map_err(|error| SinkError::Broken(error.to_string()))?;
        watch.checkpoint(&place, &self.edge_id, wait)
    }

    /// The producer of the next transaction.
    fn next_producer(&mut self, place: &Place) -> Result<Producer, SendError> {
        let mut ask = self.order.commit();
        loop {
            ask = match ask {
                Ask::Fence { anew } => self.fence(anew).map_err(SendError::Producer)?,
                Ask::Last => {
                    let connected = self.watch.take().map_or_else(|| Watch::connect(&self.client), Ok);
                    let mut watch = connected.map_err(SendError::NotRead)?;
                    let last = watch.last_checkpoint(place, &self.edge_id).map_err(SendError::NotRead)?;
                    self.watch = Some(watch);
                    self.order.read(last.map(|last| self.names().inside(&last)))
                }
                Ask::Send => return Ok(self.producer.take().expect("it fenced")),
                Ask::Rival => return Err(SendError::Rival),
                Ask::Find(_) | Ask::Found(_) => unreachable!("a commit looks in one place"),
            };
        }
    }

    fn names(&self) -> Names {
        self.mirror.as_ref().map(MirrorFile::names).unwrap_or_default()
    }

    /// A new producer: no earlier one can end a transaction any more.
    fn fence(&mut self, anew: bool) -> Result<Ask, SinkError> {
        self.producer = None;
        let producer = match self.next.take().filter(|_| !anew) {
            Some(producer) => producer,
            None => self.client.producer(&self.edge_id, TRANSACTION_TIMEOUT)?,
        };
        producer.kafka.init_transactions(INIT_TIMEOUT).map_err(|error| client::unreachable("fencing", &error))?;
        self.producer = Some(producer);
        Ok(self.order.fenced())
    }

    /// Sends everything and waits for every delivery report; then commits.
    fn send(&mut self, transaction: &Transaction, log: &mut ReadFrames, heard: &dyn Fn()) -> Result<(), SendError> {
        let place = self.mirror.as_ref().expect("a commit follows a read, which chose").place.clone();
        let names = self.names();
        let producer = self.next_producer(&place)?;
        heard();
        let until = Instant::now() + TRANSACTION_TIMEOUT;
        producer.kafka.begin_transaction()?;
        let mut sent = Sent { producer: &producer.kafka, until, heard, records: 0, delivered: 0 };
        let (partials, key) = ((place.topic_partials.as_str(), place.partition_partials), self.edge_id.as_bytes());
        let mut bytes = Vec::new();
        let headers = headers("partial");
        for partial in &transaction.partials {
            bytes.clear();
            partial.encode_raw(&mut bytes);
            sent.record(partials.0, Some(partials.1), key, &bytes, &headers)?;
        }
        if let Some(topic) = &self.topic_raw {
            raw::send(transaction, &names, log, &mut |ad, click, headers| {
                sent.record(topic, None, ad, click, headers)
            })?;
        }
        sent.record(partials.0, Some(partials.1), key, &transaction.end.encode_to_vec(), &self::headers("end"))?;
        let (topic, partition) = (place.topic_checkpoints.as_str(), place.partition_checkpoints);
        let checkpoint = names.outside(&transaction.checkpoint).encode_to_vec();
        sent.record(topic, Some(partition), key, &checkpoint, &self::headers("checkpoint"))?;
        // librdkafka's flush looks every 100 ms; the reports are counted as they come.
        let reports = producer.kafka.context();
        while reports.reported() < sent.records && Instant::now() < until {
            sent.listen();
            std::thread::park_timeout(REPORT_PAUSE);
        }
        let (records, delivered) = (sent.records, reports.delivered());
        if delivered != records {
            let why = producer.why.try_recv().unwrap_or_else(|_| "no answer in time".to_owned());
            return Err(SendError::Undelivered { records, delivered, why });
        }
        // No time-out of ours: librdkafka's ends with the transaction's, and then the outcome is unknown.
        producer.kafka.commit_transaction(Timeout::Never)?;
        self.next = self.client.producer(&self.edge_id, TRANSACTION_TIMEOUT).ok();
        Ok(())
    }
}

/// Where an edge's records would go with these settings, and its checkpoint there. `remembered` is kept where it still can be.
/// Fences nobody.
pub fn look(
    client: &Client,
    edge_id: &str,
    remembered: Option<&Place>,
) -> Result<(Place, Option<Checkpoint>), SinkError> {
    let mut watch = Watch::connect(client)?;
    let cluster = watch.all.cluster()?;
    let (partials, checkpoints) = (&client.kafka.topic_partials, &client.kafka.topic_checkpoints);
    let same = remembered.filter(|place| {
        (&place.cluster, &place.topic_partials, &place.topic_checkpoints) == (&cluster, partials, checkpoints)
    });
    let place = match same {
        Some(place) if place::is_there(&watch.all, place)? => place.clone(),
        Some(_) | None => place::choose(&watch, &client.kafka, edge_id, cluster)?,
    };
    let found = watch.last_checkpoint(&place, edge_id)?;
    Ok((place, found))
}

/// Why a transaction did not cleanly succeed.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("{0}{missing}", missing = rights::missing(.0))]
    Kafka(#[from] KafkaError),
    #[error("{topic}: {error}{missing}", missing = rights::missing(error))]
    NotQueued { topic: String, error: KafkaError },
    #[error("no producer: {0}")]
    Producer(SinkError),
    #[error("nothing was sent: who wrote last cannot be read: {0}")]
    NotRead(SinkError),
    #[error("the last checkpoint is not ours any more")]
    Rival,
    #[error("{delivered} of {records} records were delivered: {why}")]
    Undelivered { records: u64, delivered: u64, why: String },
    #[error("the log cannot be read back for the raw topic: {0}; `tollgate wal verify` says what is lost")]
    Log(String),
}

/// A transaction on its way.
struct Sent<'a> {
    producer: &'a ThreadedProducer<Reports>,
    until: Instant,
    heard: &'a dyn Fn(),
    records: u64,
    /// As of the last time that somebody listened.
    delivered: u64,
}

impl Sent<'_> {
    fn record(
        &mut self,
        topic: &str,
        partition: Option<i32>,
        key: &[u8],
        payload: &[u8],
        headers: &OwnedHeaders,
    ) -> Result<(), SendError> {
        let mut record = BaseRecord::to(topic).key(key).payload(payload).headers(headers.clone());
        record.partition = partition;
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again))
                    if Instant::now() < self.until =>
                {
                    record = again;
                    self.listen();
                    std::thread::park_timeout(QUEUE_FULL_PAUSE);
                }
                Err((error, _)) => return Err(SendError::NotQueued { topic: topic.to_owned(), error }),
            }
        }
        self.records += 1;
        Ok(())
    }

    /// A record that was delivered is a sign of the brokers.
    fn listen(&mut self) {
        let delivered = self.producer.context().delivered();
        if std::mem::replace(&mut self.delivered, delivered) < delivered {
            (self.heard)();
        }
    }
}

fn headers(kind: &str) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(1).insert(Header { key: "type", value: Some(kind) })
}

impl Sink for Kafka {
    fn checkpoint(&mut self, look: Look) -> Result<Option<Checkpoint>, SinkError> {
        self.read(look)
    }

    /// Whatever the error, and whatever its code says: the outcome is unknown.
    fn commit(&mut self, transaction: &Transaction, log: &mut ReadFrames, heard: &dyn Fn()) -> Outcome {
        match self.send(transaction, log, heard) {
            Ok(()) => {
                self.order.committed(&transaction.checkpoint);
                self.doubts = 0;
                Outcome::Committed
            }
            Err(error) => {
                if let SendError::Log(_) = &error {
                    self.broken = Some(error.to_string());
                }
                self.doubts += 1;
                self.watch = None;
                // Each may be tried again for hours.
                if self.doubts.is_power_of_two() {
                    let (txn_seq, in_a_row) = (transaction.end.txn_seq, self.doubts);
                    tracing::warn!(txn_seq, in_a_row, "the outcome of an export is in doubt: {error}");
                }
                Outcome::Unknown
            }
        }
    }

    fn remember(&mut self, checkpoint: &Checkpoint) -> Result<(), String> {
        let mirror = self.mirror.as_mut().expect("a checkpoint was read from a place");
        mirror.remember(checkpoint);
        mirror.write(&self.data_dir).map_err(|error| error.to_string())
    }
}
