//! Whether the topic is the one that was read before, and has what is to be read next. Where not, nothing is guessed: it ends, unless
//! an operator said how to go on.

use crate::consumer::{Turn, wall_ms};
use crate::kafka::{ConsumeError, Reader};
use crate::reading::begin_at;
use crate::store::Store;
use crate::tables::StoreError;

const WAYS_OUT: &str = "Nothing is guessed. Start once with --from-earliest to keep what is counted and read what the topic has (what is \
                        missing is then named by `tollgate edges list`), restore a backup of the store, or count all of the topic \
                        anew with --rebuild";

pub struct Topic {
    pub name: String,
    /// The operator's word, of this start: what it does not have any more is passed over.
    pub from_earliest: bool,
}

impl Topic {
    /// Fails where the store is of another cluster, or another topic by name; binds one that is new.
    pub fn is_of(&self, store: &Store, cluster: &str) -> Result<(), Turn> {
        let source = format!("{cluster}/{}", self.name);
        match store.source()? {
            None => Ok(store.set_source(&source)?),
            Some(known) if known == source => Ok(()),
            Some(known) => Err(ConsumeError::Halt(format!(
                "the store holds what was read from {known} (cluster/topic), and this is {source}: correct --kafka-brokers or \
                 --kafka-topic-partials, or begin anew from this topic with --rebuild"
            ))
            .into()),
        }
    }

    /// There was one if the store is of one; whether another is made under its name is seen by its id.
    pub fn missing(&self, store: &Store) -> Result<ConsumeError, StoreError> {
        let Topic { name, .. } = self;
        Ok(ConsumeError::Away(match store.topic_id()? {
            None => format!("there is no topic {name} yet"),
            Some(_) => format!("the topic {name} that was read is not there any more, or may not be seen by this user"),
        }))
    }

    /// Fails where it is another than was read before: in one that was made anew, offsets are those of other records.
    pub fn know(&self, store: &Store, reader: &Reader) -> Result<(), Turn> {
        let Some(id) = reader.topic_id()? else { return Ok(()) };
        match store.topic_id()? {
            Some(known) if known == id => return Ok(()),
            None => {}
            Some(known) => {
                let anew =
                    format!("the topic {} was deleted and made anew: its id was {known}, and is {id}", self.name);
                if !self.from_earliest {
                    return Err(ConsumeError::Halt(format!("{anew}. {WAYS_OUT}")).into());
                }
                tracing::warn!("{anew}. --from-earliest: it is read from its beginning into what is counted");
                store.forget_places(None, wall_ms())?;
            }
        }
        Ok(store.set_topic_id(&id)?)
    }

    /// A partition does not have any more what was counted of it, though it has the offset.
    pub fn was_put_back(&self, store: &Store, partition: i32) -> Result<(), Turn> {
        let lost = format!(
            "{}/{partition} has something else where a transaction stood that was counted: it was put back to an older state, and written \
             to since",
            self.name
        );
        self.begin_anew(store, partition, &lost, "its beginning")
    }

    fn begin_anew(&self, store: &Store, partition: i32, lost: &str, from: &str) -> Result<(), Turn> {
        if !self.from_earliest {
            return Err(ConsumeError::Halt(format!("{lost}. {WAYS_OUT}")).into());
        }
        tracing::warn!("{lost}. --from-earliest: it is read from {from} into what is counted");
        Ok(store.forget_places(Some(partition), wall_ms())?)
    }

    /// Where to begin in a partition that has records from `first` to before `end`, and is to be read on where it was `stored`.
    pub fn begin_at(
        &self,
        store: &Store,
        partition: i32,
        stored: Option<i64>,
        (first, end): (i64, i64),
    ) -> Result<i64, Turn> {
        if let Some(offset) = begin_at(stored, first, end) {
            return Ok(offset);
        }
        let offset = stored.unwrap_or(first);
        let what = if offset < first {
            "what lay between was deleted before it was read: the topic's retention is shorter than this was away"
        } else {
            "it was emptied, or put back to an older state"
        };
        let lost = format!(
            "{}/{partition} is to be read on from offset {offset}, and has {first} to {end}: {what}",
            self.name
        );
        self.begin_anew(store, partition, &lost, &first.to_string())?;
        Ok(first)
    }
}
