//! Drives. The topics: made as the protocol needs them, and checked at each start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigEntry, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{Client, broken, unreachable};
use super::reader::Reader;
use crate::export::SinkError;

const ADMIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Brokers hear a little later of a topic that was made.
const HEARD_OF_TIMEOUT: Duration = Duration::from_secs(10);
const HEARD_OF_POLL: Duration = Duration::from_millis(50);

/// Kafka's own default: a batch of ours, and what frames it.
const BATCH_BYTES_ROOM: u64 = 1_048_588;

const NOT_READ: &str = "its configuration is not shown, for the right DescribeConfigs on it is missing (OPERATING.md, Rights): that it \
                        is safe is not known";

/// The topics to be made.
#[derive(Clone, Copy, Debug)]
pub struct TopicsPlan {
    pub partitions: i32,
    /// Edges that will export: a partition of checkpoints each.
    pub edges: i32,
    pub replication: i32,
}

/// What a look at a topic found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFinding {
    pub topic: String,
    /// `false`: it works, and could lose what was acknowledged.
    pub refused: bool,
    pub text: String,
}

/// Makes those that are missing; returns what was made, and in what the others differ from the plan.
pub fn create_topics(client: &Client, plan: &TopicsPlan) -> Result<(Vec<String>, Vec<TopicFinding>), SinkError> {
    let (kafka, all) = (&client.kafka, client.reads_all()?);
    let brokers = all.brokers()?;
    if usize::try_from(plan.replication).is_ok_and(|replicas| replicas > brokers) {
        let replicas = plan.replication;
        return Err(SinkError::Foreign(format!(
            "Kafka: --replication {replicas}, but the cluster has {brokers} brokers: add brokers, or say --replication {brokers}, \
             with which a broker that fails takes what it holds with it"
        )));
    }
    // More than half of the replicas have what is committed, where there are that many.
    let in_sync = (plan.replication / 2 + 1).to_string();
    let new = |name, partitions| {
        NewTopic::new(name, partitions, TopicReplication::Fixed(plan.replication)).set("min.insync.replicas", &in_sync)
    };
    let mut topics = vec![
        new(&kafka.topic_partials, plan.partitions),
        new(&kafka.topic_checkpoints, plan.edges)
            .set("cleanup.policy", "compact")
            // A checkpoint a second: without these a start would read a week of them.
            .set("segment.ms", "3600000")
            .set("min.cleanable.dirty.ratio", "0.1"),
    ];
    if !kafka.topic_raw.is_empty() {
        topics.push(new(&kafka.topic_raw, plan.partitions));
    }
    let (mut made, mut other) = (Vec::new(), Vec::new());
    let mut missing = Vec::new();
    for topic in &topics {
        let found = all.partitions(topic.name)?.len();
        if found == 0 {
            missing.push(topic);
        } else if i32::try_from(found) != Ok(topic.num_partitions) {
            let text = format!("has {found} partitions, {} were asked for: it was not changed", topic.num_partitions);
            other.push(TopicFinding { topic: topic.name.to_owned(), refused: false, text });
        }
    }
    if missing.is_empty() {
        return Ok((made, other));
    }
    let results = wait(admin(client)?.create_topics(missing, &options()))?
        .map_err(|error| unreachable("making topics", &error))?;
    for result in results {
        match result {
            Ok(name) => made.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(SinkError::Foreign(format!("Kafka: the topic {name} cannot be made: {code}")));
            }
        }
    }
    wait_for(&all, &made)?;
    Ok((made, other))
}

fn wait_for(all: &Reader, topics: &[String]) -> Result<(), SinkError> {
    let until = Instant::now() + HEARD_OF_TIMEOUT;
    for topic in topics {
        while !all.partitions(topic).is_ok_and(|partitions| !partitions.is_empty()) {
            if Instant::now() >= until {
                let text =
                    format!("Kafka: the topic {topic} was made, and no broker knows it after {HEARD_OF_TIMEOUT:?}");
                return Err(SinkError::Unreachable(text));
            }
            std::thread::park_timeout(HEARD_OF_POLL);
        }
    }
    Ok(())
}

/// Looks at all topics that are named.
pub fn check_topics(client: &Client, all: &Reader) -> Result<Vec<TopicFinding>, SinkError> {
    let kafka = &client.kafka;
    let names = [&kafka.topic_partials, &kafka.topic_checkpoints, &kafka.topic_raw];
    let mut findings = Vec::new();
    let mut topics = Vec::new();
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        let partitions = all.partitions(name)?;
        if partitions.is_empty() {
            let text = "does not exist; `tollgate topics create` makes it".to_owned();
            findings.push(TopicFinding { topic: name.clone(), refused: true, text });
        } else {
            topics.push((name, partitions));
        }
    }
    let names: Vec<&str> = topics.iter().map(|(name, _)| name.as_str()).collect();
    for ((topic, partitions), values) in topics.iter().zip(values(client, &names)?) {
        let judged = match values {
            Some(values) => judge(**topic == kafka.topic_checkpoints, partitions, client.batch_bytes(), &values),
            None => vec![(false, NOT_READ.to_owned())],
        };
        let finding = |(refused, text)| TopicFinding { topic: (*topic).clone(), refused, text };
        findings.extend(judged.into_iter().map(finding));
    }
    Ok(findings)
}

/// At a start: refuses what would lose a checkpoint, and warns of what could lose what Kafka took.
pub fn refuse_unsafe(client: &Client, all: &Reader) -> Result<(), SinkError> {
    for TopicFinding { topic, refused, text } in check_topics(client, all)? {
        if refused {
            return Err(SinkError::Foreign(format!("Kafka: the topic {topic}: {text}")));
        }
        tracing::warn!(topic, "{text}");
    }
    Ok(())
}

/// What is wrong with one topic, and whether that is refused.
fn judge(
    checkpoints: bool,
    partitions: &[usize],
    batch_bytes: u64,
    values: &BTreeMap<String, String>,
) -> Vec<(bool, String)> {
    let value = |name: &str| values.get(name).map_or("", String::as_str);
    let mut found = Vec::new();
    let policy = value("cleanup.policy");
    if checkpoints && policy != "compact" {
        let text = format!(
            "cleanup.policy is {policy:?}, and must be \"compact\": else the checkpoint of an edge that is away is deleted, and its \
             clicks would be counted again. Set it with Kafka's kafka-configs.sh --alter --entity-type topics --entity-name TOPIC \
             --add-config cleanup.policy=compact"
        );
        found.push((true, text));
    }
    if let Some(most) = value("max.message.bytes").parse().ok().filter(|most: &u64| *most < batch_bytes) {
        let text = format!(
            "max.message.bytes is {most}, and batches have up to {batch_bytes}: the broker would refuse them for ever. Raise it to \
             {BATCH_BYTES_ROOM} or more; or say --kafka-set batch.size={most}, if every record is well below that"
        );
        found.push((true, text));
    }
    if !checkpoints && policy.contains("compact") {
        let text = format!(
            "cleanup.policy is {policy:?}, and must be \"delete\": its records share keys, and all count. Set it with Kafka's \
                 kafka-configs.sh --alter --entity-type topics --entity-name TOPIC --add-config cleanup.policy=delete"
        );
        found.push((true, text));
    }
    let replicas = partitions.iter().copied().min().unwrap_or(0);
    let in_sync = value("min.insync.replicas").parse::<usize>().unwrap_or(1);
    if replicas < 3 || in_sync < 2 {
        let text = format!(
            "{replicas} replicas, min.insync.replicas {in_sync}: a broker that fails can take committed counts with it; 3 and 2 \
             survive one"
        );
        found.push((false, text));
    }
    if value("unclean.leader.election.enable") == "true" {
        let text = "unclean.leader.election.enable is true: a replica that is behind may become the leader, and committed counts \
                    are gone";
        found.push((false, text.to_owned()));
    }
    found
}

/// The configuration of each topic; none where we may not read it.
fn values(client: &Client, topics: &[&str]) -> Result<Vec<Option<BTreeMap<String, String>>>, SinkError> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    let what = "reading how topics are kept";
    let resources: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let described = wait(admin(client)?.describe_configs(&resources, &options()))?;
    let described = described.map_err(|error| unreachable(what, &error))?;
    // Answers are in the order of the questions.
    let values = |answer| match answer {
        Ok(resource) => {
            let resource: ConfigResource = resource;
            let value = |entry: ConfigEntry| Some((entry.name, entry.value?));
            let values: BTreeMap<String, String> = resource.entries.into_iter().filter_map(value).collect();
            // The crate gives a topic that it was refused as one that has no configuration: every topic has one.
            Ok(Some(values).filter(|values| values.contains_key("cleanup.policy")))
        }
        Err(code) => Err(unreachable(what, &KafkaError::AdminOp(code))),
    };
    described.into_iter().map(values).collect()
}

fn admin(client: &Client) -> Result<AdminClient<DefaultClientContext>, SinkError> {
    client.config().create().map_err(|error| broken(&error))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT)).operation_timeout(Some(ADMIN_TIMEOUT))
}

/// librdkafka's own threads do the work; somebody has to wait for them.
fn wait<F: Future>(future: F) -> Result<F::Output, SinkError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| SinkError::Broken(format!("a runtime to ask Kafka in: {error}")))?;
    Ok(runtime.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn judged(checkpoints: bool, partitions: &[usize], values: &BTreeMap<String, String>) -> Vec<(bool, String)> {
        judge(checkpoints, partitions, 1_000_000, values)
    }

    #[test]
    fn what_loses_a_checkpoint_is_refused_and_what_could_lose_counts_is_said() {
        let safe = [("cleanup.policy", "compact"), ("min.insync.replicas", "2")];
        assert_eq!(judged(true, &[3, 3], &values(&safe)), []);
        let small = [("cleanup.policy", "delete"), ("min.insync.replicas", "2"), ("max.message.bytes", "30000")];
        let found = judged(false, &[3], &values(&small));
        assert!(found.len() == 1 && found[0].0 && found[0].1.contains("30000"), "no batch would fit: {found:?}");
        for policy in ["delete", "compact,delete"] {
            let found = judged(true, &[3], &values(&[("cleanup.policy", policy), ("min.insync.replicas", "2")]));
            assert!(found.len() == 1 && found[0].0 && found[0].1.contains(policy), "{found:?}");
        }
        let compacted = judged(false, &[3], &values(&safe));
        assert!(compacted.len() == 1 && compacted[0].0, "partials share a key: {compacted:?}");
        let weak = values(&[("cleanup.policy", "delete"), ("unclean.leader.election.enable", "true")]);
        let found = judged(false, &[1], &weak);
        assert!(found.len() == 2 && found.iter().all(|(refused, _)| !refused), "{found:?}");
    }
}
