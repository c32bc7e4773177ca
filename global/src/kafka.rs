//! Drives. The consumer of the topic of partials: what is committed, from offsets that the store holds. Nothing else of the global
//! tier knows rdkafka. Runs on the consumer's thread, whose calls block for a bounded time.

mod high;
mod topic_id;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::assembly::Kind;
use crate::records::Place;

/// A broker that is there answers far sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// For questions in the middle of consuming: what is not answered in time is asked again later.
const ASIDE_TIMEOUT: Duration = Duration::from_secs(1);
/// What librdkafka fetches ahead of what is read.
const QUEUED_KBYTES: u32 = 64 << 10;

/// Where the partials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    pub topic: String,
    /// Of librdkafka; nothing that the protocol decides.
    pub properties: Vec<(String, String)>,
    /// What transactions that are not read to their end may hold in memory; beyond, one partition at a time is read. And what those may that
    /// are: with so much they are committed.
    pub unfinished_bytes_max: usize,
}

/// Why nothing was consumed.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// Try again: Kafka is away, or what was asked for is being made.
    #[error("Kafka: {0}")]
    Away(String),
    /// A person is needed: to go on would be to guess.
    #[error("Kafka: {0}")]
    Halt(String),
}

/// What a poll came to.
#[derive(Debug)]
pub enum Polled<'a> {
    /// A record of the topic; None: one that is neither a partial nor an end record.
    Record {
        place: Place,
        kind: Option<Kind>,
        edge: &'a [u8],
        payload: &'a [u8],
    },
    /// Everything that is committed of a partition was read; what comes next will have this offset or a later one. At the end of its
    /// log nothing is undecided; else that begins here.
    AtEnd {
        partition: i32,
        next_offset: Option<i64>,
        /// Up to where it has records, committed or not.
        high: Option<i64>,
    },
    /// A partition does not have any more what was to be read next of it; which one the client does not say. It gives nothing more, and
    /// this is said once.
    Lacking(String),
    Nothing,
}

/// Tells connections' troubles to who waits for them.
struct Hears {
    reasons: SyncSender<String>,
}

impl ClientContext for Hears {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, "librdkafka: {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("librdkafka: {error}: {reason}");
        // The first few are enough.
        let _ = self.reasons.try_send(reason.to_owned());
    }
}

impl ConsumerContext for Hears {}

/// A connection that reads what is committed. It joins no group and stores nothing in Kafka.
pub struct Reader {
    consumer: BaseConsumer<Hears>,
    reasons: Receiver<String>,
    topic: String,
    assigned: BTreeMap<i32, i64>,
}

impl Reader {
    /// Makes a connection; nothing is asked of it yet.
    pub fn new(settings: &KafkaSettings) -> Result<Reader, ConsumeError> {
        let mut config = ClientConfig::new();
        config.set("client.id", "tollgate-global").set("reconnect.backoff.max.ms", "2000");
        config.set("socket.keepalive.enable", "true").set("fetch.wait.max.ms", "100");
        // As long as it is full, and no longer: a second, as librdkafka has it, is longer than what is queued lasts.
        config.set("fetch.queue.backoff.ms", "10");
        config.set("queued.max.messages.kbytes", QUEUED_KBYTES.to_string()).set("check.crcs", "true");
        for (key, value) in &settings.properties {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &settings.brokers);
        // Consumers that are assigned their partitions join no group, but must name one.
        config.set("group.id", "tollgate-global").set("enable.auto.commit", "false");
        config.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        // An offset that is not there any more is never replaced by another.
        config.set("auto.offset.reset", "error");
        let (told, reasons) = sync_channel(16);
        let consumer = config
            .create_with_context(Hears { reasons: told })
            .map_err(|error| ConsumeError::Halt(error.to_string()))?;
        Ok(Reader { consumer, reasons, topic: settings.topic.clone(), assigned: BTreeMap::new() })
    }

    /// The cluster's id.
    pub fn cluster(&self) -> Result<String, ConsumeError> {
        self.consumer
            .fetch_metadata(None, ANSWER_TIMEOUT)
            .map_err(|error| self.away("asking for the cluster", &error))?;
        let cluster = self.consumer.client().fetch_cluster_id(ANSWER_TIMEOUT);
        cluster.ok_or_else(|| ConsumeError::Away("no broker names its cluster".to_owned()))
    }

    /// The partitions of the topic, whether each has a leader; none where there is no topic.
    pub fn partitions(&self) -> Result<Vec<bool>, ConsumeError> {
        let doing = format!("asking for the topic {}", self.topic);
        let answer = self.consumer.fetch_metadata(Some(&self.topic), ANSWER_TIMEOUT);
        let metadata = answer.map_err(|error| self.away(&doing, &error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == self.topic) else {
            return Ok(Vec::new());
        };
        let mut led = vec![false; found.partitions().len()];
        for partition in found.partitions().iter().filter(|partition| partition.leader() >= 0) {
            if let Some(is_led) = led.get_mut(partition.id() as usize) {
                *is_led = true;
            }
        }
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(led),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(Vec::new()),
            Some(code) => Err(self.away(&doing, &KafkaError::MetadataFetch(code))),
        }
    }

    /// The id that the cluster gave the topic; None: it gives none, or there is no such topic.
    pub fn topic_id(&self) -> Result<Option<String>, ConsumeError> {
        let asked = topic_id::topic_id(self.consumer.client(), &self.topic, self.timeout());
        asked.map_err(|error| self.away(&format!("asking for the id of the topic {}", self.topic), &error))
    }

    /// The first offset that a partition still has, and the one after its last.
    pub fn ends(&self, partition: i32, timeout: Duration) -> Result<(i64, i64), ConsumeError> {
        let ends = self.consumer.fetch_watermarks(&self.topic, partition, timeout);
        ends.map_err(|error| self.away(&format!("asking where {}/{partition} ends", self.topic), &error))
    }

    /// These partitions give nothing until [`Reader::resume`].
    pub fn pause(&self, partitions: &[i32]) -> Result<(), ConsumeError> {
        self.consumer.pause(&self.list(partitions)).map_err(|error| self.away("pausing partitions", &error))
    }

    pub fn resume(&self, partitions: &[i32]) -> Result<(), ConsumeError> {
        self.consumer.resume(&self.list(partitions)).map_err(|error| self.away("resuming partitions", &error))
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for &partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }

    pub fn is_reading(&self) -> bool {
        !self.assigned.is_empty()
    }

    /// How long a question may take now.
    pub fn timeout(&self) -> Duration {
        if self.assigned.is_empty() { ANSWER_TIMEOUT } else { ASIDE_TIMEOUT }
    }

    /// Reads these partitions from these offsets, beside those that are being read.
    pub fn assign(&mut self, offsets: &BTreeMap<i32, i64>) -> Result<(), ConsumeError> {
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in offsets {
            let added = list.add_partition_offset(&self.topic, partition, Offset::Offset(offset));
            added.map_err(|error| ConsumeError::Halt(error.to_string()))?;
        }
        let assigned = if self.assigned.is_empty() {
            self.consumer.assign(&list)
        } else {
            self.consumer.incremental_assign(&list)
        };
        assigned.map_err(|error| self.away("assigning partitions", &error))?;
        self.assigned.extend(offsets);
        Ok(())
    }

    /// The next thing that came, within `timeout`; `take` is shown it.
    pub fn poll<T>(&self, timeout: Duration, take: impl FnOnce(Polled<'_>) -> T) -> Result<T, ConsumeError> {
        match self.consumer.poll(timeout) {
            None => Ok(take(Polled::Nothing)),
            Some(Ok(message)) => Ok(take(record(&message))),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                let high = high::high(self.consumer.client(), &self.topic, partition);
                Ok(take(Polled::AtEnd { partition, next_offset: self.position(partition), high }))
            }
            // Of one broker among several, and tried again; whether Kafka answers at all is asked now and then.
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_of_a_connection) => Ok(take(Polled::Nothing)),
            // Consumers must name a group; this one never joins it, and needs no right to it.
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
                Ok(take(Polled::Nothing))
            }
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_out_of_range) => {
                Ok(take(Polled::Lacking(self.lacking(&error))))
            }
            Some(Err(error)) => Err(self.failed(&error)),
        }
    }

    /// Behind control records and what was aborted, too: an offset before those may be deleted while nobody has anything to read.
    fn position(&self, partition: i32) -> Option<i64> {
        let positions = self.consumer.position().ok()?;
        match positions.find_partition(&self.topic, partition)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// Where that is not of what was read before.
    fn lacking(&self, error: &KafkaError) -> String {
        format!(
            "the topic {} no longer has what is to be read next ({error}): its retention deleted it unread, or the topic was emptied or \
             made anew; start again, which says what it has",
            self.topic
        )
    }

    fn failed(&self, error: &KafkaError) -> ConsumeError {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                ConsumeError::Halt(format!("the topic {}, or a partition of it, is gone ({error})", self.topic))
            }
            _ => self.away("reading", error),
        }
    }

    /// With what was heard last: a broker that refuses says more than one that is silent.
    fn away(&self, doing: &str, error: &KafkaError) -> ConsumeError {
        let heard = self.reasons.try_iter().last().map(|reason| format!(": {reason}")).unwrap_or_default();
        ConsumeError::Away(format!("{doing}: {error}{heard}"))
    }
}

fn record<'a>(message: &'a BorrowedMessage<'a>) -> Polled<'a> {
    let place = Place { partition: message.partition(), offset: message.offset() };
    let header = message.headers().and_then(|headers| headers.iter().find(|header| header.key == "type"));
    let kind = header.and_then(|header| header.value).and_then(Kind::of);
    let (edge, payload) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
    Polled::Record { place, kind, edge, payload }
}

fn is_out_of_range(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
}

fn is_of_a_connection(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::Authentication
    )
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

    /// librdkafka's own broker, with a topic of one partition: it keeps 5 MiB, and deletes what is older.
    pub struct Cluster {
        broker: MockCluster<'static, DefaultProducerContext>,
        topic: &'static str,
    }

    impl Cluster {
        pub fn new(topic: &'static str) -> Cluster {
            let broker = MockCluster::new(1).expect("a broker");
            broker.create_topic(topic, 1, 1).expect("a topic");
            Cluster { broker, topic }
        }

        pub fn brokers(&self) -> String {
            self.broker.bootstrap_servers()
        }

        /// So many records of 900 kB, one batch each: a broker deletes no less than a batch.
        pub fn write(&self, records: usize) {
            let producer: BaseProducer =
                ClientConfig::new().set("bootstrap.servers", self.brokers()).create().expect("a producer");
            let payload = vec![0; 900_000];
            for _ in 0..records {
                producer.send(BaseRecord::<(), _>::to(self.topic).payload(&payload)).expect("it has room for one");
                producer.flush(Duration::from_secs(30)).expect("taken");
            }
        }
    }
}
