//! Who is let in to the query port, over real sockets: tokens, scopes, rates, the cookie, and what ends when a token does.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::middleware;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tollgate_wire::Partial;

use crate::dashboard::Page;
use crate::fixture::{partial, transaction};
use crate::guard::{self, Guard};
use crate::http::{serve, serve_router};
use crate::query_side::{QuerySide, QuerySideConfig, Refused};
use crate::question::Scope;
use crate::store::Store;
use crate::tokens::{Draft, TokenFile};

/// 2024-04-12T08:00:00Z.
const START_MS: i64 = 1_712_908_800_000;
const SPAN: &str = "from=1712908800&to=1712908860";

struct Served {
    address: SocketAddr,
    side: Arc<QuerySide>,
    folder: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("JSON: {}", self.body))
    }

    #[track_caller]
    fn refused(&self, status: u16) -> &Reply {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        assert_eq!(self.json()["status"], status);
        self
    }
}

/// Two campaigns' ads, behind a port that lets in by the tokens of a folder.
fn served() -> Served {
    let folder = tempfile::tempdir().expect("folder");
    let store = Arc::new(Store::open(&folder.path().join("store")).expect("a new store"));
    let of = |ad_id: &str, campaign_id: &str, clicks| Partial {
        campaign_id: campaign_id.into(),
        ..partial(ad_id, START_MS, 0, clicks, &[])
    };
    let partials = vec![of("ad_a", "a", 5), of("ad_b", "b", 70)];
    store.commit(&transaction("e", 1, START_MS, partials)).expect("committed");
    with(folder, move |side, listener, stopped| serve(store, side, Page::default(), listener, stopped))
}

fn with<F: Future<Output = std::io::Result<()>>>(
    folder: tempfile::TempDir,
    server: impl FnOnce(Arc<QuerySide>, TcpListener, oneshot::Receiver<()>) -> F + Send + 'static,
) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = listener.local_addr().expect("address");
    let config = QuerySideConfig { data_dir: folder.path().to_owned(), ads: None, listen: address };
    let side = Arc::new(QuerySide::open(&config).expect("nothing is wrong"));
    let (stop, stopped) = oneshot::channel();
    let used = side.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(server(used, listener, stopped))
    });
    Served { address, side, folder, _stop: stop }
}

impl Served {
    fn token(&self, scope: Option<&str>, rate_per_s: u32) -> String {
        let scope = scope.map(|id| Scope { campaigns: [id.to_owned()].into(), ..Scope::default() });
        let draft = Draft { name: String::new(), scope, rate_per_s };
        let (_, text) = TokenFile::create(self.folder.path(), &draft, 1).expect("made");
        self.side.tokens.look();
        text
    }

    fn revoke(&self, at: usize) {
        let id = self.side.tokens.now().all()[at].id.clone();
        TokenFile::revoke(self.folder.path(), &id, 2).expect("revoked");
        self.side.tokens.look();
    }

    fn connect(&self, method: &str, path: &str, fields: &[&str], body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n"
        );
        stream.write_all((head + body).as_bytes()).expect("sent");
        stream
    }

    fn ask(&self, method: &str, path: &str, fields: &[&str], body: &str) -> Reply {
        let mut text = String::new();
        self.connect(method, path, fields, body).read_to_string(&mut text).expect("a reply");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Reply { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn get(&self, path: &str, token: &str) -> Reply {
        let path = if path.contains("session") { path.to_owned() } else { format!("{path}?{SPAN}") };
        let field = format!("Authorization: Bearer {token}");
        let fields = [field.as_str()];
        self.ask("GET", &path, if token.is_empty() { &[] } else { &fields }, "")
    }

    #[track_caller]
    fn gross(&self, path: &str, token: &str) -> u64 {
        let reply = self.get(path, token);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        reply.json()["gross"].as_u64().expect("a count")
    }
}

fn ad(id: &str) -> String {
    format!("/v1/ads/{id}/aggregated_count")
}

#[test]
fn the_loopback_is_open_until_there_is_a_token_and_then_everybody_needs_one() {
    let served = served();
    assert_eq!(served.gross("/v1/totals", ""), 75);
    assert_eq!(served.get("/v1/session", "").json(), json!({ "token": null, "access": "all" }));
    let token = served.token(None, 1_000);
    let refused = served.get("/v1/totals", "");
    assert!(refused.refused(401).head.contains("www-authenticate: bearer realm=\"tollgate\"\r"), "{}", refused.head);
    assert_eq!(served.gross("/v1/totals", &token), 75);
    let not_one =
        [token.replace("tgt_", "tgt-"), format!("{token}0"), "x".to_owned(), "tgt_".to_owned() + &"0".repeat(64)];
    for wrong in &not_one {
        let refused = served.get("/v1/totals", wrong);
        assert!(refused.refused(401).head.contains("error=\"invalid_token\""), "{}", refused.head);
        assert!(!refused.body.contains(wrong.as_str()), "{}", refused.body);
    }
    let twice = format!("Authorization: Bearer {token}");
    for fields in [&["Authorization: Basic eDp5"][..], &[&twice, &twice], &["Authorization: Bearer"]] {
        served.ask("GET", "/v1/totals", fields, "").refused(401);
    }
    served.revoke(0);
    served.get("/v1/totals", &token).refused(401);
    served.get("/v1/totals", "").refused(401);
    // Paths that are nobody's secret are told apart from those that need a token.
    served.ask("GET", "/nothing", &[], "").refused(404);
    served.ask("GET", "/v1/nothing", &[], "").refused(401);
    let text = served.side.text();
    for (why, count) in [(Refused::NoToken, 3), (Refused::BadToken, 8), (Refused::Rate, 0)] {
        let line = format!("tollgate_global_queries_refused_total{{reason=\"{}\"}} {count}\n", why.name());
        assert!(text.contains(&line), "{line}{text}");
    }
}

/// A page of another site can give the loopback a name of its own; it keeps that name.
#[test]
fn without_tokens_it_is_asked_by_address_or_as_localhost() {
    let served = served();
    let ask = |host: &str| {
        let mut stream = TcpStream::connect(served.address).expect("connect");
        write!(stream, "GET /v1/totals HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("a reply");
        text
    };
    for own in ["localhost", "LOCALHOST:8090", "127.0.0.1", "127.0.0.1:8090", "[::1]:8090", "[::1]"] {
        assert!(ask(own).starts_with("HTTP/1.1 200"), "{own}");
    }
    for foreign in ["evil.example", "evil.example:8090", "localhost.evil.example", "127.0.0.1.evil.example:80", ""] {
        let text = ask(foreign);
        assert!(text.starts_with("HTTP/1.1 421") && text.contains("tollgate token create"), "{foreign}: {text}");
    }
    assert!(served.side.text().contains("tollgate_global_queries_refused_total{reason=\"host\"} 5\n"));
}

#[test]
fn a_scope_has_its_own_rows_of_all_and_of_an_ad_and_is_told_which_it_is() {
    let served = served();
    let (a, b, all) = (served.token(Some("a"), 1_000), served.token(Some("b"), 1_000), served.token(None, 1_000));
    let seen = |token: &str| {
        [served.gross("/v1/totals", token), served.gross(&ad("ad_a"), token), served.gross(&ad("ad_b"), token)]
    };
    assert_eq!([seen(&a), seen(&b), seen(&all)], [[5, 5, 0], [70, 0, 70], [75, 5, 70]]);
    // An ad of another is as one that is not there, to the byte.
    let body = |id: &str| served.get(&ad(id), &a).body.replace(id, "");
    assert_eq!(body("ad_b"), body("none"));
    let about = served.get("/v1/session", &a).json();
    assert_eq!((&about["access"], &about["scope"]["campaigns"]), (&json!("scoped"), &json!(["a"])));
}

#[test]
fn a_token_asks_as_often_as_it_may_and_no_other_waits_for_it() {
    let served = served();
    let (slow, other) = (served.token(None, 1), served.token(None, 1));
    let statuses: Vec<u16> = (0..12).map(|_| served.get("/v1/totals", &slow).status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");
    let refused = served.get("/v1/totals", &slow);
    assert!(refused.refused(429).head.contains("retry-after: 1\r"), "{}", refused.head);
    assert_eq!(served.get("/v1/totals", &other).status, 200);
}

#[test]
fn a_token_is_traded_for_a_cookie_that_only_the_browser_sees() {
    let served = served();
    let token = served.token(Some("a"), 1_000);
    let json_body = format!("{{\"token\":\"{token}\"}}");
    let form = format!("next=%2F&token={token}");
    let cases = [("application/json", &json_body), ("application/x-www-form-urlencoded; charset=utf-8", &form)];
    for (kind, body) in cases {
        let reply = served.ask("POST", "/v1/session", &[&format!("Content-Type: {kind}")], body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert!(!reply.body.contains(&token), "{}", reply.body);
        let cookie =
            format!("set-cookie: tollgate_token={token}; path=/; max-age=2592000; httponly; samesite=strict\r");
        assert!(reply.head.contains(&cookie), "{}", reply.head);
    }
    let tls = ["Content-Type: application/json", "X-Forwarded-Proto: https"];
    assert!(served.ask("POST", "/v1/session", &tls, &json_body).head.contains("samesite=strict; secure\r"));
    let cookie = format!("Cookie: theme=dark; tollgate_token={token}");
    let reply = served.ask("GET", &format!("/v1/totals?{SPAN}"), &[&cookie], "");
    assert_eq!((reply.status, &reply.json()["gross"]), (200, &json!(5)));
    let ended = served.ask("DELETE", "/v1/session", &[&cookie], "");
    assert!(ended.status == 204 && ended.head.contains("tollgate_token=; path=/; max-age=0;"), "{}", ended.head);
    served.revoke(0);
    served.ask("GET", "/v1/totals", &[&cookie], "").refused(401);
    served.ask("POST", "/v1/session", &["Content-Type: application/json"], &json_body).refused(401);
}

#[test]
fn what_is_no_trade_is_refused() {
    let served = served();
    let token = served.token(None, 1_000);
    let body = format!("{{\"token\":\"{token}\"}}");
    let json = "Content-Type: application/json";
    for (fields, body, status) in [
        (&[json][..], "{}", 400),
        (&[json], "{\"token\":\"x\"}", 401),
        (&[json], &format!("{{\"token\":\"{}\"}}", "x".repeat(5_000)), 413),
        (&["Content-Type: text/plain"], &body, 415),
        (&[], &body, 415),
        (&[json, "Sec-Fetch-Site: cross-site"], &body, 403),
        (&[json, "Origin: https://elsewhere"], &body, 403),
        (&[json, "Origin: null"], &body, 403),
    ] {
        let refused = served.ask("POST", "/v1/session", fields, body);
        assert!(!refused.refused(status).head.contains("set-cookie"), "{fields:?}");
        assert!(!refused.body.contains(&token), "{}", refused.body);
    }
    served.ask("DELETE", "/v1/session", &["Sec-Fetch-Site: cross-site"], "").refused(403);
    for fields in [
        &[json, "Origin: http://localhost"][..],
        &[json, "Sec-Fetch-Site: same-origin", "Origin: https://behind.a.proxy"],
    ] {
        assert_eq!(served.ask("POST", "/v1/session", fields, &body).status, 200, "{fields:?}");
    }
}

/// A stream that would go on for ever, of somebody whose token is revoked, or who needed none before there was one.
#[test]
fn a_stream_ends_with_its_token() {
    let endless = || async {
        let first = futures_util::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"data: 1\n\n"))]);
        let stream = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream))
    };
    let served = with(tempfile::tempdir().expect("folder"), move |side, listener, stopped| {
        let router = Router::new().route("/v1/endless", get(endless));
        let guard = Guard::new(side, true);
        serve_router(router.layer(middleware::from_fn_with_state(guard, guard::let_in)), listener, stopped)
    });
    let begun = |fields: &[&str]| {
        let mut stream = served.connect("GET", "/v1/endless", fields, "");
        let (mut text, mut part) = (String::new(), [0; 512]);
        while !text.contains("data: 1") {
            let read = stream.read(&mut part).expect("it begins");
            assert!(read > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        stream
    };
    let ends = |mut stream: TcpStream| stream.read_to_string(&mut String::new()).expect("it ends");
    let anybody = begun(&[]);
    let token = served.token(None, 1_000);
    ends(anybody);
    let other = served.token(None, 1_000);
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let (holder, mut of_other) = (begun(&[&bearer(&token)]), begun(&[&bearer(&other)]));
    served.revoke(0);
    ends(holder);
    of_other.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
    let going_on = of_other.read(&mut [0; 16]).expect_err("nothing comes");
    assert_eq!(going_on.kind(), std::io::ErrorKind::WouldBlock, "another's stream goes on");
}
