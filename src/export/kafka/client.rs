//! Drives. Connections to Kafka: producers that fence, and readers of checkpoints. Every call has an end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{DeliveryResult, NoCustomPartitioner, ProducerContext, ThreadedProducer};

use crate::config::KafkaConfig;
use crate::export::SinkError;

/// A broker that is there answers far sooner. Also what a probe of one that is away costs.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

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
pub struct Quiet;

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

pub type Reader = BaseConsumer<Quiet>;

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

    pub fn reader(&self, isolation: &str) -> Result<Reader, SinkError> {
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
}

pub fn unreachable(doing: &str, error: &KafkaError) -> SinkError {
    SinkError::Unreachable(format!("Kafka: {doing}: {error}"))
}

fn broken(error: &KafkaError) -> SinkError {
    SinkError::Broken(format!("Kafka: {error}"))
}
