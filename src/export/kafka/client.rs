//! Drives. Connections to Kafka: producers that fence, and readers of checkpoints. Every call has an end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{DeliveryResult, NoCustomPartitioner, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tollgate_wire::{Checkpoint, decode_checkpoint};

use crate::config::KafkaConfig;
use crate::export::SinkError;
use crate::export::mirror::Place;

/// A broker that is there answers far sooner. Also what a probe of one that is away costs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// For reading to the end of a partition that others may have transactions open in: their time-out, and some.
const READ_TIMEOUT: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(100);
/// A checkpoint is looked for in so many of the last records first.
const LOOK_BACK: i64 = 1_000;

/// A wrong configuration of librdkafka: it says what.
#[derive(Debug, thiserror::Error)]
#[error("--kafka-set: {0}")]
pub struct ClientError(String);

/// Counts what a transaction's records came to.
#[derive(Default)]
pub struct Reports {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl Reports {
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Acquire)
    }

    /// Delivered or not.
    pub fn reported(&self) -> u64 {
        self.delivered() + self.failed.load(Ordering::Acquire)
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("librdkafka: {error}: {reason}");
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() { &self.delivered } else { &self.failed };
        count.fetch_add(1, Ordering::Release);
    }
}

pub type Producer = ThreadedProducer<Reports>;

/// What librdkafka has to say is told where something comes of it; the rest is for those who look for it.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("librdkafka: {error}: {reason}");
    }
}

impl ConsumerContext for Quiet {}

fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(?level, "librdkafka: {facility}: {message}");
}

type Reader = BaseConsumer<Quiet>;

/// Makes connections; each is of one use.
pub struct Client {
    pub kafka: KafkaConfig,
}

impl Client {
    /// Checks the properties, and connects to nothing.
    pub fn new(kafka: &KafkaConfig) -> Result<Client, ClientError> {
        let client = Client { kafka: kafka.clone() };
        client.config().create_native_config().map_err(|error| ClientError(error.to_string()))?;
        Ok(client)
    }

    /// What every connection has in common.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // Found at once when they are back, and not hammered until then.
        config.set("reconnect.backoff.max.ms", "2000").set("socket.keepalive.enable", "true");
        config.set("compression.type", "lz4").set("linger.ms", "5").set("batch.size", "1000000");
        config.set("queue.buffering.max.messages", "500000").set("client.id", "tollgate");
        for (key, value) in &self.kafka.properties {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.kafka.brokers);
        config
    }

    /// A new producer of the edge. Until `init_transactions` it fences nobody.
    pub fn producer(&self, edge_id: &str, transaction_timeout: Duration) -> Result<Producer, SinkError> {
        let mut config = self.config();
        config.set("transactional.id", format!("tollgate-{edge_id}"));
        config.set("transaction.timeout.ms", transaction_timeout.as_millis().to_string());
        config.create_with_context(Reports::default()).map_err(|error| broken(&error))
    }

    fn reader(&self, isolation: &str) -> Result<Reader, SinkError> {
        let mut config = self.config();
        // Consumers that are assigned their partitions join no group, but must name one.
        config.set("group.id", "tollgate-reader").set("enable.auto.commit", "false");
        config.set("isolation.level", isolation).set("enable.partition.eof", "true");
        config.create_with_context(Quiet).map_err(|error| broken(&error))
    }

    /// The cluster's id. Fails soon where no broker answers, so that nothing larger is tried.
    pub fn cluster(&self) -> Result<String, SinkError> {
        let reader = self.reader("read_uncommitted")?;
        reader.fetch_metadata(None, ANSWER_TIMEOUT).map_err(|error| unreachable("asking for the cluster", &error))?;
        let cluster = reader.client().fetch_cluster_id(ANSWER_TIMEOUT);
        cluster.ok_or_else(|| SinkError::Unreachable("Kafka: no broker names its cluster".to_owned()))
    }

    /// Partitions and replicas of a topic; none where it does not exist.
    pub fn partitions(&self, topic: &str) -> Result<Vec<usize>, SinkError> {
        let reader = self.reader("read_uncommitted")?;
        let metadata: Metadata = reader
            .fetch_metadata(Some(topic), ANSWER_TIMEOUT)
            .map_err(|error| unreachable("asking for topics", &error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        Ok(found.map_or(Vec::new(), |found| {
            found.partitions().iter().map(|partition| partition.replicas().len()).collect()
        }))
    }

    /// The last committed checkpoint of the edge. A plain read_committed read ends where the first open transaction begins, and
    /// would not say so: it is read up to where the partition ends for everybody.
    pub fn last_checkpoint(&self, place: &Place, edge_id: &str) -> Result<Option<Checkpoint>, SinkError> {
        let (topic, partition) = (place.topic_checkpoints.as_str(), place.partition_checkpoints);
        let (low, high) = self.ends(topic, partition)?;
        let mut from = (high - LOOK_BACK).max(low);
        loop {
            let mut last = None;
            self.read(topic, partition, from..high, &mut |key, bytes| {
                if key == edge_id.as_bytes() {
                    last = Some(bytes.to_vec());
                }
            })?;
            if let Some(bytes) = last {
                let decoded = decode_checkpoint(&bytes).map_err(|error| SinkError::Broken(error.to_string()))?;
                return Ok(Some(decoded));
            }
            if from == low {
                return Ok(None);
            }
            from = (high - (high - from).saturating_mul(10)).max(low);
        }
    }

    /// Edges with a checkpoint in a partition.
    pub fn edges(&self, topic: &str, partition: i32) -> Result<BTreeMap<Vec<u8>, u64>, SinkError> {
        let (low, high) = self.ends(topic, partition)?;
        let mut edges = BTreeMap::new();
        self.read(topic, partition, low..high, &mut |key, _| *edges.entry(key.to_vec()).or_default() += 1)?;
        Ok(edges)
    }

    fn ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), SinkError> {
        let reader = self.reader("read_uncommitted")?;
        let ends = reader.fetch_watermarks(topic, partition, ANSWER_TIMEOUT);
        ends.map_err(|error| unreachable(&format!("asking where {topic}/{partition} ends"), &error))
    }

    /// Gives the committed records of `offsets`, and has waited for what was open in them.
    fn read(
        &self,
        topic: &str,
        partition: i32,
        offsets: std::ops::Range<i64>,
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), SinkError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let what = format!("reading {topic}/{partition}");
        let reader = self.reader("read_committed")?;
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(topic, partition, Offset::Offset(offsets.start));
        added.and_then(|()| reader.assign(&list)).map_err(|error| unreachable(&what, &error))?;
        let until = Instant::now() + READ_TIMEOUT;
        loop {
            match reader.poll(POLL) {
                Some(Ok(message)) => each(message.key().unwrap_or_default(), message.payload().unwrap_or_default()),
                // At an end that may still move: whatever is open behind it ends, or is ended.
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => return Err(unreachable(&what, &error)),
            }
            let position = reader.position().map_err(|error| unreachable(&what, &error))?;
            let position = position.find_partition(topic, partition).map(|place| place.offset());
            if matches!(position, Some(Offset::Offset(at)) if at >= offsets.end) {
                return Ok(());
            }
            if Instant::now() >= until {
                let text =
                    format!("Kafka: {what}: stood at {position:?} for {READ_TIMEOUT:?}, its end is {}", offsets.end);
                return Err(SinkError::Unreachable(text));
            }
        }
    }
}

pub fn unreachable(doing: &str, error: &KafkaError) -> SinkError {
    SinkError::Unreachable(format!("Kafka: {doing}: {error}"))
}

fn broken(error: &KafkaError) -> SinkError {
    SinkError::Broken(format!("Kafka: {error}"))
}
