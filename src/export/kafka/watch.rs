//! Drives. Reading committed checkpoints: a partition is read up to where it ends for everybody.

use std::collections::BTreeSet;

use tollgate_wire::{Checkpoint, decode_checkpoint};

use super::client::Client;
use super::following::{Following, Wait};
use super::reader::Reader;
use crate::export::SinkError;
use crate::export::mirror::Place;

/// Two connections that ask, and how far the checkpoints of an edge were followed over them.
pub struct Watch {
    /// Knows where a partition ends, whatever is open in it.
    pub all: Reader,
    committed: Reader,
    followed: Option<Followed>,
}

struct Followed {
    place: Place,
    edge_id: String,
    read: Following,
}

impl Watch {
    pub fn connect(client: &Client) -> Result<Watch, SinkError> {
        Ok(Watch { all: client.reads_all()?, committed: client.reads_committed()?, followed: None })
    }

    /// The edge's last committed checkpoint, as of now.
    pub fn last_checkpoint(&mut self, place: &Place, edge_id: &str) -> Result<Option<Checkpoint>, SinkError> {
        let same = |followed: &Followed| &followed.place == place && followed.edge_id == edge_id;
        // A failure leaves nothing behind that is followed.
        let mut followed = self.followed.take().filter(same).unwrap_or_else(|| Followed {
            place: place.clone(),
            edge_id: edge_id.to_owned(),
            read: Following::default(),
        });
        self.follow(&mut followed.read, place, edge_id, Wait::ForOpen)?;
        Ok(self.followed.insert(followed).read.last().cloned())
    }

    /// A committed checkpoint of an edge: the last, or, where nobody is waited for, an older one while a transaction is open behind it.
    pub fn checkpoint(&mut self, place: &Place, edge_id: &str, wait: Wait) -> Result<Option<Checkpoint>, SinkError> {
        match wait {
            Wait::ForOpen => self.last_checkpoint(place, edge_id),
            Wait::ForNobody => self.look_back(place, edge_id, wait),
        }
    }

    /// Reads far enough back to know the edge's last checkpoint, if there is one.
    pub fn look_back(&self, place: &Place, edge_id: &str, wait: Wait) -> Result<Option<Checkpoint>, SinkError> {
        let mut read = Following::default();
        self.follow(&mut read, place, edge_id, wait)?;
        Ok(read.last().cloned())
    }

    fn follow(&self, read: &mut Following, place: &Place, edge_id: &str, wait: Wait) -> Result<(), SinkError> {
        let ends = self.all.ends(&place.topic_checkpoints, place.partition_checkpoints)?;
        let mut offsets = Some(read.begin(ends));
        while let Some(next) = offsets {
            let (at, newest) = self.read(place, edge_id, next, wait)?;
            offsets = read.read(at, newest);
        }
        Ok(())
    }

    fn read(
        &self,
        place: &Place,
        edge_id: &str,
        offsets: std::ops::Range<i64>,
        wait: Wait,
    ) -> Result<(i64, Option<(i64, Checkpoint)>), SinkError> {
        let mut newest = None;
        let partition = (place.topic_checkpoints.as_str(), place.partition_checkpoints);
        let at = self.committed.read(partition, offsets, wait, &mut |offset, key, bytes| {
            if key == edge_id.as_bytes() {
                newest = Some((offset, bytes.to_vec()));
            }
        })?;
        let decode = |(offset, bytes): (i64, Vec<u8>)| match decode_checkpoint(&bytes) {
            Ok(checkpoint) => Ok((offset, checkpoint)),
            Err(error) => Err(SinkError::Broken(error.to_string())),
        };
        Ok((at, newest.map(decode).transpose()?))
    }

    /// Edges with a checkpoint in a partition.
    pub fn edges(&self, topic: &str, partition: i32) -> Result<BTreeSet<Vec<u8>>, SinkError> {
        let (low, high) = self.all.ends(topic, partition)?;
        let mut edges = BTreeSet::new();
        self.committed.read((topic, partition), low..high, Wait::ForNobody, &mut |_, key, _| {
            edges.insert(key.to_vec());
        })?;
        Ok(edges)
    }
}
