//! Reads of the store, on threads that may block. Two lanes: a short read never waits for long ones, and long ones together take no
//! more than two threads of the edge's machine.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::problem::Problem;
use crate::question::{Question, Subject};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::tables::StoreError;
use crate::window::{Granularity, HOUR_MS, MINUTE_MS};

/// Reads at a time in each lane.
const SHORT_MAX: usize = 4;
const LONG_MAX: usize = 2;
/// One ad's windows that are read in a few milliseconds: two days of minutes, four months of hours.
const SHORT_WINDOWS_MAX: i64 = 3_000;
/// How long a question waits for its turn before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Short,
    Long,
}

impl Lane {
    /// What a question's rows ask for.
    pub fn of(question: &Question) -> Lane {
        let grain_ms = match question.granularity {
            Some(Granularity::Minute | Granularity::FiveMinutes) => MINUTE_MS,
            Some(Granularity::Hour | Granularity::Day) | None => HOUR_MS,
        };
        let windows = (question.span.end_ms - question.span.start_ms) / grain_ms;
        match question.subject {
            Subject::Ad(_) if windows <= SHORT_WINDOWS_MAX => Lane::Short,
            Subject::Ad(_) | Subject::All | Subject::Campaign(_) | Subject::Advertiser(_) => Lane::Long,
        }
    }
}

/// Turns, by lane.
#[derive(Clone)]
pub struct Reads {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Default for Reads {
    fn default() -> Reads {
        Reads { short: Arc::new(Semaphore::new(SHORT_MAX)), long: Arc::new(Semaphore::new(LONG_MAX)) }
    }
}

impl Reads {
    /// Reads what is committed now.
    pub async fn read<T, E>(
        &self,
        store: &Arc<Store>,
        lane: Lane,
        read: impl FnOnce(&Snapshot) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Problem>
    where
        T: Send + 'static,
        Problem: From<E>,
    {
        let turns = match lane {
            Lane::Short => &self.short,
            Lane::Long => &self.long,
        };
        // Held by the read itself: it goes on when the client that asked has gone.
        let Ok(turn) = tokio::time::timeout(PATIENCE, turns.clone().acquire_owned()).await else {
            return Err(Problem::busy(format!(
                "other questions have been read for {} s; ask again",
                PATIENCE.as_secs()
            )));
        };
        let turn = turn.expect("the semaphore is never closed");
        let store = store.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let snapshot = store.snapshot().map_err(<Problem as From<StoreError>>::from)?;
            read(&snapshot).map_err(Problem::from)
        });
        match done.await {
            Ok(outcome) => outcome,
            Err(ended) => match ended.try_into_panic() {
                // A bug panics: the panic goes on here.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => Err(Problem::busy("the query server is stopping")),
            },
        }
    }
}
