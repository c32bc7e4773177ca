//! Keeping a store in order while it serves: edges that fall silent, hours to roll up, rows to prune, and a look at its disk. One
//! thread, beside whoever commits.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::consumer::wall_ms;
use crate::metrics::Text;
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

/// What an edge's admin port shows of its own store; nothing before the start has opened that.
#[derive(Default)]
pub struct Kept {
    store: OnceLock<Arc<Store>>,
    room: Arc<RoomSeen>,
}

impl Kept {
    /// As [`keep`].
    pub fn keep(&self, store: &Arc<Store>, path: &Path, stop: &Receiver<()>) -> Result<(), StoreError> {
        let store = self.store.get_or_init(|| Arc::clone(store));
        keep(store, path, &self.room, stop)
    }

    /// Its metrics in Prometheus' text format.
    pub fn text(&self) -> Result<String, StoreError> {
        let Some(store) = self.store.get() else { return Ok(String::new()) };
        let mut text = Text::default();
        text.file(&store.snapshot()?, &self.room.get())?;
        Ok(text.into_text())
    }

    /// What a person should know.
    pub fn note(&self) -> Option<String> {
        self.room.get().short()
    }
}

/// Keeps the store until the sender of `stop` is used or gone, or the store fails.
pub fn keep(store: &Store, path: &Path, seen: &Arc<RoomSeen>, stop: &Receiver<()>) -> Result<(), StoreError> {
    let (mut watch, mut looked, mut told) = (RoomWatch::new(path), None::<Instant>, false);
    loop {
        let more = store.keep_up(wall_ms())?;
        let now = Instant::now();
        if looked.is_none_or(|at| now.duration_since(at) > ROOM_EVERY) {
            looked = Some(now);
            let room = watch.look(now);
            let short = room.short();
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
