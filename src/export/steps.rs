//! Pure. What the exporter is told, and what it says to do: the whole vocabulary between the protocol and its sinks.

use crate::cut::{Cut, CutTable, LogId, Position, Totals};
use crate::event::Exported;
use crate::export::{Halt, Room};
use tollgate_wire::{Checkpoint, Transaction};

/// What happened.
#[derive(Debug)]
pub enum Told {
    Cut(Box<Cut>),
    /// Answers [`Step::ReadCheckpoint`].
    Checkpoint(Result<Option<Checkpoint>, SinkError>),
    /// Answers [`Step::LookUp`], one for each position asked for.
    LookedUp(Result<Vec<Found>, String>),
    /// Answers [`Step::Rebuild`].
    Rebuilt(Result<Rebuilt, String>),
    /// Answers [`Step::Commit`].
    Committed(Outcome),
    /// Answers [`Step::Remember`].
    Remembered(Result<(), String>),
}

/// How the stored checkpoint is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Fencing nobody, waiting for nobody: what is found may be an older one while somebody's transaction is under way.
    Peek,
    /// First make sure that no earlier writer's transaction can still land.
    Fence,
    /// The last one, fencing nobody: nothing of ours is under way.
    Again,
}

/// Why a sink gave no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It may answer later; clicks wait in the log.
    #[error("{0}")]
    Unreachable(String),
    /// It will not answer again without a person.
    #[error("{0}")]
    Broken(String),
    /// It is another one than this directory exported to.
    #[error("{0}")]
    Foreign(String),
}

/// What a log holds at a position of the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A frame (or a segment's base) ends there with that chain.
    Same,
    /// None does.
    Other,
}

/// A range read back from the log: from where it was asked, up to a frame's end at or before where it was asked to.
#[derive(Debug)]
pub struct Rebuilt {
    pub to: Position,
    /// From the header of the frame that ends at `to`.
    pub totals: Totals,
    /// When that frame was built.
    pub built_ms: i64,
    /// Clicks of the range that a person accepted as lost (`wal repair --accept-loss`): no table will ever hold them.
    pub lost_clicks: u64,
    pub horizon_ms: i64,
    pub watermark_ms: i64,
    pub table: CutTable,
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    /// Anything but clean success: it may be in, or not, or not yet.
    Unknown,
}

/// What to do next. All but `Exported` and `Wait` want an answer before the next step is asked for.
#[derive(Debug)]
pub enum Step {
    /// Read the stored checkpoint.
    ReadCheckpoint {
        look: Look,
    },
    /// Look whether the logs have these chains at these LSNs.
    LookUp(Vec<Position>),
    /// Read back from the log, frame by frame, as much as there is room for, at least one frame.
    Rebuild {
        log: LogId,
        from_lsn: u64,
        to_lsn: u64,
        /// Clicks of the log up to `from_lsn`.
        from_clicks: u64,
        room: Room,
    },
    Commit(Box<Transaction>),
    /// Put the stored checkpoint into the mirror, synced: nothing more is sent, and nothing freed, before it is there.
    Remember(Box<Checkpoint>),
    /// Tell the core that writes this log.
    Exported(LogId, Box<Exported>),
    /// Until then there is nothing to do but take cuts.
    Wait {
        until_ns: u64,
    },
    /// End the process: `Halt::exit` with its text.
    Halt(Halt),
    /// The last cut of every log is exported.
    Stopped,
}
