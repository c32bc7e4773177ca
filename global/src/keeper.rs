//! Keeping a store in order while it serves: edges that fall silent, hours to roll up, rows to prune, and a look at its disk. One
//! thread, beside whoever commits.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::consumer::wall_ms;
use crate::room::{Room, RoomWatch};
use crate::store::Store;
use crate::tables::StoreError;

/// Between two looks where nothing is to do.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two steps where there is: whoever wants to commit goes first.
const STEP_PAUSE: Duration = Duration::from_millis(2);
/// Between two looks at the disk.
const ROOM_EVERY: Duration = Duration::from_secs(10);

/// What the keeper saw of the disk last.
#[derive(Default)]
pub struct RoomSeen(Mutex<Room>);

impl RoomSeen {
    pub fn get(&self) -> Room {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the store until the sender of `stop` is used or gone, or the store fails. `way_out`: what is said where its disk fills up.
pub fn keep(
    store: &Store,
    path: &Path,
    seen: &Arc<RoomSeen>,
    way_out: &str,
    stop: &Receiver<()>,
) -> Result<(), StoreError> {
    let (mut watch, mut looked, mut told) = (RoomWatch::new(path), None::<Instant>, false);
    loop {
        let more = store.keep_up(wall_ms())?;
        let now = Instant::now();
        if looked.is_none_or(|at| now.duration_since(at) > ROOM_EVERY) {
            looked = Some(now);
            let room = watch.look(now);
            let short = room.short(way_out);
            if let Some(text) = short.as_ref().filter(|_| !told) {
                tracing::warn!("{text}");
            }
            told = short.is_some();
            *seen.0.lock().unwrap_or_else(PoisonError::into_inner) = room;
        }
        match stop.recv_timeout(if more { STEP_PAUSE } else { LOOK_EVERY }) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
