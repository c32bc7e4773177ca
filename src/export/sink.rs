//! Pure. What the protocol ends in, as the exporter's thread drives it. Every call may block; none is retried by the sink itself.

use crate::export::thread::ReadFrames;
use crate::export::{Look, Outcome, SinkError};
use tollgate_wire::{Checkpoint, Transaction};

pub trait Sink: Send {
    /// The stored checkpoint of this edge.
    fn checkpoint(&mut self, look: Look) -> Result<Option<Checkpoint>, SinkError>;

    /// All of the transaction, or nothing. `log` reads the records that its ranges name; `heard` is called at each sign that the
    /// sink is there, for all of it may take long.
    fn commit(&mut self, transaction: &Transaction, log: &mut ReadFrames, heard: &dyn Fn()) -> Outcome;

    /// Puts the stored checkpoint into the mirror, synced; a sink in the data directory keeps none.
    fn remember(&mut self, checkpoint: &Checkpoint) -> Result<(), String>;
}
