//! Drives. Where an edge's records go: a partition of each topic, chosen at the first contact and remembered.

use super::following::Wait;
use super::reader::Reader;
use super::watch::Watch;
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

/// Whether both topics have the partitions that are remembered.
pub fn is_there(all: &Reader, place: &Place) -> Result<bool, SinkError> {
    for (topic, partition) in
        [(&place.topic_partials, place.partition_partials), (&place.topic_checkpoints, place.partition_checkpoints)]
    {
        if all.partitions(topic)?.len() <= usize::try_from(partition).unwrap_or(usize::MAX) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A topic that was made anew with fewer partitions would be waited for in vain.
pub fn refuse_missing(all: &Reader, place: &Place) -> Result<(), SinkError> {
    if is_there(all, place)? {
        return Ok(());
    }
    let Place { topic_partials, topic_checkpoints, partition_partials, partition_checkpoints, .. } = place;
    Err(SinkError::Foreign(format!(
        "Kafka: this directory exported to partition {partition_partials} of {topic_partials} and {partition_checkpoints} of \
         {topic_checkpoints}, and one of them is not there: the topic was made anew, with fewer; `tollgate adopt` shows what \
         going on would mean"
    )))
}

/// Where this edge's checkpoint is, if it is in another partition than in `place`.
pub fn elsewhere(watch: &Watch, place: &Place, edge_id: &str, wait: Wait) -> Result<Option<Place>, SinkError> {
    let count = |topic: &str| Ok(i32::try_from(watch.all.partitions(topic)?.len()).unwrap_or(i32::MAX));
    let (partials, checkpoints) = (count(&place.topic_partials)?, count(&place.topic_checkpoints)?);
    for partition in (0..checkpoints).filter(|partition| *partition != place.partition_checkpoints) {
        let other = Place {
            partition_partials: partition % partials.max(1),
            partition_checkpoints: partition,
            ..place.clone()
        };
        if watch.look_back(&other, edge_id, wait)?.is_some() {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

/// Where this edge's checkpoint is already; else a partition that no other edge uses, so that none waits for another's
/// transactions.
pub fn choose(watch: &Watch, kafka: &KafkaConfig, edge_id: &str, cluster: String) -> Result<Place, SinkError> {
    let (topic_partials, topic_checkpoints) = (kafka.topic_partials.clone(), kafka.topic_checkpoints.clone());
    let count = |topic: &str| -> Result<i32, SinkError> {
        match watch.all.partitions(topic)?.len() {
            0 => Err(SinkError::Unreachable(format!(
                "Kafka: the topic {topic} does not exist; make it with `tollgate topics create`"
            ))),
            count => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
        }
    };
    let (partials, checkpoints) = (count(&topic_partials)?, count(&topic_checkpoints)?);
    let mut free = None;
    let mut ours = None;
    // Edges that begin at the same moment see none of each other: each looks from a place of its own.
    let hash = xxhash_rust::xxh3::xxh3_64(edge_id.as_bytes());
    let first = (hash % checkpoints as u64) as i32;
    for partition in (first..checkpoints).chain(0..first) {
        let edges = watch.edges(&topic_checkpoints, partition)?;
        if edges.contains(edge_id.as_bytes()) {
            ours = Some(partition);
            break;
        }
        if edges.is_empty() && free.is_none() {
            free = Some(partition);
        }
    }
    let partition = ours.or(free).unwrap_or_else(|| {
        tracing::warn!(
            topic = topic_checkpoints,
            partition = first,
            "every partition is some edge's already: edges that share one wait for each other's transactions. Give the topic one \
             partition for each edge"
        );
        first
    });
    Ok(Place {
        cluster,
        topic_partials,
        topic_checkpoints,
        partition_partials: partition % partials,
        partition_checkpoints: partition,
    })
}
