//! Drives. Where an edge's records go: a partition of each topic, chosen at the first contact and remembered.

use super::reader::{Reader, edges};
use crate::config::KafkaConfig;
use crate::export::SinkError;
use crate::export::mirror::Place;

/// What is remembered against where the brokers are.
pub fn same(place: &Place, cluster: &str) -> Result<(), SinkError> {
    if place.cluster == cluster {
        return Ok(());
    }
    Err(SinkError::Foreign(format!(
        "this directory exported to the Kafka cluster {}, the brokers are of {cluster}: name those in --kafka-brokers; or \
         `tollgate adopt` shows what going on there would mean",
        place.cluster
    )))
}

/// Where this edge's checkpoint is already; else a partition that no other edge uses, so that none waits for another's
/// transactions.
pub fn choose(
    all: &Reader,
    committed: &Reader,
    kafka: &KafkaConfig,
    edge_id: &str,
    cluster: String,
) -> Result<Place, SinkError> {
    let (topic_partials, topic_checkpoints) = (kafka.topic_partials.clone(), kafka.topic_checkpoints.clone());
    let count = |topic: &str| -> Result<i32, SinkError> {
        match all.partitions(topic)?.len() {
            0 => Err(SinkError::Unreachable(format!(
                "Kafka: the topic {topic} does not exist; make it with `tollgate topics create`"
            ))),
            count => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
        }
    };
    let (partials, checkpoints) = (count(&topic_partials)?, count(&topic_checkpoints)?);
    let mut free = None;
    let mut ours = None;
    for partition in 0..checkpoints {
        let edges = edges(all, committed, &topic_checkpoints, partition)?;
        if edges.contains_key(edge_id.as_bytes()) {
            ours = Some(partition);
            break;
        }
        if edges.is_empty() && free.is_none() {
            free = Some(partition);
        }
    }
    let partition = ours.or(free).unwrap_or_else(|| {
        let hash = xxhash_rust::xxh3::xxh3_64(edge_id.as_bytes());
        let partition = (hash % checkpoints as u64) as i32;
        tracing::warn!(
            topic = topic_checkpoints,
            partition,
            "every partition is some edge's already: edges that share one wait for each other's transactions. Give the topic one \
             partition for each edge"
        );
        partition
    });
    Ok(Place {
        cluster,
        topic_partials,
        topic_checkpoints,
        partition_partials: partition % partials,
        partition_checkpoints: partition,
    })
}
