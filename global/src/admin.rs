//! The admin port of `tollgate global`: metrics, readiness, and what an operator says of edges. For the host's own people: it
//! listens on the loopback unless told otherwise, and knows no tokens. What is scraped and probed answers to any name, for scrapers come
//! by names and through proxies; what commands ask and change, to an address and to no page of a browser.

use std::convert::Infallible;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::consumer::wall_ms;
use crate::edges::{EdgeState, TroubleKind};
use crate::guard;
use crate::http;
use crate::keeper::RoomSeen;
use crate::metrics::{Away, Meter};
use crate::query_side::QuerySide;
use crate::store::Store;

/// How often somebody who waits for an answer is told that there will be one: oftener than either side gives a silent connection up.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// What the port tells of.
#[derive(Clone)]
pub struct Admin {
    pub store: Arc<Store>,
    pub meter: Arc<Meter>,
    pub room: Arc<RoomSeen>,
    pub side: Arc<QuerySide>,
}

#[derive(Deserialize)]
struct To {
    to: PathBuf,
}

/// Serves the port until told to stop.
pub async fn serve(admin: Admin, listener: TcpListener, stop: oneshot::Receiver<()>) -> std::io::Result<()> {
    http::serve_router(router(admin), listener, stop).await
}

fn router(admin: Admin) -> Router {
    let for_commands = Router::new()
        .route("/edges", get(edges))
        .route("/edges/{edge_id}/retire", post(retire))
        .route("/edges/{edge_id}/accept", post(accept))
        .route("/backup", post(backup))
        .route_layer(middleware::from_fn(guard::let_operators_in));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .merge(for_commands)
        .with_state(admin)
}

/// Whatever reads or writes the store does so on a thread that may block.
async fn blocking<T: Send + 'static>(
    admin: Admin,
    work: impl FnOnce(&Admin) -> Result<T, String> + Send + 'static,
) -> Result<T, Response> {
    let done = tokio::task::spawn_blocking(move || work(&admin)).await;
    let failed = |error: String| (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": error }))).into_response();
    done.map_err(|error| failed(error.to_string()))?.map_err(failed)
}

async fn metrics(State(admin): State<Admin>) -> Result<Response, Response> {
    let text = blocking(admin, |admin| {
        let snapshot = admin.store.snapshot().map_err(|error| error.to_string())?;
        let text = admin.meter.text(&snapshot, &admin.room.get(), wall_ms()).map_err(|error| error.to_string())?;
        Ok(text + &admin.side.text())
    });
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((headers, text.await?).into_response())
}

/// Ready once it has caught up with the topic, and from then on: what it has is true as of a time that answers tell. So is what an
/// earlier run had caught up with, where Kafka is away. What a person should know stands in `note`.
async fn readyz(State(admin): State<Admin>) -> Result<Response, Response> {
    let (away, room, side) = (admin.meter.away(), admin.room.get(), admin.side.clone());
    let (caught_up, records_left) = (admin.meter.is_caught_up(), admin.meter.records_left());
    let read = blocking(admin, |admin| {
        let snapshot = admin.store.snapshot().map_err(|error| error.to_string())?;
        let edges = snapshot.edges(wall_ms()).map_err(|error| error.to_string())?;
        Ok((edges, snapshot.moment().has_caught_up))
    });
    let (edges, had_caught_up) = read.await?;
    let ready = caught_up || (away.is_some() && had_caught_up);
    let mut notes: Vec<_> = away.as_ref().map(away_note).into_iter().collect();
    notes.extend(edges.iter().filter_map(told_of));
    notes.extend(room.short());
    notes.extend(side.notes());
    if ready {
        return Ok(Json(json!({ "ready": true, "reason": "ready", "note": notes })).into_response());
    }
    let answer = json!({ "ready": false, "reason": "catching_up", "records_left": records_left, "note": notes });
    Ok((StatusCode::SERVICE_UNAVAILABLE, Json(answer)).into_response())
}

fn away_note(Away { since_ms, why }: &Away) -> String {
    format!("nothing is consumed since {}: {why}", http::format_time(*since_ms))
}

/// What a person should know of an edge.
fn told_of(edge: &EdgeState) -> Option<String> {
    if edge.held_at_ms.is_some() {
        return Some(format!("edge {} lacks clicks: `tollgate edges list`", edge.edge_id));
    }
    // Nothing waits for one of which nothing was ever counted.
    let is_silent = edge.presence == crate::edges::Presence::Silent && edge.holds_final_at_ms.is_some();
    is_silent.then(|| format!("edge {} is silent", edge.edge_id))
}

async fn edges(State(admin): State<Admin>) -> Result<Response, Response> {
    let away = admin.meter.away();
    let edges = blocking(admin, |admin| {
        let edges = admin.store.snapshot().and_then(|snapshot| snapshot.edges(wall_ms()));
        edges.map_err(|error| error.to_string())
    });
    let now_ms = wall_ms();
    let edges: Vec<Value> = edges.await?.iter().map(|edge| edge_json(edge, now_ms)).collect();
    Ok(Json(json!({ "edges": edges, "away": away.as_ref().map(away_note) })).into_response())
}

/// One edge, as `/edges` and `tollgate edges list --json` show it.
pub fn edge_json(edge: &EdgeState, now_ms: i64) -> Value {
    let troubles = edge.troubles.iter().map(|trouble| {
        let kind = TroubleKind::ALL.into_iter().find(|kind| kind.code() == trouble.kind).map(TroubleKind::name);
        json!({
            "kind": kind, "at_ms": trouble.at_ms, "txn_seq": trouble.txn_seq, "clicks_missing": trouble.clicks,
            "text": trouble.text,
        })
    });
    let seen =
        TroubleKind::ALL.iter().zip(edge.troubles_seen).map(|(kind, seen)| (kind.name().to_owned(), seen.into()));
    json!({
        "edge_id": edge.edge_id,
        "presence": edge.presence.name(),
        "seen_ms": edge.seen_ms,
        "silent_ms": edge.silent_ms(now_ms),
        "watermark_ms": edge.watermark_ms,
        "horizon_ms": edge.horizon_ms,
        "txn_seq": edge.txn_seq,
        "clicks": edge.clicks,
        "clicks_missing": edge.clicks_missing,
        "troubles_seen": serde_json::Map::from_iter(seen),
        "troubles": troubles.collect::<Vec<_>>(),
        "held_at_ms": edge.held_at_ms,
        "holds_final_at_ms": edge.holds_final_at_ms,
    })
}

async fn retire(State(admin): State<Admin>, Path(edge_id): Path<String>) -> Result<Response, Response> {
    change(admin, edge_id, Store::retire).await
}

async fn accept(State(admin): State<Admin>, Path(edge_id): Path<String>) -> Result<Response, Response> {
    change(admin, edge_id, Store::accept).await
}

async fn change(
    admin: Admin,
    edge_id: String,
    change: fn(&Store, &str, i64) -> Result<bool, crate::tables::StoreError>,
) -> Result<Response, Response> {
    let named = edge_id.clone();
    let known =
        blocking(admin, move |admin| change(&admin.store, &edge_id, wall_ms()).map_err(|error| error.to_string()));
    if known.await? {
        return Ok(Json(json!({ "edge_id": named })).into_response());
    }
    let error = format!("no edge {named:?} ever sent anything here; `tollgate edges list` shows those that did");
    Ok((StatusCode::NOT_FOUND, Json(json!({ "error": error }))).into_response())
}

/// A large store takes minutes.
async fn backup(State(admin): State<Admin>, Query(To { to }): Query<To>) -> Response {
    let named = to.display().to_string();
    let copying = tokio::task::spawn_blocking(move || admin.store.backup(&to).map_err(|error| error.to_string()));
    let answer = async move {
        match copying.await.map_err(|error| error.to_string()).flatten() {
            Ok(bytes) => json!({ "to": named, "bytes": bytes }),
            Err(error) => json!({ "error": error }),
        }
    };
    when_it_is_there(answer, ALIVE_EVERY)
}

/// JSON that may take long: until it is there a space now and then, which JSON may begin with. The status is told before the outcome
/// is known, so what went wrong is in the answer alone.
fn when_it_is_there(answer: impl Future<Output = Value> + Send + 'static, alive_every: Duration) -> Response {
    let pieces = stream::unfold(Some(Box::pin(answer)), move |waiting| async move {
        let mut answer = waiting?;
        Some(match timeout(alive_every, &mut answer).await {
            Ok(answer) => (Ok::<_, Infallible>(answer.to_string()), None),
            Err(_) => (Ok(" ".to_owned()), Some(answer)),
        })
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use crate::fixture::{partial, transaction};
    use crate::query_side::QuerySideConfig;
    use futures_util::StreamExt as _;
    use std::collections::BTreeMap;
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};

    fn ask(address: SocketAddr, line: &str, fields: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(stream, "{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n{fields}\r\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("a reply");
        text
    }

    /// A port over a new store; it is served until the sender goes.
    fn served(folder: &std::path::Path) -> (SocketAddr, Admin, oneshot::Sender<()>) {
        let store = Arc::new(Store::open(&folder.join("store")).expect("a new store"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let config = QuerySideConfig { data_dir: folder.to_owned(), ads: None, listen: address };
        let side = Arc::new(QuerySide::open(&config).expect("nothing is wrong"));
        let admin = Admin { store, meter: Arc::default(), room: Arc::default(), side };
        let (stop, stopped) = oneshot::channel();
        let serving = admin.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(serving, listener, stopped))
        });
        (address, admin, stop)
    }

    /// A balancer sends nobody to counts that are hours old because they are being read; old ones are better than none.
    #[test]
    fn it_is_ready_once_it_has_caught_up_or_kafka_is_away() {
        let folder = tempfile::tempdir().expect("folder");
        let (address, Admin { store, meter, .. }, _stop) = served(folder.path());
        let look = |status: &str, words: &[&str]| {
            let text = ask(address, "GET /readyz", "Host: edge-1.example:9465\r\n");
            let holds = words.iter().all(|word| text.contains(word));
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")) && holds, "{words:?}: {text}");
        };
        look("503", &["catching_up", "\"records_left\":null"]);
        meter.lag(0, 7);
        meter.lag(1, 2);
        look("503", &["\"ready\":false", "\"records_left\":9"]);
        meter.set_away(Some(Away { since_ms: 0, why: "no topic".to_owned() }));
        look("503", &["nothing is consumed since 1970-01-01T00:00:00Z: no topic", "\"records_left\":null"]);
        // As while a new store, or one that `--rebuild` began, reads the topic.
        store.set_source("cluster/topic").expect("written");
        let counts = |closing_cap_ms| {
            let offsets = BTreeMap::from([(0, 7)]);
            let batch = Batch { deliveries: &[], offsets: &offsets, now_ms: 20_000, closing_cap_ms };
            store.apply(&batch).expect("applied");
        };
        counts(Some(10_000));
        look("503", &["\"ready\":false", "no topic"]);
        counts(None);
        look("200", &["\"ready\":true", "no topic"]);
        meter.set_away(None);
        look("503", &["catching_up"]);
        meter.set_caught_up();
        meter.lag(0, 1_000_000);
        look("200", &["\"note\":[]"]);
    }

    /// A page of any site that is open in a browser on this host can send what needs no answer, and, with a name of its own that points
    /// here, read what it gets.
    #[test]
    fn no_page_of_a_browser_asks_what_commands_ask() {
        let folder = tempfile::tempdir().expect("folder");
        let (address, Admin { store, .. }, _stop) = served(folder.path());
        store.commit(&transaction("e", 1, 20_000, vec![partial("a", 0, 0, 5, &[])])).expect("committed");
        let retired = || store.snapshot().and_then(|snapshot| snapshot.edges(30_000)).expect("read")[0].presence;
        let copy = folder.path().join("copy");
        let (retire, backup) = ("POST /edges/e/retire", format!("POST /backup?to={}", copy.display()));
        for line in [retire, "POST /edges/e/accept", &backup, "GET /edges"] {
            for (fields, status) in [
                ("Host: evil.example:9465\r\n", "421"),
                ("Host: 127.0.0.1:9465\r\nOrigin: https://evil.example\r\n", "403"),
                ("Host: localhost:9465\r\nSec-Fetch-Site: cross-site\r\n", "403"),
                ("Host: evil.example\r\nOrigin: http://evil.example\r\nSec-Fetch-Site: same-origin\r\n", "421"),
            ] {
                let text = ask(address, line, fields);
                assert!(
                    text.starts_with(&format!("HTTP/1.1 {status}")) && text.contains("\"error\""),
                    "{line}: {text}"
                );
            }
        }
        assert!(!copy.exists() && retired() != crate::edges::Presence::Retired);
        for path in ["/metrics", "/healthz"] {
            assert!(ask(address, &format!("GET {path}"), "Host: edge-1.example:9465\r\n").starts_with("HTTP/1.1 200"));
        }
        for host in ["127.0.0.1:9465", "[::1]:9465", "localhost", "10.0.0.1"] {
            assert!(ask(address, retire, &format!("Host: {host}\r\n")).starts_with("HTTP/1.1 200"), "{host}");
        }
        assert_eq!(retired(), crate::edges::Presence::Retired);
    }

    /// A copy of a large store is not given up by who waits for it, nor its connection by this port.
    #[tokio::test]
    async fn who_waits_for_a_copy_is_told_that_it_is_made() {
        let (copied, copying) = oneshot::channel();
        let answer = async { json!({ "bytes": copying.await.expect("it is copied") }) };
        let mut body = when_it_is_there(answer, Duration::from_millis(1)).into_body().into_data_stream();
        let soon = Duration::from_secs(30);
        let mut next = async || {
            let piece = timeout(soon, body.next()).await.expect("something is said");
            piece.map(|piece| piece.expect("no error"))
        };
        assert_eq!(next().await.as_deref(), Some(&b" "[..]), "nothing is there yet");
        copied.send(7).expect("somebody waits");
        let mut text = String::new();
        while let Some(piece) = next().await {
            text += std::str::from_utf8(&piece).expect("UTF-8");
        }
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), json!({ "bytes": 7 }));
    }
}
