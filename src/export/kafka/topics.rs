//! Drives. The topics: made as the protocol needs them, and checked at each start.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{Client, unreachable};
use crate::export::SinkError;

const ADMIN_TIMEOUT: Duration = Duration::from_secs(15);

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

type Topics = Vec<(String, Vec<usize>, BTreeMap<String, String>)>;

/// Makes those that are missing; returns their names.
pub fn create_topics(client: &Client, plan: &TopicsPlan) -> Result<Vec<String>, SinkError> {
    let kafka = &client.kafka;
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
    let results = wait(admin(client)?.create_topics(&topics, &options()))?
        .map_err(|error| unreachable("making topics", &error))?;
    let mut made = Vec::new();
    for result in results {
        match result {
            Ok(name) => made.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(SinkError::Foreign(format!("the topic {name} cannot be made: {code}"))),
        }
    }
    Ok(made)
}

/// Looks at all topics that are named.
pub fn check_topics(client: &Client) -> Result<Vec<TopicFinding>, SinkError> {
    let kafka = &client.kafka;
    let names = [&kafka.topic_partials, &kafka.topic_checkpoints, &kafka.topic_raw];
    let names = names.into_iter().filter(|name| !name.is_empty());
    let mut topics = Topics::new();
    let mut findings = Vec::new();
    for name in names {
        let partitions = client.partitions(name)?;
        if partitions.is_empty() {
            let text = "does not exist; `tollgate topics create` makes it".to_owned();
            findings.push(TopicFinding { topic: name.clone(), refused: true, text });
            continue;
        }
        match values(client, name)? {
            Some(values) => topics.push((name.clone(), partitions, values)),
            None => findings.push(TopicFinding {
                topic: name.clone(),
                refused: false,
                text: "its configuration may not be read: that it is safe is not known".to_owned(),
            }),
        }
    }
    for (topic, partitions, values) in topics {
        let checkpoints = topic == kafka.topic_checkpoints;
        let judged = judge(checkpoints, &partitions, &values);
        findings.extend(judged.into_iter().map(|(refused, text)| TopicFinding { topic: topic.clone(), refused, text }));
    }
    Ok(findings)
}

/// At a start: refuses what would lose a checkpoint, and warns of what could lose what Kafka took.
pub fn refuse_unsafe(client: &Client) -> Result<(), SinkError> {
    for TopicFinding { topic, refused, text } in check_topics(client)? {
        if refused {
            return Err(SinkError::Foreign(format!("Kafka: the topic {topic}: {text}")));
        }
        tracing::warn!(topic, "{text}");
    }
    Ok(())
}

/// What is wrong with one topic, and whether that is refused.
fn judge(checkpoints: bool, partitions: &[usize], values: &BTreeMap<String, String>) -> Vec<(bool, String)> {
    let value = |name: &str| values.get(name).map_or("", String::as_str);
    let mut found = Vec::new();
    let policy = value("cleanup.policy");
    if checkpoints && policy != "compact" {
        let text = format!(
            "cleanup.policy is {policy:?}, and must be \"compact\": else the checkpoint of an edge that is away is deleted, and its \
             clicks would be counted again"
        );
        found.push((true, text));
    }
    if !checkpoints && policy.contains("compact") {
        let text =
            format!("cleanup.policy is {policy:?}, and must be \"delete\": its records share a key, and all count");
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

/// A topic's configuration; none where we may not read it.
fn values(client: &Client, topic: &str) -> Result<Option<BTreeMap<String, String>>, SinkError> {
    let resource = [ResourceSpecifier::Topic(topic)];
    let described = wait(admin(client)?.describe_configs(&resource, &options()))?;
    let described = described.map_err(|error| unreachable(&format!("reading how {topic} is kept"), &error))?;
    match described.into_iter().next() {
        Some(Ok(resource)) => {
            let value = |entry: rdkafka::admin::ConfigEntry| Some((entry.name, entry.value?));
            Ok(Some(resource.entries.into_iter().filter_map(value).collect()))
        }
        Some(Err(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)) | None => {
            Ok(None)
        }
        Some(Err(code)) => Err(unreachable(&format!("reading how {topic} is kept"), &KafkaError::AdminOp(code))),
    }
}

fn admin(client: &Client) -> Result<AdminClient<DefaultClientContext>, SinkError> {
    client.config().create().map_err(|error| SinkError::Broken(format!("Kafka: {error}")))
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

    #[test]
    fn what_loses_a_checkpoint_is_refused_and_what_could_lose_counts_is_said() {
        let safe = [("cleanup.policy", "compact"), ("min.insync.replicas", "2")];
        assert_eq!(judge(true, &[3, 3], &values(&safe)), []);
        for policy in ["delete", "compact,delete"] {
            let found = judge(true, &[3], &values(&[("cleanup.policy", policy), ("min.insync.replicas", "2")]));
            assert!(found.len() == 1 && found[0].0 && found[0].1.contains(policy), "{found:?}");
        }
        let compacted = judge(false, &[3], &values(&safe));
        assert!(compacted.len() == 1 && compacted[0].0, "partials share a key: {compacted:?}");
        let weak = values(&[("cleanup.policy", "delete"), ("unclean.leader.election.enable", "true")]);
        let found = judge(false, &[1], &weak);
        assert!(found.len() == 2 && found.iter().all(|(refused, _)| !refused), "{found:?}");
    }
}
