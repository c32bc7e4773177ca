//! Drives. A connection that asks: for the cluster, for topics, for what stands in a partition. Every call has an end.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::client::{broken, log};
use super::following::Wait;
use super::rights;
use crate::export::SinkError;

/// A broker that is there answers far sooner. Also what a probe of one that is away costs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// For reading to the end of a partition that others may have transactions open in: their time-out, and some.
const READ_TIMEOUT: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(20);

/// What librdkafka heard of brokers, and so many of them are kept until somebody asks.
const REASONS_MAX: usize = 16;
/// Events of a connection that are looked at for a reason: each is an error or a line of its log.
const EVENTS_MAX: usize = 256;

/// A call to librdkafka ends with "timed out" or "transport failure"; what it heard meanwhile says why.
struct Reason {
    code: Option<RDKafkaErrorCode>,
    text: String,
}

struct Hears {
    reasons: SyncSender<Reason>,
}

impl ClientContext for Hears {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("librdkafka: {error}: {reason}");
        // The first few are enough.
        let _ = self.reasons.try_send(Reason { code: error.rdkafka_error_code(), text: reason.to_owned() });
    }
}

impl ConsumerContext for Hears {}

/// Is given a record: its offset, key and payload.
pub type Each<'a> = dyn FnMut(i64, &[u8], &[u8]) + 'a;

pub struct Reader {
    consumer: BaseConsumer<Hears>,
    reasons: Receiver<Reason>,
}

impl Reader {
    /// Reads what is committed.
    pub fn of_committed(mut config: ClientConfig) -> Result<Reader, SinkError> {
        // Consumers that are assigned their partitions join no group, but must name one.
        config.set("group.id", rights::GROUP).set("enable.auto.commit", "false");
        Reader::new(config, "read_committed")
    }

    /// Reads no records, but knows where all of them end. Without a group its end takes no time.
    pub fn of_all(config: ClientConfig) -> Result<Reader, SinkError> {
        Reader::new(config, "read_uncommitted")
    }

    fn new(mut config: ClientConfig, isolation: &str) -> Result<Reader, SinkError> {
        config.set("isolation.level", isolation).set("enable.partition.eof", "true");
        // Offsets that are not there any more are an error, and nothing is passed over for them.
        config.set("auto.offset.reset", "error");
        // What is read is there, or the broker says that it is not: nothing is waited for in a fetch.
        config.set("fetch.wait.max.ms", "10").set("reconnect.backoff.ms", "20");
        let (told, reasons) = sync_channel(REASONS_MAX);
        let consumer = config.create_with_context(Hears { reasons: told }).map_err(|error| broken(&error))?;
        Ok(Reader { consumer, reasons })
    }

    /// The cluster's id. Fails soon where no broker answers, so that nothing larger is tried.
    pub fn cluster(&self) -> Result<String, SinkError> {
        let answer = self.consumer.fetch_metadata(None, ANSWER_TIMEOUT);
        answer.map_err(|error| self.unreachable("asking for the cluster", &error))?;
        let cluster = self.consumer.client().fetch_cluster_id(ANSWER_TIMEOUT);
        cluster.ok_or_else(|| SinkError::Unreachable("Kafka: no broker names its cluster".to_owned()))
    }

    pub fn brokers(&self) -> Result<usize, SinkError> {
        let answer = self.consumer.fetch_metadata(None, ANSWER_TIMEOUT);
        Ok(answer.map_err(|error| self.unreachable("asking for brokers", &error))?.brokers().len())
    }

    /// Replicas of each partition of a topic; empty where there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<Vec<usize>, SinkError> {
        let what = format!("asking for the topic {topic}");
        let metadata: Metadata = self
            .consumer
            .fetch_metadata(Some(topic), ANSWER_TIMEOUT)
            .map_err(|error| self.unreachable(&what, &error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(Vec::new()) };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(found.partitions().iter().map(|partition| partition.replicas().len()).collect()),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(Vec::new()),
            // It is being made, has no leader just now, or may not be asked for.
            Some(code) => Err(self.unreachable(&what, &KafkaError::MetadataFetch(code))),
        }
    }

    pub fn ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), SinkError> {
        let ends = self.consumer.fetch_watermarks(topic, partition, ANSWER_TIMEOUT);
        ends.map_err(|error| self.unreachable(&format!("asking where {topic}/{partition} ends"), &error))
    }

    /// Gives the records of `offsets`. Returns where it ended: at their end, or, where nobody is waited for, before the first
    /// open transaction.
    pub fn read(
        &self,
        (topic, partition): (&str, i32),
        offsets: Range<i64>,
        wait: Wait,
        each: &mut Each<'_>,
    ) -> Result<i64, SinkError> {
        if offsets.is_empty() {
            return Ok(offsets.start);
        }
        let ended = self.follow((topic, partition), offsets, wait, each);
        // Else it goes on fetching what nobody asks for.
        let _ = self.consumer.unassign();
        ended
    }

    fn follow(
        &self,
        (topic, partition): (&str, i32),
        offsets: Range<i64>,
        wait: Wait,
        each: &mut Each<'_>,
    ) -> Result<i64, SinkError> {
        let (consumer, what) = (&self.consumer, format!("reading {topic}/{partition}"));
        // Who leads it is then known, and not looked for at the next turn of a second's clock.
        consumer.fetch_metadata(Some(topic), ANSWER_TIMEOUT).map_err(|error| self.unreachable(&what, &error))?;
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(topic, partition, Offset::Offset(offsets.start));
        added.and_then(|()| consumer.assign(&list)).map_err(|error| self.unreachable(&what, &error))?;
        let until = Instant::now() + READ_TIMEOUT;
        let mut at = offsets.start;
        loop {
            let mut no_more = false;
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    at = at.max(message.offset() + 1);
                    each(message.offset(), message.key().unwrap_or_default(), message.payload().unwrap_or_default());
                }
                // At an end that may still move: whatever is open behind it ends, or is ended.
                Some(Err(KafkaError::PartitionEOF(_))) => no_more = true,
                None => {}
                // Of one broker among several; what it holds up is seen by the time.
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_of_a_connection) => {}
                Some(Err(error)) => return Err(self.unreachable(&what, &error)),
            }
            let position = consumer.position().map_err(|error| self.unreachable(&what, &error))?;
            // Markers, and what was aborted, move it without a message.
            if let Some(Offset::Offset(position)) =
                position.find_partition(topic, partition).map(|place| place.offset())
            {
                at = at.max(position);
            }
            if wait.is_over(at, offsets.end, no_more) {
                return Ok(at);
            }
            if Instant::now() >= until {
                return Err(SinkError::Unreachable(format!(
                    "Kafka: {what}: stood at {at} for {READ_TIMEOUT:?}, its end is {}: a transaction in it stays open. If nobody \
                     runs who could have begun it, `kafka-transactions.sh find-hanging` and `abort` end it",
                    offsets.end
                )));
            }
        }
    }

    /// With the most telling of what was heard: a broker that refuses says more than one that is silent.
    fn unreachable(&self, doing: &str, error: &KafkaError) -> SinkError {
        for _ in 0..EVENTS_MAX {
            // Only for the context, which is told of each.
            drop(self.consumer.poll(Duration::ZERO));
        }
        let reason = self.reasons.try_iter().max_by_key(|reason| match reason.code {
            Some(RDKafkaErrorCode::Authentication) => 4,
            Some(RDKafkaErrorCode::SSL) => 3,
            Some(RDKafkaErrorCode::Resolve) => 2,
            Some(RDKafkaErrorCode::AllBrokersDown) | None => 0,
            Some(_) => 1,
        });
        let heard = reason.map(|reason| format!(": {}", reason.text)).unwrap_or_default();
        SinkError::Unreachable(format!("Kafka: {doing}: {error}{heard}{}", rights::missing(error)))
    }
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
