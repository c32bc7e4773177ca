//! A million clicks through two edges, a broker and `tollgate global`, each killed in turn: every ad and every minute is exact, gross
//! and net.
//!
//! A twentieth is sent again, to the edge that took the first; three in a hundred are late, by up to ten minutes; one in twenty is a
//! bot's. What has no answer is sent again until it has one, so in the end every click is acknowledged, and exactly they are counted.
//!
//! `MILLION_CLICKS=1000000 cargo test --test kafka million` runs the whole; the gate, a slice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::{Broker, Setup};
use crate::client::{Connection, Random, Reply, request, verdicts};
use crate::edge::{Edge, wait_for_export};
use crate::global::{Global, gross};
use crate::server::{Server, get, now_ms};
use crate::shared;
use crate::wait::{let_pass, within};

const CLICKS: u64 = 60_000;
const BATCH: u64 = 200;
const ADS: u64 = 50;
const SEED: u64 = 20_261_129;
const MINUTE_MS: i64 = 60_000;
const LATE_MS_MAX: u64 = 10 * 60_000;
const SENDERS_AN_EDGE: u64 = 2;
/// Gross, and not net.
const BOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
/// What is killed: the broker, an edge, the global tier, the other edge.
const KILLED: usize = 4;
/// Between two kills, at least.
const CALM: Duration = Duration::from_millis(1_500);
/// Between a sender's requests, so that there is time for kills.
const PAUSE: Duration = Duration::from_millis(120);
/// For all to be sent: a million wants minutes on a small machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// Gross and net by ad and by the minute of the event.
type Counts = BTreeMap<(String, i64), [u64; 2]>;

fn clicks() -> u64 {
    std::env::var("MILLION_CLICKS").map_or(CLICKS, |text| text.parse().expect("a number of clicks"))
}

/// Where an edge listens now; nowhere while it is down.
#[derive(Default)]
struct Door {
    at: Mutex<Option<SocketAddr>>,
    /// Requests that were sent and have no answer yet.
    under_way: AtomicU64,
}

impl Door {
    fn at(&self) -> Option<SocketAddr> {
        *self.at.lock().expect("nobody panics in it")
    }

    fn set(&self, at: Option<SocketAddr>) {
        *self.at.lock().expect("nobody panics in it") = at;
    }

    /// Until a request is under way: its clicks are perhaps on disk, and nobody was told.
    fn wait_for_a_request(&self) {
        let deadline = Instant::now() + CALM;
        while self.under_way.load(Ordering::SeqCst) == 0 && Instant::now() < deadline {
            std::hint::spin_loop();
        }
    }

    fn exchange(&self, connection: &mut Connection, text: &str) -> std::io::Result<Option<Reply>> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let reply = connection.send(text.as_bytes()).and_then(|()| connection.reply());
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        reply
    }
}

/// What one sender makes, and what of it must be counted.
struct Sender {
    random: Random,
    number: u64,
    made: u64,
    sent: Vec<String>,
    expected: Counts,
    answered: [u64; 2],
    /// Requests whose answer did not come.
    cut_off: u64,
}

impl Sender {
    fn new(number: u64) -> Sender {
        let random = Random::new(SEED ^ (number << 40));
        Sender { random, number, made: 0, sent: Vec::new(), expected: Counts::new(), answered: [0; 2], cut_off: 0 }
    }

    /// A click that was never sent, counted as it must be.
    fn make(&mut self) -> String {
        self.made += 1;
        // Two draws: some ads are hot.
        let ad = format!("million-{:02}", self.random.below(ADS).min(self.random.below(ADS)));
        let late = if self.random.below(100) < 3 { self.random.below(LATE_MS_MAX) } else { 0 };
        let at_ms = now_ms() - late as i64;
        let (number, made) = (self.number, self.made);
        let is_bot = self.random.below(20) == 0;
        let [gross, net] = self.expected.entry((ad.clone(), at_ms.div_euclid(MINUTE_MS) * MINUTE_MS)).or_default();
        *gross += 1;
        *net += u64::from(!is_bot);
        let agent = if is_bot { format!(",\"user_agent\":\"{BOT}\"") } else { String::new() };
        format!(
            "{{\"ad_id\":\"{ad}\",\"timestamp\":{at_ms},\"request_id\":\"{number:08x}-0000-4000-8000-{made:012x}\",\"user_id\":\"u{}\"{agent}}}",
            made % 9_973
        )
    }

    /// One request's lines: new ones, and a twentieth of those that were sent before.
    fn batch(&mut self, new: u64) -> Vec<String> {
        let mut lines: Vec<String> = (0..new).map(|_| self.make()).collect();
        for _ in 0..new / 20 {
            if !self.sent.is_empty() {
                let at = self.random.below(self.sent.len() as u64) as usize;
                lines.push(self.sent[at].clone());
            }
        }
        // Some of them, to be sent again.
        self.sent.extend(lines.iter().step_by(7).cloned());
        lines
    }

    fn run(&mut self, door: &Door, left: &AtomicU64) {
        let mut connection: Option<(SocketAddr, Connection)> = None;
        while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(BATCH)).is_ok() {
            let lines = self.batch(BATCH);
            let text = request("application/x-ndjson", &lines.join("\n"));
            let sending = Instant::now();
            while !self.answered(&mut connection, door, &text, lines.len() as u64) {
                assert!(sending.elapsed() < PATIENCE, "no edge takes it");
                let_pass(Duration::from_millis(20));
            }
            let_pass(PAUSE);
        }
    }

    /// Sends it once; false where it has no answer, or was shed.
    fn answered(
        &mut self,
        connection: &mut Option<(SocketAddr, Connection)>,
        door: &Door,
        text: &str,
        clicks: u64,
    ) -> bool {
        let Some(at) = door.at() else { return false };
        let held = connection.take().filter(|(to, _)| *to == at).map(|(_, connection)| connection);
        let Ok(mut open) = held.map_or_else(|| Connection::open(at), Ok) else { return false };
        let Ok(Some(reply)) = door.exchange(&mut open, text) else {
            self.cut_off += 1;
            return false;
        };
        if reply.status == 503 {
            return false;
        }
        let body = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status, 202, "{body}");
        let (accepted, duplicates, rejected) = verdicts(&reply.body);
        assert_eq!((accepted + duplicates, rejected), (clicks, 0), "{body}");
        self.answered[0] += accepted;
        self.answered[1] += duplicates;
        *connection = Some((at, open));
        true
    }
}

/// Kills what runs, the broker, an edge, the global tier and the other edge in turn, until all is sent and each was killed; returns them running, and the kills of each. What
/// is not killed goes on by itself. An edge starts again with two cores, then with one, and so on.
fn kill_in_turn(
    edges: &mut [Edge; 2],
    doors: &[Door; 2],
    global: &Global,
    broker: &mut Broker,
    done: &dyn Fn() -> bool,
) -> ([Server; 2], Server, [u64; KILLED]) {
    let mut servers = [edges[0].start(), edges[1].start()];
    let mut tier = global.start();
    for (door, server) in doors.iter().zip(&servers) {
        door.set(Some(server.clicks));
    }
    let mut random = Random::new(SEED);
    let mut kills = [0; KILLED];
    for turn in (0..KILLED).cycle() {
        if done() && kills[KILLED - 1] > 0 {
            break;
        }
        let_pass(CALM + Duration::from_millis(random.below(1_000)));
        match turn {
            0 => {
                broker.kill();
                broker.restart();
            }
            2 => {
                tier.kill();
                tier = global.start();
            }
            edge_turn => {
                let edge = edge_turn / 2;
                doors[edge].wait_for_a_request();
                servers[edge].kill_now();
                doors[edge].set(None);
                edges[edge].two_cores = !edges[edge].two_cores;
                servers[edge] = edges[edge].start();
                doors[edge].set(Some(servers[edge].clicks));
            }
        }
        kills[turn] += 1;
    }
    (servers, tier, kills)
}

/// By the minute, as the query API answers for one ad.
fn minutes(tier: &Server, ad: &str, from_ms: i64, to_ms: i64) -> BTreeMap<i64, [u64; 2]> {
    let body = get(tier.query, &format!("/v1/ads/{ad}/aggregated_count?from={from_ms}&to={to_ms}&granularity=1m"));
    let answer: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("JSON: {body}"));
    assert!(answer["next_cursor"].is_null(), "an hour is one page: {body}");
    let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("rows: {body}"));
    let clicks =
        |row: &Value| ["gross", "net"].map(|sum| row[sum].as_u64().unwrap_or_else(|| panic!("{sum} in {row}")));
    rows.iter().map(|row| (start_ms(&row["window_start"]), clicks(row))).filter(|(_, [gross, _])| *gross > 0).collect()
}

fn start_ms(text: &Value) -> i64 {
    let text = text.as_str().unwrap_or_else(|| panic!("a time: {text}"));
    let output = std::process::Command::new("date").args(["-u", "-d", text, "+%s"]).output().expect("date runs");
    String::from_utf8_lossy(&output.stdout).trim().parse::<i64>().expect("seconds") * 1_000
}

#[test]
fn a_million_clicks_are_exact_by_ad_and_minute_through_kills_of_everything() {
    // A broker of its own: it is killed.
    let (home, folder) = (shared::folder(), shared::folder());
    let mut broker = Broker::start(home.path(), &Setup::default());
    let mut edges = ["million-a", "million-b"].map(|id| Edge::new(id, &broker.direct(), &broker.direct()));
    edges[1].topics.partials = edges[0].topics.partials.clone();
    for edge in &mut edges {
        // What is sent again after a kill is still ten minutes late at most, and a little.
        edge.flags = ["--dedup-window", "30m", "--dedup-memory-bytes", "64MiB"].map(str::to_owned).to_vec();
    }
    let global = Global::new(folder.path(), &edges[0].topics, &broker.direct());
    let (began_ms, began) = (now_ms(), Instant::now());
    let (doors, left) = ([Door::default(), Door::default()], AtomicU64::new(clicks()));
    let mut senders: Vec<Sender> = (0..2 * SENDERS_AN_EDGE).map(|number| Sender::new(number + 1)).collect();
    let sending = AtomicU64::new(senders.len() as u64);
    let (servers, tier, kills) = std::thread::scope(|scope| {
        for (index, sender) in senders.iter_mut().enumerate() {
            let (door, left, sending) = (&doors[index % 2], &left, &sending);
            scope.spawn(move || {
                sender.run(door, left);
                sending.fetch_sub(1, Ordering::SeqCst);
            });
        }
        kill_in_turn(&mut edges, &doors, &global, &mut broker, &|| {
            assert!(began.elapsed() < PATIENCE, "{} clicks were not sent in time", left.load(Ordering::SeqCst));
            sending.load(Ordering::SeqCst) == 0
        })
    });
    let sent_after = began.elapsed();
    servers.iter().for_each(wait_for_export);

    let mut expected = Counts::new();
    for (key, clicks) in senders.iter().flat_map(|sender| &sender.expected) {
        expected.entry(key.clone()).or_default().iter_mut().zip(clicks).for_each(|(sum, clicks)| *sum += clicks);
    }
    let total = clicks() / BATCH * BATCH;
    let [made, net] = [0, 1].map(|sum| expected.values().map(|clicks| clicks[sum]).sum::<u64>());
    assert!(made == total && net < total - total / 50, "{made} made, {net} net");
    within(PATIENCE, || gross(&tier, None) >= total);
    assert_eq!(gross(&tier, None), total, "of all ads");
    let (from_ms, to_ms) = (began_ms - 2 * LATE_MS_MAX as i64, now_ms() + MINUTE_MS);
    for ad in 0..ADS {
        let ad = format!("million-{ad:02}");
        let of_ad = |(key, clicks): (&(String, i64), &[u64; 2])| (key.0 == ad).then_some((key.1, *clicks));
        let sent: BTreeMap<i64, [u64; 2]> = expected.iter().filter_map(of_ad).collect();
        assert_eq!(minutes(&tier, &ad, from_ms, to_ms), sent, "{ad}");
    }
    let [accepted, duplicates] =
        [0, 1].map(|verdict| senders.iter().map(|sender| sender.answered[verdict]).sum::<u64>());
    let cut_off: u64 = senders.iter().map(|sender| sender.cut_off).sum();
    println!(
        "{total} clicks sent in {sent_after:.1?} through kills of the broker, an edge, the tier and the other edge {kills:?}, {cut_off} requests cut off, \
         {accepted} accepted and {duplicates} duplicates as answered, {net} net: every ad and minute exact"
    );
    assert!(kills.iter().all(|kills| *kills > 0), "{kills:?} kills: not everything was killed");
    assert!(cut_off > 0, "no kill met a request");
    assert!(duplicates >= total / 25, "{duplicates} duplicates: too few were sent again");
    servers.into_iter().for_each(Server::stop);
    tier.stop();
}
