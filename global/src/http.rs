//! The query API over HTTP, on the tokio runtime of its caller. Reads only. What reads the store runs on threads that may block:
//! short reads do not wait behind long ones.

mod access;
mod answers;
mod bodies;
mod counts;
mod cursor;
mod edges;
mod finished;
mod history;
mod live;
mod live_state;
mod methodology;
mod names;
mod openapi;
mod parameters;
mod port;
mod problem;
mod rates;
mod reads;
mod request;
mod routes;
mod sheet;
#[cfg(test)]
mod tests;
mod times;
mod top;
mod validator;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{oneshot, watch};

pub use access::Access;
pub use names::{AGENTS, CLASSES, DEVICES};
pub use port::{Port, PortLimits, is_stream};
pub use problem::Problem;
pub use reads::QUESTIONS_BYTES_MAX;
pub use times::format_time;
pub use validator::answered;

use crate::dashboard::{self, Page};
use crate::guard::{self, Guard};
use crate::query_side::QuerySide;
use crate::session;
use crate::store::Store;
use live::Live;
use reads::Reads;

/// How long answers under way may take once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(2);

/// What every route has at hand.
#[derive(Clone)]
pub struct Shared {
    pub store: Arc<Store>,
    pub reads: Reads,
    pub live: Arc<Live>,
}

/// Serves the query API and the dashboard until told to stop (or until the sender is gone), then ends what is under way.
/// Wants a runtime with I/O and time; a current-thread one will do. Requests are let in by the tokens of `side`.
pub async fn serve(
    store: Arc<Store>,
    side: Arc<QuerySide>,
    page: Page,
    listener: TcpListener,
    stop: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let on_loopback = listener.local_addr()?.ip().to_canonical().is_loopback();
    let (ending, ended) = watch::channel(());
    let shared = Shared { store, reads: Reads::default(), live: Arc::new(Live::new(ended)) };
    let router = guarded(routes(shared), Guard::new(side, on_loopback))
        .merge(dashboard::routes(page).method_not_allowed_fallback(read_only));
    let stopped = async {
        let _ = stop.await;
        // Live streams have no end of their own.
        drop(ending);
    };
    serve_until(router, listener, stopped, PortLimits::QUERY).await
}

/// Routes that are reached through a guard, and the one by which browsers get past it.
pub fn guarded(routes: Router, guard: Guard) -> Router {
    let session = session::route(guard.clone()).layer(DefaultBodyLimit::max(session::BODY_BYTES_MAX));
    routes.route(session::PATH, session).layer(middleware::from_fn_with_state(guard, guard::let_in))
}

/// Serves the routes of an admin port in the same way.
pub async fn serve_router(router: Router, listener: TcpListener, stop: oneshot::Receiver<()>) -> std::io::Result<()> {
    let stopped = async {
        // A sender that is gone means the same as its message.
        let _ = stop.await;
    };
    serve_until(router, listener, stopped, PortLimits::ADMIN).await
}

async fn serve_until(
    router: Router,
    listener: TcpListener,
    stopped: impl Future<Output = ()>,
    limits: PortLimits,
) -> std::io::Result<()> {
    let listener = Port::new(listener, limits)?;
    let (drain, draining) = oneshot::channel::<()>();
    let service = router.layer(middleware::from_fn(port::tell)).into_make_service_with_connect_info::<port::Answers>();
    let server = axum::serve(listener, service).with_graceful_shutdown(async {
        let _ = draining.await;
    });
    let deadline = async {
        stopped.await;
        drop(drain);
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = server.into_future() => ended,
        () = deadline => Ok(()),
    }
}

/// All routes; whoever lets requests in gives each its [`Access`].
fn routes(shared: Shared) -> Router {
    Router::new()
        .route(routes::AD_COUNT.path, get(counts::of_ad))
        .route(routes::CAMPAIGN_COUNT.path, get(counts::of_campaign))
        .route(routes::ADVERTISER_COUNT.path, get(counts::of_advertiser))
        .route(routes::TOTALS.path, get(counts::of_all))
        .route(routes::INVALID.path, get(counts::invalid))
        .route(routes::HISTORY.path, get(history::of_ad))
        .route(routes::TOP.path, get(top::top_k))
        .route(routes::EDGES.path, get(edges::edges))
        .route(routes::METHODOLOGY.path, get(methodology::methodology))
        .route(routes::LIVE.path, get(live::live))
        .route(routes::OPENAPI.path, get(openapi::document))
        .fallback(not_found)
        .method_not_allowed_fallback(read_only)
        .with_state(shared)
}

async fn not_found(uri: Uri) -> Problem {
    let paths: Vec<_> = routes::ALL.iter().map(|route| route.path).chain([session::PATH]).collect();
    let path: String = uri.path().chars().take(100).collect();
    Problem::new(StatusCode::NOT_FOUND, format!("no such path: {path}; there are {}", paths.join(", ")))
}

async fn read_only() -> Response {
    not_allowed("this path is read with GET", "GET,HEAD")
}

/// What a method is answered with that a path does not have; `allow` are those that it has.
pub fn not_allowed(detail: &'static str, allow: &'static str) -> Response {
    let field: [(HeaderName, &str); 1] = [(header::ALLOW, allow)];
    (field, Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)).into_response()
}
