//! Reads of the store, on threads that may block. Two lanes: a short read never waits for long ones, and long ones together take no
//! more than two threads of the edge's machine. Of one scope there is one long read at a time, so that nobody who asks much keeps
//! both from everybody else.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answers::ROW_TEXT_BYTES_MAX;
use super::bodies::{BODIES_BYTES_MAX, Bodies};
use super::finished::Finished;
use super::parameters::LIMIT_MAX;
use super::problem::Problem;
use crate::history::CORRECTIONS_MAX;
use crate::question::{Correction, Question, Scope, Subject};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::tables::StoreError;
use crate::tally::{ANSWER_BYTES_MAX, SEEN_BYTES_MAX};
use crate::whose::ADS_BYTES_MAX;
use crate::window::{Granularity, HOUR_MS, MINUTE_MS};

/// Reads at a time in each lane.
const SHORT_MAX: usize = 4;
const LONG_MAX: usize = 2;
/// The text of a page in the making, in a buffer that doubles.
const TEXT_BYTES_MAX: usize = (LIMIT_MAX * ROW_TEXT_BYTES_MAX).next_power_of_two();
/// What one question may take: first its answer, then, when the set of its rows is gone, the page and its text.
const TURN_BYTES_MAX: usize = ANSWER_BYTES_MAX + TEXT_BYTES_MAX.saturating_sub(SEEN_BYTES_MAX);
/// What all questions may take of memory: those under way their answers in the making, and their ads, of which those in the short lane
/// have one each; those of before their bodies, as long as they are not taken. Rankings in the making are in what the store may take.
pub const QUESTIONS_BYTES_MAX: u64 =
    (LONG_MAX * ADS_BYTES_MAX + (SHORT_MAX + LONG_MAX) * TURN_BYTES_MAX + BODIES_BYTES_MAX) as u64;
/// A page of the history takes no more than one of counts: what is read of it, and one minute where that alone is more than a page.
const _: () = assert!((LIMIT_MAX + CORRECTIONS_MAX) * 2 * size_of::<Correction>() <= ANSWER_BYTES_MAX);
/// One ad's windows that are read in a few milliseconds: two days of minutes, four months of hours.
const SHORT_WINDOWS_MAX: i64 = 3_000;
/// How long a question waits for its turn before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lane {
    Short,
    Long,
    /// For somebody who may see this alone.
    LongOf(Arc<Scope>),
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
            Subject::Ad(_) | Subject::All | Subject::Campaign(_) | Subject::Advertiser(_) => {
                Lane::long(question.filter.scope.clone())
            }
        }
    }

    pub fn long(scope: Option<Arc<Scope>>) -> Lane {
        scope.map_or(Lane::Long, Lane::LongOf)
    }
}

/// The one turn of each scope that somebody reads or waits for.
type ScopeTurns = Vec<(Arc<Scope>, Weak<Semaphore>)>;

/// Turns, by lane.
#[derive(Clone)]
pub struct Reads {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
    scopes: Arc<Mutex<ScopeTurns>>,
    bodies: Bodies,
}

impl Default for Reads {
    fn default() -> Reads {
        let (short, long) = (Arc::new(Semaphore::new(SHORT_MAX)), Arc::new(Semaphore::new(LONG_MAX)));
        Reads { short, long, scopes: Arc::default(), bodies: Bodies::default() }
    }
}

/// A place in a lane, and before it in the line of a scope.
pub struct Turn {
    _lane: OwnedSemaphorePermit,
    _scope: Option<OwnedSemaphorePermit>,
}

async fn place(semaphore: Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.acquire_owned().await.expect("the semaphore is never closed")
}

impl Reads {
    fn of_scope(&self, scope: Arc<Scope>) -> Arc<Semaphore> {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.retain(|(_, turn)| turn.strong_count() > 0);
        let found = scopes.iter().find(|(other, _)| *other == scope).and_then(|(_, turn)| turn.upgrade());
        found.unwrap_or_else(|| {
            let turn = Arc::new(Semaphore::new(1));
            scopes.push((scope, Arc::downgrade(&turn)));
            turn
        })
    }

    pub async fn turn(&self, lane: Lane) -> Turn {
        let (lane, scope) = match lane {
            Lane::Short => (&self.short, None),
            Lane::Long => (&self.long, None),
            Lane::LongOf(scope) => (&self.long, Some(place(self.of_scope(scope)).await)),
        };
        Turn { _lane: place(lane.clone()).await, _scope: scope }
    }

    /// The room for what is made in a turn and taken after it.
    pub fn bodies(&self) -> Bodies {
        self.bodies.clone()
    }

    /// Answers somebody who asked with these fields from what is committed now: all of the answer is made in the turn.
    pub async fn answer<E>(
        &self,
        store: &Arc<Store>,
        lane: Lane,
        asked: HeaderMap,
        make: impl FnOnce(&Snapshot) -> Result<Finished, E> + Send + 'static,
    ) -> Result<Response, Problem>
    where
        Problem: From<E>,
    {
        let bodies = self.bodies();
        let made = move |snapshot: &Snapshot| make(snapshot).map_err(Problem::from)?.into_response(&asked, &bodies);
        self.read::<_, Problem>(store, lane, made).await
    }

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
        // Held by the read itself: it goes on when the client that asked has gone.
        let Ok(turn) = tokio::time::timeout(PATIENCE, self.turn(lane)).await else {
            return Err(Problem::busy(format!(
                "other questions have been read for {} s; ask again",
                PATIENCE.as_secs()
            )));
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{StatusCode, header};
    use axum::response::IntoResponse as _;
    use futures_util::StreamExt as _;

    fn scope(campaign: &str) -> Lane {
        Lane::LongOf(Arc::new(Scope { campaigns: [campaign.to_owned()].into(), ..Scope::default() }))
    }

    #[tokio::test]
    async fn who_may_see_little_never_has_both_long_turns() {
        let reads = Reads::default();
        let soon = |lane| tokio::time::timeout(Duration::from_millis(50), reads.turn(lane));
        let first = soon(scope("a")).await.expect("nobody else reads");
        assert!(soon(scope("a")).await.is_err(), "one at a time");
        let other = soon(scope("b")).await.expect("another scope has its own");
        assert!(soon(Lane::Long).await.is_err(), "both are taken");
        drop(first);
        let everything = soon(Lane::Long).await.expect("free again");
        assert!(soon(Lane::Short).await.is_ok());
        drop((other, everything));
        drop(soon(scope("a")).await.expect("free again"));
        drop(soon(scope("c")).await.expect("free"));
        assert!(reads.scopes.lock().expect("unpoisoned").len() <= 1, "none is kept for who is gone");
    }

    fn field<'a>(response: &'a Response, name: &str) -> &'a str {
        response.headers()[name].to_str().expect("text")
    }

    /// What was made lies in memory until it is taken: as much as there is room for.
    #[tokio::test]
    async fn answers_that_are_not_taken_leave_no_room_for_more() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Arc::new(Store::open(&folder.path().join("store")).expect("a new store"));
        let reads = Reads { bodies: Bodies::with_bytes_max(150 << 10), ..Reads::default() };
        let ask = async |bytes: usize, known: Option<&str>| {
            let known = known.map(|etag| (header::IF_NONE_MATCH, etag.parse().expect("a value")));
            let make = move |snapshot: &Snapshot| Ok::<_, Problem>(Finished::csv(snapshot, vec![b'x'; bytes]));
            reads.answer(&store, Lane::Short, known.into_iter().collect(), make).await
        };
        let first = ask(100 << 10, None).await.expect("room for one");
        assert_eq!(reads.bodies.free_bytes(), 50 << 10);
        let refused = ask(100 << 10, None).await.expect_err("no room for two");
        assert!(refused.detail.contains("no room"), "{}", refused.detail);
        let refused = refused.into_response();
        assert_eq!((refused.status(), field(&refused, "retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
        // What is small or known already needs none.
        ask(30 << 10, None).await.expect("small");
        let etag = field(&first, "etag").to_owned();
        let known = ask(100 << 10, Some(&etag)).await.expect("nothing is sent");
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
        let mut pieces = first.into_body().into_data_stream();
        let piece = pieces.next().await.expect("a piece").expect("of memory");
        drop(pieces);
        assert_eq!((piece.len(), reads.bodies.free_bytes()), (100 << 10, 50 << 10), "its bytes are still held");
        drop(piece);
        let whole = ask(1 << 20, None).await.expect("larger than the room, and alone in it");
        ask(100 << 10, None).await.expect_err("nothing is left beside it");
        drop(whole);
        assert_eq!(reads.bodies.free_bytes(), 150 << 10);
    }
}
