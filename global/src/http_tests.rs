//! The query API through a real listener: what stands on the wire, byte by byte where it matters.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::fixture::{partial, transaction};
use crate::http::serve;
use crate::key::PANE_MS;
use crate::store::Store;

/// 2024-04-12T08:00:00Z.
const START_MS: i64 = 1_712_908_800_000;

struct Served {
    address: SocketAddr,
    store: Arc<Store>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
    _folder: tempfile::TempDir,
}

/// A store with one ad's clicks, one pane folded and one open, served as the edge serves it.
fn served() -> Served {
    let folder = tempfile::tempdir().expect("folder");
    let store = Arc::new(Store::open(&folder.path().join("store")).expect("a new store"));
    let partials = vec![
        partial("ad 1", START_MS, 0, 5, &[1, 2, 3]),
        partial("ad 1", START_MS, 1, 2, &[4]),
        partial("ad 1", START_MS + PANE_MS, 0, 1, &[1]),
        partial("ad_2", START_MS, 2, 7, &[]),
    ];
    store.commit(&transaction("e", 1, START_MS + PANE_MS, partials)).expect("commit");
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = listener.local_addr().expect("address");
    let (stop, stopped) = oneshot::channel();
    let server = std::thread::spawn({
        let store = store.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(serve(store, listener, stopped))
        }
    });
    Served { address, store, stop, server, _folder: folder }
}

struct Reply {
    status: u16,
    head: String,
    body: Value,
}

impl Served {
    fn request(&self, method: &str, path: &str) -> Reply {
        let mut stream = TcpStream::connect(self.address).expect("connect");
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("send");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("reply");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).expect("JSON") };
        Reply { status, head: head.to_lowercase(), body }
    }

    fn get(&self, path: &str) -> Value {
        let reply = self.request("GET", path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        assert!(reply.head.contains("content-type: application/json"), "{}", reply.head);
        reply.body
    }
}

#[test]
fn an_ads_counts_are_answered() {
    let served = served();
    let expected = json!({
        "ad_id": "ad 1", "from": "2024-04-12T08:00:00Z", "to": "2024-04-12T08:00:20Z",
        "click_count": 6, "gross": 8, "net": 6, "users": 3, "classes": {"valid": 6, "bot_user_agent": 2},
        "watermark": "2024-04-12T08:00:10Z",
    });
    assert_eq!(served.get("/v1/ads/ad%201/aggregated_count?from=1712908800&to=1712908811"), expected);
    assert_eq!(
        served.get("/v1/ads/ad%201/aggregated_count?from=2024-04-12T10:00:00%2B02:00&to=1712908819999"),
        expected
    );
    let first_pane = served.get("/v1/ads/ad%201/aggregated_count?from=1712908800000&to=1712908810000");
    assert_eq!((&first_pane["click_count"], &first_pane["gross"]), (&json!(5), &json!(7)));
}

#[test]
fn an_unknown_ad_has_zeros() {
    let served = served();
    let answer = served.get("/v1/ads/none/aggregated_count?from=0&to=1712908811");
    let counts = ["click_count", "gross", "net", "users"].map(|field| answer[field].clone());
    assert_eq!(counts, [json!(0), json!(0), json!(0), json!(0)]);
    assert_eq!(answer["classes"], json!({}));
}

#[test]
fn totals_are_over_all_ads() {
    let served = served();
    let answer = served.get("/v1/totals?from=1712908800&to=1712908820");
    let expected = json!({
        "from": "2024-04-12T08:00:00Z", "to": "2024-04-12T08:00:20Z",
        "click_count": 6, "gross": 15, "net": 6, "users": 3,
        "classes": {"valid": 6, "bot_user_agent": 2, "prefetch": 7}, "watermark": "2024-04-12T08:00:10Z",
    });
    assert_eq!(answer, expected);
}

/// Without a span, the last hour: a click of now is in it, those of 2024 are not. What is committed shows at once.
#[test]
fn the_default_span_is_the_last_hour() {
    let served = served();
    assert_eq!(served.get("/v1/totals")["gross"], json!(0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let pane_ms = now - now % PANE_MS;
    let recent = vec![partial("ad 1", pane_ms, 0, 4, &[]), partial("ad 1", pane_ms - 361 * PANE_MS, 0, 90, &[])];
    served.store.commit(&transaction("e", 2, now, recent)).expect("commit");
    assert_eq!(served.get("/v1/totals")["gross"], json!(4));
    assert_eq!(served.get("/v1/ads/ad%201/aggregated_count")["net"], json!(4));
}

/// Every refusal is problem+json with its status, and names the parameter where one is at fault.
#[test]
fn refusals_are_problems() {
    let served = served();
    let long = format!("/v1/ads/{}/aggregated_count", "x".repeat(65));
    let cases = [
        ("GET", "/v1/totals?from=x", 400, Some("from"), "\"x\" is no time"),
        ("GET", "/v1/totals?from=2024-04-12T10:00:00+02:00", 400, Some("from"), "%2B"),
        ("GET", "/v1/totals?from=20&to=10", 400, Some("to"), "must be after"),
        ("GET", "/v1/ads/a/aggregated_count?to=", 400, Some("to"), "is no time"),
        ("GET", "/v1/ads/a/aggregated_count?filter_region=DE", 400, Some("filter_region"), "not known"),
        ("GET", "/v1/ads/%ff/aggregated_count", 400, Some("ad_id"), "UTF-8"),
        ("GET", &long, 400, Some("ad_id"), "65 bytes"),
        ("GET", "/v1/ads//aggregated_count", 400, Some("ad_id"), "0 bytes"),
        ("GET", "/", 404, None, "no such path"),
        ("POST", "/v1/totals", 405, None, "GET"),
    ];
    for (method, path, status, parameter, words) in cases {
        let reply = served.request(method, path);
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.body);
        assert!(reply.head.contains("content-type: application/problem+json"), "{path}: {}", reply.head);
        assert_eq!(reply.body["status"], json!(status));
        assert_eq!(reply.body.get("parameter").and_then(Value::as_str), parameter, "{path}");
        let detail = reply.body["detail"].as_str().expect("a detail");
        assert!(detail.contains(words), "{path}: {detail}");
        let allows = reply.head.lines().filter(|line| *line == "allow: get,head").count();
        assert_eq!(allows, usize::from(status == 405), "{path}: {}", reply.head);
    }
}

/// Told to stop, the server ends although a client keeps its connection open and one sends half a request.
#[test]
fn the_server_stops_when_told() {
    let served = served();
    let _idle = TcpStream::connect(served.address).expect("connect");
    let mut half = TcpStream::connect(served.address).expect("connect");
    half.write_all(b"GET /v1/totals HTTP/1.1\r\nHo").expect("send");
    served.get("/v1/totals");
    let told = std::time::Instant::now();
    served.stop.send(()).expect("the server listens");
    served.server.join().expect("no panic").expect("no error");
    assert!(told.elapsed() < Duration::from_secs(5), "took {:?}", told.elapsed());
    assert!(TcpStream::connect(served.address).is_err(), "the listener is closed");
}
