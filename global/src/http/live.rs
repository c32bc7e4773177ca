//! What stands now, as server-sent events: computed about once a second for all clients together, and only while somebody listens.
//!
//! A client is told the newest state and never an older one, so none is kept for it: one that takes nothing is cut off by the
//! connection's own timeout, see `STALL_MS`.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::live_state::state;
use super::rates::Samples;
use super::reads::Lane;
use super::request::Given;
use super::{Access, Problem, Shared, routes};
use crate::consumer::wall_ms;

/// Clients at a time, of some 20 KB each.
pub const CLIENTS_MAX: usize = 256;
/// Of those, with one scope: some screens.
pub const CLIENTS_OF_A_SCOPE_MAX: usize = 16;
/// Between two states; the next is then told with the next commit, or after [`WAIT`] without one.
const PACE: Duration = Duration::from_millis(800);
const WAIT: Duration = Duration::from_millis(400);
/// A comment where nothing else is said: a proxy is told that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A client that loses its connection comes back after this.
const RETRY: Duration = Duration::from_secs(2);

/// The newest state; None: it is being computed for the first time.
type Told = Option<Arc<str>>;

/// Who listens to what.
pub struct Live {
    clients: Arc<Semaphore>,
    feeds: Mutex<Vec<Feed>>,
    ended: watch::Receiver<()>,
}

/// One state, for all who may see the same.
struct Feed {
    access: Access,
    told: watch::Sender<Told>,
}

/// A client's place, and what it listens to.
struct Listener {
    told: watch::Receiver<Told>,
    ended: watch::Receiver<()>,
    _place: OwnedSemaphorePermit,
}

impl Live {
    pub fn new(ended: watch::Receiver<()>) -> Live {
        Live::with_clients_max(ended, CLIENTS_MAX)
    }

    pub fn with_clients_max(ended: watch::Receiver<()>, clients_max: usize) -> Live {
        Live { clients: Arc::new(Semaphore::new(clients_max)), feeds: Mutex::default(), ended }
    }

    #[cfg(test)]
    pub fn feeds(&self) -> usize {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Listens to the state of what may be seen; begins to compute it where nobody listened before. None: as many of this scope
    /// listen as may.
    fn listen(shared: &Shared, access: Access) -> Option<watch::Receiver<Told>> {
        let mut feeds = shared.live.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.iter().find(|feed| feed.access == access) {
            if !access.is_all() && feed.told.receiver_count() >= CLIENTS_OF_A_SCOPE_MAX {
                return None;
            }
            let mut receiver = feed.told.subscribe();
            // What stands already is news to this one.
            receiver.mark_changed();
            return Some(receiver);
        }
        let told = watch::Sender::new(None);
        let receiver = told.subscribe();
        feeds.push(Feed { access: access.clone(), told });
        tokio::spawn(compute(shared.clone(), access));
        Some(receiver)
    }

    /// Tells a state. False: nobody listens any more, and the feed is gone.
    fn tell(&self, access: &Access, state: Option<String>) -> bool {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that nobody begins to listen in between.
        feeds.retain(|feed| feed.access != *access || feed.told.receiver_count() > 0);
        let Some(feed) = feeds.iter().find(|feed| feed.access == *access) else { return false };
        if let Some(state) = state {
            feed.told.send_replace(Some(state.into()));
        }
        true
    }
}

pub async fn live(State(shared): State<Shared>, access: Access, given: Given) -> Result<Response, Problem> {
    given.read(&routes::LIVE)?;
    let Ok(place) = shared.live.clients.clone().try_acquire_owned() else {
        return Err(Problem::busy(format!(
            "{CLIENTS_MAX} clients listen already, which is as many as may; ask again later"
        )));
    };
    let Some(told) = Live::listen(&shared, access) else {
        return Err(Problem::busy(format!(
            "{CLIENTS_OF_A_SCOPE_MAX} clients listen already with this token's scope, which is as many as may; end one first"
        )));
    };
    let listener = Listener { told, ended: shared.live.ended.clone(), _place: place };
    let events = stream::unfold(listener, |mut listener| async {
        let state = listener.next().await?;
        Some((Ok::<_, Infallible>(Event::default().event("state").retry(RETRY).data(state)), listener))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response();
    let fields = response.headers_mut();
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would keep events back otherwise.
    fields.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

impl Listener {
    /// The next state that this client was not told; None: the server stops, or cannot read its store.
    async fn next(&mut self) -> Option<Arc<str>> {
        loop {
            tokio::select! {
                changed = self.told.changed() => changed.ok()?,
                _ = self.ended.changed() => return None,
            }
            if let Some(state) = self.told.borrow_and_update().clone() {
                return Some(state);
            }
        }
    }
}

/// Computes states until nobody listens.
async fn compute(shared: Shared, access: Access) {
    let mut committed = shared.store.committed();
    let mut samples = Samples::default();
    loop {
        committed.mark_unchanged();
        let (seen, before) = (access.clone(), samples.clone());
        // Of a scope, all of its ads are looked at.
        let lane = access.scope().map_or(Lane::Short, Lane::LongOf);
        let read = shared.reads.read(&shared.store, lane, move |snapshot| state(snapshot, &seen, before, wall_ms()));
        let told = match read.await {
            Ok((text, taken)) => {
                samples = taken;
                Some(text)
            }
            // Told of where it happened; whoever listens sees that nothing new comes.
            Err(_) => None,
        };
        if !shared.live.tell(&access, told) {
            return;
        }
        sleep(PACE).await;
        // Either way it is time.
        let _ = timeout(WAIT, committed.changed()).await;
    }
}
