//! Drives. What every connection to Kafka is told, and the producers that fence. Connections are of one use: after a doubt nothing
//! of an old one is asked again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{DeliveryResult, NoCustomPartitioner, ProducerContext, ThreadedProducer};

use super::reader::Reader;
use super::rights;
use crate::config::{KAFKA_FETCH_KBYTES, KAFKA_QUEUE_KBYTES, KAFKA_QUEUE_RECORDS, KafkaConfig};
use crate::export::SinkError;

/// Where `--kafka-set batch.size` says nothing else.
const BATCH_BYTES: u64 = 1_000_000;

/// How librdkafka marks a line of its log about a partition that was not added to a transaction, and what it says where a right
/// is missing.
const REFUSED_TO_A_TRANSACTION: &str = "ADDPARTS";
const NOT_AUTHORIZED: &str = "authorization failed";
/// Of the others of its request: which comes first is chance.
const NOT_ATTEMPTED: &str = "Operation not attempted";

/// Properties of librdkafka that cannot be: it says which, and why.
#[derive(Debug, thiserror::Error)]
#[error("--kafka-set: {0}")]
pub struct ClientError(String);

/// Counts what a transaction's records came to.
pub struct Reports {
    delivered: AtomicU64,
    failed: AtomicU64,
    /// Why one was not delivered, the first first.
    why: SyncSender<String>,
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
        // A partition that is refused to the transaction: nowhere else is it named, for its records are only given up.
        if facility == REFUSED_TO_A_TRANSACTION && !message.contains(NOT_ATTEMPTED) {
            let missing = if message.contains(NOT_AUTHORIZED) { rights::WRITE } else { "" };
            let _ = self.why.try_send(format!("{message}{missing}"));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("librdkafka: {error}: {reason}");
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = match result {
            Ok(_) => &self.delivered,
            Err((error, record)) => {
                let given_up = [RDKafkaErrorCode::PurgeQueue, RDKafkaErrorCode::PurgeInflight];
                // Of what the failure of another took along, nothing is to be learnt.
                if !error.rdkafka_error_code().is_some_and(|code| given_up.contains(&code)) {
                    let _ = self.why.try_send(format!("{}: {error}{}", record.topic(), rights::missing(error)));
                }
                &self.failed
            }
        };
        count.fetch_add(1, Ordering::Release);
    }
}

/// What librdkafka has to say is told where something comes of it; the rest is for those who look for it.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(?level, "librdkafka: {facility}: {message}");
}

/// Of one transaction.
pub struct Producer {
    pub kafka: ThreadedProducer<Reports>,
    /// Why a record was not delivered, where one was not.
    pub why: Receiver<String>,
}

/// Makes connections.
pub struct Client {
    pub kafka: KafkaConfig,
}

impl Client {
    /// Checks the properties as far as librdkafka does without a broker, and connects to nothing.
    pub fn new(kafka: &KafkaConfig) -> Result<Client, ClientError> {
        let client = Client { kafka: kafka.clone() };
        let mut config = client.config();
        config.remove("bootstrap.servers");
        // The consumer is not kept. A value that is refused may be a secret: only its name is told.
        let tried: Result<BaseConsumer, KafkaError> = config.create();
        match tried {
            Ok(_) => Ok(client),
            Err(KafkaError::ClientConfig(_, why, key, _)) => Err(ClientError(format!("{key}: {}", why.trim()))),
            Err(KafkaError::ClientCreation(why)) => Err(ClientError(why)),
            Err(error) => Err(ClientError(error.to_string())),
        }
    }

    /// What every connection has in common.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // Found at once when they are back, and not hammered until then.
        config.set("reconnect.backoff.max.ms", "2000").set("socket.keepalive.enable", "true");
        config.set("compression.type", "lz4").set("linger.ms", "5").set("batch.size", BATCH_BYTES.to_string());
        config.set("queue.buffering.max.messages", KAFKA_QUEUE_RECORDS.to_string());
        config.set("queue.buffering.max.kbytes", KAFKA_QUEUE_KBYTES.to_string());
        config.set("queued.max.messages.kbytes", KAFKA_FETCH_KBYTES.to_string());
        config.set("client.id", "tollgate");
        for (key, value) in &self.kafka.properties {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.kafka.brokers);
        config
    }

    /// The largest batch of records.
    pub fn batch_bytes(&self) -> u64 {
        self.config().get("batch.size").and_then(|text| text.parse().ok()).unwrap_or(BATCH_BYTES)
    }

    /// A new producer of the edge. Until `init_transactions` it fences nobody.
    pub fn producer(&self, edge_id: &str, transaction_timeout: Duration) -> Result<Producer, SinkError> {
        let mut config = self.config();
        config.set("transactional.id", transactional_id(edge_id, &self.kafka.topic_checkpoints));
        config.set("transaction.timeout.ms", transaction_timeout.as_millis().to_string());
        let (told, why) = sync_channel(1);
        let reports = Reports { delivered: AtomicU64::new(0), failed: AtomicU64::new(0), why: told };
        let kafka = config.create_with_context(reports).map_err(|error| broken(&error))?;
        Ok(Producer { kafka, why })
    }

    pub fn reads_all(&self) -> Result<Reader, SinkError> {
        Reader::of_all(self.config())
    }

    pub fn reads_committed(&self) -> Result<Reader, SinkError> {
        Reader::of_committed(self.config())
    }
}

/// Who writes the same checkpoint fences each other, and nobody else: neither name can hold an `@`. The topic of partials is not in
/// it, for two that name different ones write one checkpoint all the same.
fn transactional_id(edge_id: &str, topic_checkpoints: &str) -> String {
    format!("tollgate-{edge_id}@{topic_checkpoints}")
}

pub fn unreachable(doing: &str, error: &KafkaError) -> SinkError {
    SinkError::Unreachable(format!("Kafka: {doing}: {error}{}", rights::missing(error)))
}

pub fn broken(error: &KafkaError) -> SinkError {
    SinkError::Broken(format!("Kafka: {error}"))
}
