//! The query API through a real listener: what stands on the wire, byte by byte where it matters.

mod answers;
mod live;
mod pages;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tollgate_wire::Partial;

use self::live::Events;
use super::live::{CLIENTS_MAX, CLIENTS_OF_A_SCOPE_MAX, Live};
use super::reads::Reads;
use super::{Access, PortLimits, Shared, routes, serve, serve_until};
use crate::consumer::wall_ms;
use crate::dashboard::Page;
use crate::fixture::{partial, transaction};
use crate::key::PANE_MS;
use crate::query_side::{QuerySide, QuerySideConfig};
use crate::question::Scope;
use crate::store::Store;
use crate::window::{HOUR_MS, MINUTE_MS};

/// 2024-04-12T08:00:00Z.
const START_MS: i64 = 1_712_908_800_000;
/// Beyond it something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Served {
    address: SocketAddr,
    store: Arc<Store>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
    _folder: tempfile::TempDir,
}

/// Of campaign `c1` and advertiser `a1`, from France on a desktop.
fn elsewhere(ad_id: &str, pane_ms: i64, class: u32, clicks: u64) -> Partial {
    let mut partial = partial(ad_id, pane_ms, class, clicks, &[9]);
    (partial.region, partial.device, partial.agent) = ("FR".into(), 2, 3);
    (partial.campaign_id, partial.advertiser_id) = ("c1".into(), "a1".into());
    partial
}

/// A store with one ad's clicks, one pane folded and one open.
fn filled() -> (Arc<Store>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("folder");
    let store = Arc::new(Store::open(&folder.path().join("store")).expect("a new store"));
    let partials = vec![
        partial("ad 1", START_MS, 0, 5, &[1, 2, 3]),
        partial("ad 1", START_MS, 1, 2, &[4]),
        partial("ad 1", START_MS + PANE_MS, 0, 1, &[1]),
        partial("ad_2", START_MS, 2, 7, &[]),
    ];
    store.commit(&transaction("e", 1, START_MS + PANE_MS, partials)).expect("commit");
    (store, folder)
}

/// It, served as the edge serves it.
fn served() -> Served {
    let (store, folder) = filled();
    let (serving, data_dir) = (store.clone(), folder.path().to_owned());
    serve_with(store, folder, move |listener, stopped| {
        let listen = listener.local_addr().expect("address");
        let side =
            QuerySide::open(&QuerySideConfig { data_dir, ads: None, listen }).expect("no tokens, on the loopback");
        serve(serving, Arc::new(side), Page::default(), listener, stopped)
    })
}

fn shared_of(store: &Arc<Store>, live: &Arc<Live>) -> Shared {
    Shared { store: store.clone(), reads: Reads::default(), live: live.clone() }
}

/// Served to somebody who may see what this says.
fn served_to(access: Access, clients_max: usize, stall_ms: u32) -> (Served, Arc<Live>) {
    let (store, folder) = filled();
    let (ending, ended) = watch::channel(());
    let live = Arc::new(Live::with_clients_max(ended, clients_max));
    let router = super::routes(shared_of(&store, &live)).layer(axum::Extension(access));
    let served = serve_with(store, folder, move |listener, stopped: oneshot::Receiver<()>| async move {
        let stopped = async {
            let _ = stopped.await;
            drop(ending);
        };
        serve_until(router, listener, stopped, PortLimits { stall_ms, ..PortLimits::QUERY }).await
    });
    (served, live)
}

fn serve_with<F: Future<Output = std::io::Result<()>>>(
    store: Arc<Store>,
    folder: tempfile::TempDir,
    server: impl FnOnce(TcpListener, oneshot::Receiver<()>) -> F + Send + 'static,
) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = listener.local_addr().expect("address");
    let (stop, stopped) = oneshot::channel();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(server(listener, stopped))
    });
    Served { address, store, stop, server, _folder: folder }
}

struct Reply {
    status: u16,
    head: String,
    text: String,
    body: Value,
}

impl Reply {
    /// The value of a field that is there once.
    fn field(&self, name: &str) -> Option<&str> {
        let wanted = |line: &&str| line.to_lowercase().starts_with(&format!("{name}: "));
        self.head.lines().find(wanted).map(|line| &line[name.len() + 2..])
    }
}

impl Served {
    fn request(&self, method: &str, path: &str, fields: &str) -> Reply {
        let mut stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n")
            .expect("send");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("reply");
        let (head, text) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let body = serde_json::from_str(text).unwrap_or(Value::Null);
        Reply { status, head: head.to_owned(), text: text.to_owned(), body }
    }

    fn get(&self, path: &str) -> Value {
        let reply = self.request("GET", path, "");
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        assert_eq!(reply.field("content-type"), Some("application/json"), "{path}");
        reply.body
    }

    /// Commits one more transaction of the edge.
    fn commits(&self, seq: u64, watermark_ms: i64, partials: Vec<Partial>) {
        self.store.commit(&transaction("e", seq, watermark_ms, partials)).expect("commit");
    }
}

/// The fields of an object, as a test wants them.
fn fields(value: &Value, names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| value[*name].clone()).collect()
}

#[test]
fn an_ads_counts_are_answered() {
    let served = served();
    let expected = json!({
        "ad_id": "ad 1", "from": "2024-04-12T08:00:00Z", "to": "2024-04-12T08:00:20Z",
        "click_count": 6, "filter": {"region": null, "user_agent": null},
        "gross": 8, "net": 6, "users": 3, "classes": {"valid": 6, "bot_user_agent": 2}, "state": "open", "version": 0,
        "as_of": "2024-04-12T08:00:10Z", "watermark": "2024-04-12T08:00:10Z",
        "complete_up_to": "2024-04-12T08:00:10Z", "final_up_to": null,
    });
    assert_eq!(served.get("/v1/ads/ad%201/aggregated_count?from=1712908800&to=1712908811"), expected);
    assert_eq!(
        served.get("/v1/ads/ad%201/aggregated_count?from=2024-04-12T10:00:00%2B02:00&to=1712908819999"),
        expected
    );
    let first_pane = served.get("/v1/ads/ad%201/aggregated_count?from=1712908800000&to=1712908810000");
    // No click is expected in it, and its minute, by which corrections are kept, is open.
    assert_eq!(
        fields(&first_pane, &["click_count", "gross", "state", "version"]),
        [json!(5), json!(7), json!("open"), json!(0)]
    );
}

#[test]
fn an_unknown_ad_has_zeros() {
    let served = served();
    for path in ["ads/none", "campaigns/none", "advertisers/none"] {
        let answer = served.get(&format!("/v1/{path}/aggregated_count?from=0&to=1712908811"));
        assert_eq!(fields(&answer, &["click_count", "gross", "net", "users"]), [0, 0, 0, 0], "{path}");
        assert_eq!(answer["classes"], json!({}));
    }
    let rows = served.get("/v1/ads/none/aggregated_count?from=1712908800&to=1712908811&granularity=1m&group_by=class");
    assert_eq!(rows["rows"], json!([]));
}

#[test]
fn totals_are_over_all_ads() {
    let answer = served().get("/v1/totals?from=1712908800&to=1712908820");
    assert_eq!(fields(&answer, &["click_count", "gross", "net", "users"]), [6, 15, 6, 3]);
    assert_eq!(answer["classes"], json!({"valid": 6, "bot_user_agent": 2, "prefetch": 7}));
    assert_eq!(answer.get("ad_id"), None);
}

/// Without a span, the last hour: a click of now is in it, those of 2024 are not. What is committed shows at once.
#[test]
fn the_default_span_is_the_last_hour() {
    let served = served();
    assert_eq!(served.get("/v1/totals")["gross"], json!(0));
    let now = wall_ms();
    let pane_ms = now - now % PANE_MS;
    let recent = vec![partial("ad 1", pane_ms, 0, 4, &[]), partial("ad 1", pane_ms - 361 * PANE_MS, 0, 90, &[])];
    served.commits(2, now, recent);
    assert_eq!(served.get("/v1/totals")["gross"], json!(4));
    assert_eq!(served.get("/v1/ads/ad%201/aggregated_count")["net"], json!(4));
}

/// Rows of windows and groups add up to the whole, whoever is asked for.
#[test]
fn rows_are_told_apart_by_window_and_group() {
    let served = served();
    served.commits(
        2,
        START_MS + 3 * MINUTE_MS,
        vec![elsewhere("ad 1", START_MS + MINUTE_MS, 0, 11), elsewhere("ad_3", START_MS + MINUTE_MS, 2, 13)],
    );
    let span = "from=1712908800&to=1712908920";
    let rows = served.get(&format!("/v1/ads/ad%201/aggregated_count?{span}&granularity=1m&group_by=region"));
    assert_eq!(
        fields(&rows, &["from", "to", "granularity", "group_by"]),
        ["2024-04-12T08:00:00Z", "2024-04-12T08:02:00Z", "1m", "region"]
    );
    assert_eq!(
        rows["rows"],
        json!([
            {"window_start": "2024-04-12T08:00:00Z", "window_end": "2024-04-12T08:01:00Z", "region": "DE", "gross": 8, "net": 6,
             "users": 3, "state": "closed", "version": 1},
            {"window_start": "2024-04-12T08:01:00Z", "window_end": "2024-04-12T08:02:00Z", "region": "FR", "gross": 11, "net": 11,
             "users": 1, "state": "closed", "version": 1},
        ])
    );
    let cases = [
        ("totals", "group_by=ad", json!([["ad 1", 19], ["ad_2", 7], ["ad_3", 13]]), "ad_id"),
        ("totals", "group_by=class", json!([["valid", 17], ["bot_user_agent", 2], ["prefetch", 20]]), "class"),
        ("totals", "group_by=device", json!([["unknown", 15], ["desktop", 24]]), "device"),
        ("totals", "group_by=agent&filter_region=FR", json!([["firefox", 24]]), "agent"),
        ("campaigns/c1/aggregated_count", "group_by=ad", json!([["ad 1", 11], ["ad_3", 13]]), "ad_id"),
        ("advertisers/a1/aggregated_count", "group_by=ad", json!([["ad 1", 11], ["ad_3", 13]]), "ad_id"),
        ("advertisers/a1/aggregated_count", "group_by=region&filter_user_agent=desktop", json!([["FR", 24]]), "region"),
        ("totals", "group_by=region&filter_user_agent=firefox", json!([["FR", 24]]), "region"),
        ("totals", "group_by=region&filter_user_agent=tablet", json!([]), "region"),
    ];
    for (path, query, expected, field) in cases {
        let answer = served.get(&format!("/v1/{path}?{span}&{query}"));
        let rows = answer["rows"].as_array().expect("rows");
        let found: Vec<Value> = rows.iter().map(|row| json!([row[field], row["gross"]])).collect();
        assert_eq!(json!(found), expected, "{path} {query}");
        let sum: u64 = rows.iter().filter_map(|row| row["gross"].as_u64()).sum();
        assert_eq!(answer["gross"], json!(sum), "{path} {query}");
    }
    let of_campaign = served.get(&format!("/v1/campaigns/c1/aggregated_count?{span}"));
    assert_eq!(fields(&of_campaign, &["campaign_id", "gross", "net"]), [json!("c1"), json!(24), json!(11)]);
    let filtered = served.get(&format!("/v1/totals?{span}&filter_region=DE&filter_user_agent=unknown"));
    assert_eq!(filtered["filter"], json!({"region": "DE", "user_agent": "unknown"}));
    assert_eq!(filtered["gross"], json!(15));
}

#[test]
fn rows_come_as_csv_too() {
    let served = served();
    served.commits(2, START_MS + PANE_MS, vec![partial("z,\"b\"", START_MS + PANE_MS, 0, 3, &[])]);
    let span = "from=1712908800&to=1712908820";
    let reply = served.request("GET", &format!("/v1/totals?{span}&group_by=ad&format=csv&limit=2"), "");
    assert_eq!((reply.status, reply.field("content-type")), (200, Some("text/csv; charset=utf-8; header=present")));
    assert!(reply.field("link").is_some_and(|link| link.ends_with("; rel=\"next\"")), "{}", reply.head);
    let window = "2024-04-12T08:00:00Z,2024-04-12T08:00:20Z";
    let expected = format!(
        "window_start,window_end,ad_id,gross,net,users,state,version\r\n{window},ad 1,8,6,3,open,0\r\n{window},ad_2,7,0,0,open,0\r\n"
    );
    assert_eq!(reply.text, expected);
    let quoted = served.request("GET", &format!("/v1/totals?{span}&group_by=ad&format=csv"), "");
    assert!(quoted.text.ends_with(&format!("{window},\"z,\"\"b\"\"\",3,3,0,open,0\r\n")), "{}", quoted.text);
    let whole = served.request("GET", &format!("/v1/ads/ad%201/aggregated_count?{span}&format=csv"), "");
    assert_eq!(
        whole.text,
        format!("window_start,window_end,gross,net,users,state,version\r\n{window},8,6,3,open,0\r\n")
    );
}

#[test]
fn ads_are_ranked() {
    let served = served();
    let answer = served.request("GET", "/v1/ads/top_k", "");
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")), "not read from the store yet");
    while served.store.keep_up(START_MS + PANE_MS).expect("kept") {}
    served.commits(2, START_MS + PANE_MS, vec![elsewhere("ad_3", START_MS, 1, 9), elsewhere("ad_3", START_MS, 0, 1)]);
    let expected = json!({
        "window_start": "2024-04-12T07:59:10Z", "window_end": "2024-04-12T08:00:10Z", "by": "net", "filter": {"region": null},
        "top_ads": [
            {"ad_id": "ad 1", "click_count": 5, "gross": 7, "net": 5}, {"ad_id": "ad_3", "click_count": 1, "gross": 10, "net": 1},
        ],
        "as_of": "2024-04-12T08:00:10Z", "watermark": "2024-04-12T08:00:10Z", "complete_up_to": "2024-04-12T08:00:10Z",
        "final_up_to": null,
    });
    assert_eq!(served.get("/v1/ads/top_k"), expected);
    let first = |query: &str| served.get(&format!("/v1/ads/top_k?{query}"))["top_ads"].clone();
    assert_eq!(first("by=gross&k=1"), json!([{"ad_id": "ad_3", "click_count": 1, "gross": 10, "net": 1}]));
    for minutes in [5, 60] {
        assert_eq!(
            first(&format!("window_minutes={minutes}&filter_region=FR")),
            json!([{"ad_id": "ad_3", "click_count": 1, "gross": 10, "net": 1}])
        );
    }
}

#[test]
fn what_is_invalid_is_told_by_class() {
    let served = served();
    let answer = served.get("/v1/ads/ad%201/invalid?from=1712908800&to=1712908820");
    assert_eq!(fields(&answer, &["ad_id", "gross", "net", "invalid"]), [json!("ad 1"), json!(8), json!(6), json!(2)]);
    assert_eq!(answer["classes"], json!({"bot_user_agent": 2, "prefetch": 0}));
    let filtered = served.get("/v1/ads/ad%201/invalid?from=1712908800&to=1712908820&filter_user_agent=mobile");
    assert_eq!(fields(&filtered, &["gross", "invalid"]), [0, 0]);
    assert_eq!(filtered["filter"], json!({"region": null, "user_agent": "mobile"}));
}

/// A click that comes after its minute was closed is a version, with its time and reason; the answer's ETag changes with it.
#[test]
fn corrections_are_versions() {
    let served = served();
    served.commits(2, START_MS + 2 * MINUTE_MS, vec![]);
    let path = "/v1/ads/ad%201/aggregated_count?from=1712908800&to=1712908860&granularity=1m";
    let before = served.request("GET", path, "");
    served.commits(3, START_MS + 2 * MINUTE_MS + PANE_MS, vec![partial("ad 1", START_MS, 1, 2, &[])]);
    let after = served.request("GET", path, "");
    assert_eq!(fields(&before.body["rows"][0], &["gross", "version"]), [8, 1]);
    assert_eq!(fields(&after.body["rows"][0], &["gross", "version"]), [10, 2]);
    assert_ne!(before.field("etag"), after.field("etag"));
    let history = served.get("/v1/ads/ad%201/history?from=1712908805&to=1712908810");
    assert_eq!(fields(&history, &["from", "to"]), ["2024-04-12T08:00:00Z", "2024-04-12T08:01:00Z"]);
    assert_eq!(
        history["corrections"],
        json!([{
            "window_start": "2024-04-12T08:00:00Z", "window_end": "2024-04-12T08:01:00Z", "version": 2, "versions": 1,
            "at": "2024-04-12T08:02:10Z", "reason": "late", "gross_added": 2, "net_added": 0,
        }])
    );
    assert_eq!(served.get("/v1/ads/ad_2/history?from=1712908800&to=1712908860")["corrections"], json!([]));
}

#[test]
fn edges_say_how_far_they_are() {
    let served = served();
    let answer = served.get("/v1/edges");
    let edge = &answer["edges"][0];
    assert_eq!(
        fields(edge, &["edge_id", "presence", "seen", "watermark", "clicks", "held_at"]),
        [
            json!("e"),
            json!("silent"),
            json!("2024-04-12T08:00:10Z"),
            json!("2024-04-12T08:00:10Z"),
            json!(15),
            Value::Null
        ]
    );
    assert!(edge["lag_ms"].as_i64().is_some_and(|lag_ms| lag_ms > HOUR_MS), "{edge}");
    assert_eq!(edge["troubles_seen"], json!({"gap": 0, "torn": 0, "repeated": 0, "overlap": 0}));
}

#[test]
fn the_methodology_is_what_is_in_force() {
    let served = served();
    let answer = served.get("/v1/methodology");
    assert_eq!(answer["edges"]["idle_after_ms"], json!(served.store.options().idle_after_ms));
    assert_eq!(answer["retention"][0], json!({"grain": "pane", "grain_ms": 10_000, "kept_ms": 2 * 24 * HOUR_MS}));
    assert_eq!(answer["classes"].as_array().map(Vec::len), Some(3));
    assert_eq!(answer["users"]["standard_error"], json!(0.016));
}

/// 304 where the asker has the answer, whatever was committed since that changed nothing of it.
#[test]
fn an_answer_that_is_known_is_not_sent_again() {
    let served = served();
    let span = "from=1712908800&to=1712908810";
    for path in [
        format!("/v1/ads/ad%201/aggregated_count?{span}"),
        format!("/v1/totals?{span}&granularity=1m&group_by=ad"),
        format!("/v1/totals?{span}&format=csv"),
        format!("/v1/ads/ad%201/invalid?{span}"),
        format!("/v1/ads/ad%201/history?{span}"),
        "/v1/methodology".to_owned(),
        "/openapi.json".to_owned(),
    ] {
        let first = served.request("GET", &path, "");
        let etag = first.field("etag").expect("an ETag").to_owned();
        assert_eq!(first.field("cache-control"), Some("private, no-cache"), "{path}");
        for (given, status) in [(etag.as_str(), 304), ("*", 304), (&format!("\"x\", {etag}"), 304), ("W/\"x\"", 200)] {
            let again = served.request("GET", &path, &format!("If-None-Match: {given}\r\n"));
            assert_eq!((again.status, again.text.is_empty()), (status, status == 304), "{path} {given}");
            assert_eq!(again.field("etag"), Some(etag.as_str()), "{path}");
        }
    }
    let path = format!("/v1/totals?{span}");
    let first = served.request("GET", &path, "");
    let etag = first.field("etag").expect("an ETag").to_owned();
    let asked = format!("If-None-Match: {etag}\r\n");
    served.commits(2, START_MS + PANE_MS + 1, vec![partial("ad 1", START_MS + PANE_MS, 0, 1, &[])]);
    assert_eq!(served.request("GET", &path, &asked).status, 304, "nothing of it changed");
    served.commits(3, START_MS + PANE_MS + 1, vec![partial("ad 1", START_MS, 0, 1, &[])]);
    assert_eq!(served.request("GET", &path, &asked).status, 200, "one more click");
    let other = served.request("GET", &format!("{path}&format=csv"), "");
    assert_ne!(other.field("etag"), served.request("GET", &path, "").field("etag"), "other bytes");
}

/// Every refusal is problem+json with its status, and names the parameter where one is at fault, what was given, what is allowed.
#[test]
fn refusals_are_problems() {
    let served = served();
    let long = format!("/v1/ads/{}/aggregated_count", "x".repeat(65));
    let cases = [
        ("/v1/totals?from=x", "from", "x", "RFC 3339"),
        ("/v1/totals?from=2024-04-12T10:00:00+02:00", "from", "2024-04-12T10:00:00 02:00", "%2B"),
        ("/v1/totals?from=20&to=10", "to", "1970-01-01T00:00:10Z", "after from, which is 1970-01-01T00:00:20Z"),
        ("/v1/totals?from=99999999999", "from", "5138-11-16T09:46:39Z", "before now"),
        ("/v1/totals?from=5&from=5", "from", "5", "once"),
        ("/v1/ads/a/aggregated_count?to=", "to", "", "RFC 3339"),
        ("/v1/ads/a/aggregated_count?From=5", "From", "5", "from, to, granularity"),
        ("/v1/ads/a/aggregated_count?granularity=2m", "granularity", "2m", "1m, 5m, 1h, 1d"),
        ("/v1/totals?from=0&granularity=1m", "granularity", "1m", "at most 11520"),
        ("/v1/ads/a/aggregated_count?filter_region=D%20E", "filter_region", "D E", "1 to 16 letters"),
        ("/v1/ads/a/aggregated_count?filter_region=", "filter_region", "", "1 to 16 letters"),
        ("/v1/ads/a/aggregated_count?filter_user_agent=Chrome", "filter_user_agent", "Chrome", "mobile, desktop"),
        ("/v1/ads/a/aggregated_count?group_by=ad", "group_by", "ad", "one of region, device, agent, class"),
        ("/v1/totals?group_by=city", "group_by", "city", "one of ad, region"),
        ("/v1/totals?limit=0", "limit", "0", "1 to 10000"),
        ("/v1/totals?limit=10001", "limit", "10001", "1 to 10000"),
        ("/v1/totals?limit=%2B5", "limit", "+5", "a whole number"),
        ("/v1/totals?cursor=zz", "cursor", "zz", "next_cursor"),
        ("/v1/totals?format=xml", "format", "xml", "json, csv"),
        ("/v1/ads/top_k?window_minutes=2", "window_minutes", "2", "1, 5, 60"),
        ("/v1/ads/top_k?k=1001", "k", "1001", "1 to 1000"),
        ("/v1/ads/top_k?by=users", "by", "users", "net, gross"),
        ("/v1/ads/top_k?from=5", "from", "5", "window_minutes, k, filter_region, by"),
        ("/v1/ads/a/invalid?granularity=1m", "granularity", "1m", "from, to"),
        ("/v1/ads/a/history?group_by=class", "group_by", "class", "from, to"),
        ("/v1/edges?x=1", "x", "1", "no parameter"),
        ("/v1/methodology?x=1", "x", "1", "no parameter"),
        ("/v1/live?x=1", "x", "1", "no parameter"),
        ("/openapi.json?x=1", "x", "1", "no parameter"),
        ("/v1/ads/%ff/aggregated_count", "ad_id", "", "UTF-8"),
        ("/v1/ads/a%zz/history", "ad_id", "", "%25 for %"),
        ("/v1/totals?filter_region=%ff", "filter_region", "%ff", "UTF-8"),
        ("/v1/totals?to=5%", "to", "5%", "two hexadecimal digits"),
        ("/v1/totals?fr%zzom=5", "fr%zzom", "fr%zzom", "two hexadecimal digits"),
        (&long, "ad_id", &"x".repeat(65), "1 to 64 characters"),
        ("/v1/ads//aggregated_count", "ad_id", "", "1 to 64 characters"),
        ("/v1/campaigns//aggregated_count", "campaign_id", "", "1 to 64 characters"),
        ("/v1/advertisers//aggregated_count", "advertiser_id", "", "1 to 64 characters"),
    ];
    for (path, parameter, given, allowed) in cases {
        let reply = served.request("GET", path, "");
        assert_eq!((reply.status, reply.field("content-type")), (400, Some("application/problem+json")), "{path}");
        assert_eq!(
            fields(&reply.body, &["status", "parameter", "given"]),
            [json!(400), json!(parameter), json!(given)],
            "{path}"
        );
        let said = reply.body["allowed"].as_str().expect("what is allowed");
        assert!(said.contains(allowed), "{path}: {said}");
        let detail = reply.body["detail"].as_str().expect("a detail");
        assert!(detail.contains(parameter) || parameter == "ad_id", "{path}: {detail}");
    }
}

#[test]
fn paths_and_methods_that_are_not_there_are_named() {
    let served = served();
    for path in ["/v1", "/v1/totals/", "/v1/ads/a", "/v1/ads/a/b/aggregated_count", "/v2/totals"] {
        let reply = served.request("GET", path, "");
        assert_eq!((reply.status, reply.field("content-type")), (404, Some("application/problem+json")), "{path}");
        let detail = reply.body["detail"].as_str().expect("a detail");
        assert!(detail.contains(path) && routes::ALL.iter().all(|route| detail.contains(route.path)), "{detail}");
    }
    for route in routes::ALL {
        let path = route.path.replace(['{', '}'], "");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
            not_allowed(&served.request(method, &path, "Content-Length: 0\r\n"), "GET,HEAD");
        }
        if *route.path != *routes::TOP.path {
            let (head, get) = (served.request("HEAD", &path, ""), "200");
            assert_eq!((head.status.to_string(), head.text.as_str()), (get.to_owned(), ""), "HEAD {path}");
        }
    }
}

#[track_caller]
fn not_allowed(reply: &Reply, allow: &str) {
    let found = (reply.status, reply.field("allow"), reply.field("content-type"));
    assert_eq!(found, (405, Some(allow), Some("application/problem+json")), "{}", reply.text);
    assert_eq!(reply.body["status"], 405);
}

/// The pages and the session are other routers' than the API.
#[test]
fn every_path_of_the_port_refuses_in_the_same_way() {
    let served = served();
    for method in ["PUT", "OPTIONS", "PATCH", "TRACE"] {
        not_allowed(&served.request(method, "/v1/session", "Content-Length: 0\r\n"), "GET,HEAD,POST,DELETE");
        for page in ["/", "/dashboard/app.js", "/dashboard/uplot.css"] {
            not_allowed(&served.request(method, page, "Content-Length: 0\r\n"), "GET,HEAD");
        }
    }
    for path in ["/dashboard", "/dashboard/none.js", "/index.html", "/v1/session/", "/favicon.ico"] {
        let reply = served.request("GET", path, "");
        assert_eq!((reply.status, reply.field("content-type")), (404, Some("application/problem+json")), "{path}");
        assert!(reply.text.contains("/v1/session"), "it says which there are: {}", reply.text);
    }
    assert_eq!(served.request("HEAD", "/v1/session", "").status, 200);
}

/// The document names every route with its parameters, and every schema that it refers to is there.
#[test]
fn the_document_is_whole() {
    let document = served().get("/openapi.json");
    assert_eq!(document["openapi"], json!("3.1.0"));
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), routes::ALL.len() + 1);
    let session: Vec<_> = paths["/v1/session"].as_object().expect("methods").keys().collect();
    assert_eq!(session, ["delete", "get", "post"]);
    for route in routes::ALL {
        let parameters = paths[route.path]["get"]["parameters"].as_array().expect("parameters");
        assert_eq!(parameters.len(), route.parameters.len() + usize::from(route.id.is_some()), "{}", route.path);
    }
    let (text, schemas) = (document.to_string(), document["components"]["schemas"].as_object().expect("schemas"));
    for referred in text.split("#/components/schemas/").skip(1) {
        let name = referred.split('"').next().unwrap_or_default();
        assert!(schemas.contains_key(name), "{name}");
    }
    assert!(schemas.keys().all(|name| text.contains(&format!("#/components/schemas/{name}\""))));
}

/// Whoever may see one campaign sees its rows on every route, and nothing of the others.
#[test]
fn a_scope_holds_on_every_route() {
    let scope = Scope { campaigns: ["c1".to_owned()].into(), ..Scope::default() };
    let (served, _) = served_to(Access::Scoped(Arc::new(scope)), CLIENTS_MAX, 10_000);
    while served.store.keep_up(START_MS).expect("kept") {}
    served.commits(2, START_MS + 2 * MINUTE_MS, vec![elsewhere("ad 1", START_MS + MINUTE_MS, 0, 11)]);
    served.commits(3, START_MS + 2 * MINUTE_MS, vec![partial("ad_2", START_MS, 0, 1, &[])]);
    let gross = |path: &str| served.get(&format!("{path}?from=1712908800&to=1712908920"))["gross"].clone();
    assert_eq!(gross("/v1/totals"), json!(11));
    assert_eq!(gross("/v1/ads/ad%201/aggregated_count"), json!(11), "the rest of the ad is of no campaign");
    assert_eq!(gross("/v1/ads/ad_2/aggregated_count"), json!(0));
    assert_eq!(gross("/v1/ads/ad%201/invalid"), json!(11));
    assert_eq!(gross("/v1/campaigns/c1/aggregated_count"), json!(11));
    assert_eq!(gross("/v1/campaigns/c2/aggregated_count"), json!(0));
    assert_eq!(gross("/v1/advertisers/a1/aggregated_count"), json!(11));
    assert_eq!(
        served.get("/v1/ads/top_k")["top_ads"],
        json!([{"ad_id": "ad 1", "click_count": 11, "gross": 11, "net": 11}])
    );
    let of_another = served.get("/v1/ads/ad_2/aggregated_count?from=1712908800&to=1712908860");
    assert_eq!(
        fields(&of_another, &["state", "version"]),
        [json!("closed"), json!(1)],
        "its corrections are not shown"
    );
    let history = served.get("/v1/ads/ad_2/history?from=1712908800&to=1712908920");
    assert_eq!(history["corrections"], json!([]), "another's ad");
    // One click of one's own campaign that names an ad opens nothing of what others' clicks corrected.
    let path = "/v1/ads/ad%201/aggregated_count?from=1712908800&to=1712908920";
    let before = served.request("GET", path, "");
    served.commits(4, START_MS + 2 * MINUTE_MS, vec![partial("ad 1", START_MS, 0, 1, &[])]);
    let after = served.request("GET", path, "");
    assert_eq!((&after.body["version"], after.field("etag")), (&json!(1), before.field("etag")));
    let history = served.get("/v1/ads/ad%201/history?from=1712908800&to=1712908920");
    assert_eq!(history["corrections"], json!([]), "an ad of which it has one click");
    let edge = &served.get("/v1/edges")["edges"][0];
    assert_eq!((edge["presence"].as_str(), edge.get("clicks")), (Some("silent"), None));
    let (state, _) = Events::of(&served).next();
    assert_eq!((state.get("ledger"), &state["top_ads"]["ads"][0]["net"]), (None, &json!(11)));
    assert_eq!(state["clicks_per_second"], json!({"over_ms": 60_000, "net": 0.2, "invalid": {}}));
}

/// Without a word of what it may see, a request is not answered.
#[test]
fn nothing_is_answered_where_nobody_said_what_may_be_seen() {
    let (store, folder) = filled();
    let (_ending, ended) = watch::channel(());
    let router = super::routes(shared_of(&store, &Arc::new(Live::new(ended))));
    let served = serve_with(store, folder, move |listener, stopped: oneshot::Receiver<()>| async move {
        let stopped = async {
            let _ = stopped.await;
        };
        serve_until(router, listener, stopped, PortLimits::QUERY).await
    });
    for route in routes::ALL {
        let reply = served.request("GET", &route.path.replace(['{', '}'], ""), "");
        assert_eq!(reply.status, 500, "{}", route.path);
    }
}
