//! The query API over HTTP, on the tokio runtime of its caller. Reads only; a scan runs on a blocking thread, so that a long
//! one does not hold up the others.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::{Semaphore, oneshot};

use crate::query::{Answer, BadParameter, Span, parse_ad_id};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::sums::Sums;
use crate::tables::StoreError;

/// Scans at a time: the query side shares its cores with the edge.
const SCANS_MAX: usize = 2;
/// How long answers under way may take once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(2);

type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

#[derive(Clone)]
struct Shared {
    store: Arc<Store>,
    scans: Arc<Semaphore>,
}

/// Serves the query API until told to stop (or until the sender is gone), then ends what is under way.
/// Wants a runtime with I/O and time; a current-thread one will do.
pub async fn serve(store: Arc<Store>, listener: TcpListener, stop: oneshot::Receiver<()>) -> std::io::Result<()> {
    serve_router(router(store), listener, stop).await
}

/// Serves any routes in the same way.
pub async fn serve_router(router: Router, listener: TcpListener, stop: oneshot::Receiver<()>) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (drain, draining) = oneshot::channel::<()>();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        // A sender that is gone means the same as its message.
        let _ = draining.await;
    });
    let deadline = async {
        let _ = stop.await;
        drop(drain);
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = server.into_future() => ended,
        () = deadline => Ok(()),
    }
}

fn router(store: Arc<Store>) -> Router {
    Router::new()
        .route("/v1/ads/{ad_id}/aggregated_count", get(ad_count))
        .route("/v1/totals", get(totals))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "no such path; see /v1/ads/{ad_id}/aggregated_count"))
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Shared { store, scans: Arc::new(Semaphore::new(SCANS_MAX)) })
}

async fn ad_count(
    State(shared): State<Shared>,
    path: Result<Path<String>, PathRejection>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let Path(ad_id) = path.map_err(|rejection| bad_parameter("ad_id", rejection.body_text()))?;
    parse_ad_id(&ad_id)?;
    let span = parse_span(parameters)?;
    let asked = ad_id.clone();
    let (sums, watermark_ms) = scan(shared, move |file| file.ad(&asked, span.from_ms, span.to_ms)).await?;
    Ok(Json(Answer::new(Some(&ad_id), span, &sums, watermark_ms)).into_response())
}

async fn totals(State(shared): State<Shared>, parameters: Parameters) -> Result<Response, Problem> {
    let span = parse_span(parameters)?;
    let (sums, watermark_ms) = scan(shared, move |file| file.totals(span.from_ms, span.to_ms)).await?;
    Ok(Json(Answer::new(None, span, &sums, watermark_ms)).into_response())
}

async fn method_not_allowed() -> Response {
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path is read with GET");
    ([(header::ALLOW, HeaderValue::from_static("GET,HEAD"))], problem).into_response()
}

fn parse_span(parameters: Parameters) -> Result<Span, Problem> {
    let Query(parameters) = parameters.map_err(|rejection| bad_parameter("query", rejection.body_text()))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Span::parse(&parameters, now.as_millis() as i64)?)
}

/// Runs a scan over what is committed now; gives its sums and the watermark that goes with them.
async fn scan(
    shared: Shared,
    over: impl FnOnce(&Snapshot) -> Result<Sums, StoreError> + Send + 'static,
) -> Result<(Sums, Option<i64>), Problem> {
    // Held by the scan itself: it goes on when the client that asked has gone.
    let turn = shared.scans.acquire_owned().await.expect("the semaphore is never closed");
    let scanned = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let snapshot = shared.store.snapshot()?;
        Ok::<_, StoreError>((over(&snapshot)?, snapshot.watermark_ms()))
    });
    match scanned.await {
        Ok(outcome) => Ok(outcome?),
        Err(ended) => match ended.try_into_panic() {
            // A bug panics: the panic goes on here.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the query server is stopping")),
        },
    }
}

/// An error as RFC 9457 has it: `application/problem+json`, naming the parameter where one is at fault.
struct Problem {
    status: StatusCode,
    detail: String,
    parameter: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), parameter: None }
    }
}

impl From<BadParameter> for Problem {
    fn from(bad: BadParameter) -> Problem {
        Problem { parameter: Some(bad.parameter), ..Problem::new(StatusCode::BAD_REQUEST, bad.detail) }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        tracing::error!(%error, "a query failed");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("the store cannot be read now: {error}"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(parameter) = self.parameter {
            body["parameter"] = parameter.into();
        }
        let mut response = (self.status, body.to_string()).into_response();
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn bad_parameter(parameter: &str, detail: String) -> Problem {
    BadParameter { parameter: parameter.to_owned(), detail }.into()
}
