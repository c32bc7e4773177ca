//! Live events through a real listener: what clients are told, how many there may be, and who is cut off.

use super::*;

/// A client of the live stream.
pub(super) struct Events {
    stream: TcpStream,
    received: String,
}

impl Events {
    pub(super) fn of(served: &Served) -> Events {
        let (events, head) = Events::asked(served);
        assert!(head.contains("200 OK") && head.contains("content-type: text/event-stream"), "{head}");
        events
    }

    /// With the head of the answer, whatever it is: a stream has no end that could be waited for.
    fn asked(served: &Served) -> (Events, String) {
        let mut stream = TcpStream::connect(served.address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        write!(stream, "GET /v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("send");
        let mut events = Events { stream, received: String::new() };
        let head = events.until("\r\n\r\n");
        (events, head)
    }

    /// What comes up to some text.
    fn until(&mut self, text: &str) -> String {
        let mut bytes = [0; 4096];
        while !self.received.contains(text) {
            let length = self.stream.read(&mut bytes).expect("more comes");
            assert!(length > 0, "the stream ended: {}", self.received);
            self.received.push_str(std::str::from_utf8(&bytes[..length]).expect("ASCII"));
        }
        let end = self.received.find(text).expect("it is there") + text.len();
        self.received.drain(..end).collect()
    }

    /// The next state, and when it came.
    pub(super) fn next(&mut self) -> (Value, Instant) {
        let event = self.until("\n\n");
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
        assert!(event.contains("event: state\n"), "{event}");
        (serde_json::from_str(data).expect("JSON"), Instant::now())
    }
}

/// One token keeps live events from nobody.
#[test]
fn of_one_scope_so_many_listen() {
    let scope = Scope { campaigns: ["c1".to_owned()].into(), ..Scope::default() };
    let (served, _) = served_to(Access::Scoped(Arc::new(scope)), CLIENTS_MAX, 10_000);
    let listening: Vec<Events> = (0..CLIENTS_OF_A_SCOPE_MAX).map(|_| Events::of(&served)).collect();
    let (mut one_more, head) = Events::asked(&served);
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    one_more.until("this token's scope");
    drop(listening);
}

/// The state is told at once, then about once a second, and with what was committed meanwhile; the books balance.
#[test]
fn live_clients_are_told_what_stands() {
    let served = served();
    while served.store.keep_up(START_MS).expect("kept") {}
    let mut events = Events::of(&served);
    let began = Instant::now();
    let (first, _) = events.next();
    assert_eq!(
        first["ledger"],
        json!({
            "accepted": 15, "gross": 15, "net": 6, "invalid": {"bot_user_agent": 2, "prefetch": 7}, "difference": 0, "missing": 0, "gaps": 0,
        })
    );
    assert_eq!(
        first["clicks_per_second"],
        json!({"over_ms": 0, "net": 0.0, "invalid": {"bot_user_agent": 0.0, "prefetch": 0.0}})
    );
    assert_eq!(first["top_ads"]["ads"], json!([{"ad_id": "ad 1", "click_count": 5, "gross": 7, "net": 5}]));
    assert_eq!(fields(&first["edges"][0], &["edge_id", "presence"]), ["e", "silent"]);
    served.commits(
        2,
        START_MS + 2 * PANE_MS,
        vec![partial("ad 1", START_MS, 0, 100, &[]), partial("ad 1", START_MS, 2, 50, &[])],
    );
    let (second, at) = events.next();
    assert!((Duration::from_millis(500)..Duration::from_secs(5)).contains(&(at - began)), "{:?}", at - began);
    assert_eq!(fields(&second["ledger"], &["accepted", "net", "difference"]), [165, 106, 0]);
    let rates = &second["clicks_per_second"];
    let over_s = rates["over_ms"].as_f64().expect("a time") / 1e3;
    let counted = |rate: &Value| (rate.as_f64().expect("a rate") * over_s).round();
    assert_eq!((counted(&rates["net"]), counted(&rates["invalid"]["prefetch"])), (100.0, 50.0), "{rates}");
}

/// One computation for all, that ends when nobody listens any more; a place that is left is free again.
#[test]
fn live_clients_share_a_state_and_are_bounded() {
    let (served, live) = served_to(Access::All, 2, 10_000);
    let (mut one, mut two) = (Events::of(&served), Events::of(&served));
    let of_one = [one.next().0, one.next().0];
    let of_two = [two.next().0, two.next().0];
    assert!(of_one.iter().any(|state| of_two.contains(state)), "the very same state");
    assert_eq!(live.feeds(), 1);
    let refused = served.request("GET", "/v1/live", "");
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")), "{}", refused.text);
    drop((one, two));
    let until = Instant::now() + PATIENCE;
    while live.feeds() > 0 {
        assert!(Instant::now() < until, "still computed");
        std::thread::yield_now();
    }
    Events::of(&served).next();
}

/// A client that asks and never reads is cut off by the connection's timeout, whatever it asked for.
#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let (served, _) = served_to(Access::All, 1, 300);
    let mut stream = TcpStream::connect(served.address).expect("connect");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let asking = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let ended = std::iter::repeat_with(|| stream.write_all(asking.as_bytes())).find_map(Result::err);
    let kind = ended.map(|error| error.kind());
    assert!(matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)), "{kind:?}");
}

/// Told to stop, the server ends although a client keeps its connection open, one sends half a request and one listens.
#[test]
fn the_server_stops_when_told() {
    let served = served();
    let _idle = TcpStream::connect(served.address).expect("connect");
    let mut half = TcpStream::connect(served.address).expect("connect");
    half.write_all(b"GET /v1/totals HTTP/1.1\r\nHo").expect("send");
    let mut events = Events::of(&served);
    events.next();
    served.get("/v1/totals");
    let told = Instant::now();
    served.stop.send(()).expect("the server listens");
    served.server.join().expect("no panic").expect("no error");
    assert!(told.elapsed() < Duration::from_secs(5), "took {:?}", told.elapsed());
    assert!(TcpStream::connect(served.address).is_err(), "the listener is closed");
    events.until("0\r\n\r\n");
}
