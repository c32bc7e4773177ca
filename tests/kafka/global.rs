//! The global tier behind a real broker: two edges' clicks are counted once through kills of `tollgate global`, as the independent
//! reader sums them; what breaks the contract is reported and not counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::broker::{Broker, Setup};
use crate::client::{Random, while_sending};
use crate::edge::{Edge, wait_for_export};
use crate::reader::Topics;
use crate::sending::client;
use crate::server::{Server, answer, binary, get};
use crate::shared;
use crate::wait::{let_pass, wait_until};

const SEED: u64 = 20_261_128;
const KILLS: u64 = 12;

/// A global tier with a data directory of its own.
pub struct Global {
    data_dir: PathBuf,
    brokers: String,
    topic: String,
    pub flags: Vec<String>,
}

impl Global {
    pub fn new(folder: &Path, topics: &Topics, brokers: &str) -> Global {
        let flags = ["--idle-after", "2s"].map(str::to_owned).to_vec();
        let (brokers, topic) = (brokers.to_owned(), topics.partials.clone());
        Global { data_dir: folder.join("global"), brokers, topic, flags }
    }

    pub fn spawn(&self, more: &[&str]) -> Server {
        let mut command = Command::new(binary());
        command.arg("global").args(["--kafka-brokers", &self.brokers, "--kafka-topic-partials", &self.topic]);
        command.args(["--query-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).args(&self.flags).args(more);
        Server::spawn_command(command, &self.data_dir)
    }

    pub fn start(&self) -> Server {
        let mut server = self.spawn(&[]);
        assert!(server.ready_within(crate::wait::PATIENCE), "no ready line");
        server
    }
}

/// `tollgate WORDS… --admin ADDRESS`: its exit status and what it printed.
pub fn command(server: &Server, words: &[&str]) -> (Option<i32>, String) {
    let admin = server.admin.to_string();
    let output = Command::new(binary()).env_clear().args(words).args(["--admin", &admin]).output().expect("it runs");
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

pub fn edge_of(server: &Server, edge_id: &str) -> Value {
    let edges: Value = serde_json::from_str(&get(server.admin, "/edges")).expect("JSON");
    let found = edges["edges"].as_array().into_iter().flatten().find(|edge| edge["edge_id"] == edge_id);
    found.cloned().unwrap_or(Value::Null)
}

/// All clicks of an ad, all classes, over all of time.
pub fn gross(server: &Server, ad: Option<&str>) -> u64 {
    let path = ad.map_or("/v1/totals".to_owned(), |ad| format!("/v1/ads/{ad}/aggregated_count"));
    let body = get(server.query, &format!("{path}?from=0&to=4102444800"));
    let answer: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("JSON: {body}"));
    answer["gross"].as_u64().unwrap_or_else(|| panic!("gross in {body}"))
}

/// By ad, as the independent reader sums what is committed.
fn summed(topics: &Topics, folder: &Path) -> BTreeMap<String, u64> {
    let file = folder.join("counts.tsv");
    wait_until("every transaction is decided", || topics.counted(&file).undecided() == 0);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in std::fs::read_to_string(&file).expect("the reader wrote it").lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let clicks: u64 = columns[columns.len() - 1].parse().expect("a count");
        *counts.entry(columns[1].to_owned()).or_default() += clicks;
    }
    counts
}

#[track_caller]
fn assert_counts(server: &Server, expected: &BTreeMap<String, u64>) {
    let total = expected.values().sum::<u64>();
    wait_until("all that is committed is counted", || gross(server, None) >= total);
    assert_eq!(gross(server, None), total);
    for (ad, clicks) in expected {
        assert_eq!(gross(server, Some(ad)), *clicks, "{ad}");
    }
}

/// Two edges, one topic; the global tier is killed again and again while they send.
#[test]
fn two_edges_are_counted_once_through_kills_of_the_global_tier() {
    let (broker, folder) = (shared::broker(), shared::folder());
    let one = Edge::new("global-a", &broker.direct(), &broker.direct());
    let mut two = Edge::new("global-b", &broker.direct(), &broker.direct());
    two.topics.partials = one.topics.partials.clone();
    let global = Global::new(folder.path(), &one.topics, &broker.direct());
    let mut random = Random::new(SEED);
    let (first, second) = (one.start(), two.start());
    let mut of_first = vec![client(1), client(2)];
    let mut of_second = vec![client(3)];
    of_first.iter_mut().chain(&mut of_second).for_each(|client| client.pause = Duration::from_millis(4));
    let (at_first, at_second) = (first.clicks, second.clicks);
    for _ in 0..KILLS {
        let meanwhile = || {
            let server = global.start();
            let counted = gross(&server, None);
            wait_until("it counts", || gross(&server, None) > counted);
            let_pass(Duration::from_millis(random.below(400)));
            server
        };
        let both = || while_sending(&mut of_second, at_second, meanwhile, Server::kill);
        while_sending(&mut of_first, at_first, both, |()| ());
    }
    wait_for_export(&first);
    wait_for_export(&second);
    let expected = summed(&one.topics, folder.path());
    assert!(expected.values().sum::<u64>() > 3_000, "too little load to prove anything: {expected:?}");
    let server = global.start();
    assert_counts(&server, &expected);
    for id in ["global-a", "global-b"] {
        let edge = edge_of(&server, id);
        assert_eq!(
            (&edge["troubles"], &edge["presence"]),
            (&Value::from(Vec::<Value>::new()), &"live".into()),
            "{edge}"
        );
    }
    // An edge that dies is named, and stops holding windows open; retired, nothing waits for it.
    second.kill();
    wait_until("its silence is noticed", || edge_of(&server, "global-b")["presence"] == "silent");
    let (code, text) = command(&server, &["edges", "list"]);
    assert!(code == Some(1) && text.contains("global-b") && text.contains("silent"), "{code:?}: {text}");
    let (code, text) = command(&server, &["edges", "retire", "global-b"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(edge_of(&server, "global-b")["presence"], "retired");
    assert!(command(&server, &["edges", "retire", "nobody"]).1.contains("nobody"));
    // A copy made while it runs is put back elsewhere and counts on from there; a rebuild comes to the same.
    let copy = folder.path().join("copy.redb");
    let (code, text) = command(&server, &["backup", "--to", copy.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{text}");
    server.stop();
    first.stop();
    let restored = Global {
        data_dir: folder.path().join("restored"),
        flags: global.flags.clone(),
        ..Global::new(folder.path(), &one.topics, &broker.direct())
    };
    let output = Command::new(binary())
        .args(["restore", "--from", copy.to_str().expect("UTF-8"), "--data-dir"])
        .arg(&restored.data_dir)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let expected = summed(&one.topics, folder.path());
    let server = restored.start();
    assert_counts(&server, &expected);
    server.stop();
    let mut server = global.spawn(&["--rebuild"]);
    assert!(server.ready_within(crate::wait::PATIENCE));
    assert_counts(&server, &expected);
    server.stop();
    // Again, it would put the new store in the place of the one that was put aside.
    let ended = global.spawn(&["--rebuild"]).ended_within(crate::wait::PATIENCE);
    assert!(ended.code == Some(73) && ended.errors.contains("global.before-rebuild"), "{ended:?}");
    let server = global.start();
    assert_counts(&server, &expected);
    server.stop();
}

/// What breaks the contract is reported of its edge, none of it is counted, and what is whole after it is.
#[test]
fn what_is_not_as_the_contract_says_is_reported_and_not_counted() {
    let (broker, folder) = (shared::broker(), shared::folder());
    let topics = Topics::create(&broker.direct(), "global-broken");
    let global = Global::new(folder.path(), &topics, &broker.direct());
    let server = global.start();
    // Each edge: three transactions of 30 clicks, the third broken; then one that follows. How many are counted: a doubled first
    // partial leaves a whole transaction behind it.
    let cases = [
        ("seq", "gap", 4),
        ("crc", "torn", 3),
        ("count", "torn", 3),
        ("clicks", "torn", 3),
        ("index", "torn", 3),
        ("repeat", "torn", 4),
        ("torn", "torn", 3),
        // What stands under another key is of no edge that is known; of this one it is missing.
        ("key", "gap", 3),
    ];
    let produce = |edge: &str, flags: &[&str]| {
        let words = [&["--edge", edge][..], flags].concat();
        topics.produce(&broker.direct(), &words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    };
    for (breaking, kind, counted) in cases {
        let edge = format!("broken-{breaking}");
        let after = if breaking == "seq" { 4 } else { 3 };
        produce(&edge, &["--transactions", "3", "--break", breaking]);
        produce(&edge, &["--transactions", "1", "--after", &after.to_string()]);
        wait_until(&format!("{edge} is read to its end"), || edge_of(&server, &edge)["txn_seq"] == after + 1);
        let found = edge_of(&server, &edge);
        let seen = found["troubles_seen"][kind].as_u64().unwrap_or(0);
        assert!(seen > 0, "{breaking}: {found}");
        assert!(found["held_at_ms"].is_number(), "{breaking}: nothing after it is final: {found}");
        assert_eq!(found["clicks"], counted * 30, "{breaking}: {found}");
    }
    let (code, text) = command(&server, &["edges", "list"]);
    assert!(code == Some(1) && text.contains("LACKS CLICKS"), "{code:?}: {text}");
    // A topic that repeats what was counted: nothing is counted twice.
    produce("again", &["--transactions", "3"]);
    produce("again", &["--transactions", "2", "--after", "1"]);
    wait_until("the repeats are seen", || edge_of(&server, "again")["troubles_seen"]["repeated"] == 2);
    let again = edge_of(&server, "again");
    assert_eq!((&again["clicks"], &again["held_at_ms"]), (&90.into(), &Value::Null), "{again}");
    assert_eq!(command(&server, &["edges", "accept", "broken-seq"]).0, Some(0));
    assert_eq!(edge_of(&server, "broken-seq")["held_at_ms"], Value::Null);
    server.stop();
}

pub fn produce(topics: &Topics, brokers: &str, words: &[&str]) {
    topics.produce(brokers, words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

fn answers(server: &Server) -> bool {
    get(server.admin, "/metrics").contains("\ntollgate_global_kafka_answers 1\n")
}

/// Without its broker it answers from what it has, and says so once; then it reads on where it was, also where it was started without
/// one.
#[test]
fn a_broker_that_goes_away_and_comes_back_costs_time_alone() {
    let folder = shared::folder();
    let mut broker = Broker::start(folder.path(), &Setup::default());
    let direct = broker.direct();
    let topics = Topics::create(&direct, "global-away");
    let global = Global::new(folder.path(), &topics, &direct);
    let server = global.start();
    produce(&topics, &direct, &["--edge", "one", "--transactions", "3"]);
    produce(&topics, &direct, &["--edge", "two", "--transactions", "2"]);
    wait_until("all is counted", || gross(&server, None) == 150);
    broker.kill();
    wait_until("its absence is noticed", || !answers(&server));
    let errors = global.data_dir.with_extension("stderr");
    assert!(get(server.admin, "/readyz").contains("nothing is consumed since"));
    // Longer than --idle-after, and than several tries.
    let_pass(Duration::from_secs(6));
    assert_eq!(gross(&server, None), 150);
    assert_eq!(edge_of(&server, "one")["presence"], "unheard", "it may be as alive as ever");
    let (code, text) = command(&server, &["edges", "list"]);
    assert!(code == Some(1) && text.contains("KAFKA: nothing is consumed since") && !text.contains("silent"), "{text}");
    assert!(!get(server.admin, "/metrics").contains("consumer_lag_records{"), "nobody knows");
    let said = std::fs::read_to_string(&errors).expect("its lines");
    assert_eq!(said.matches("nothing is consumed").count(), 1, "once: {said}");
    broker.restart();
    produce(&topics, &direct, &["--edge", "one", "--transactions", "1", "--after", "3"]);
    wait_until("it reads on", || gross(&server, None) == 180);
    wait_until("it says so", || answers(&server));
    // Started while there is none, it serves what it has.
    server.kill();
    broker.kill();
    let server = global.start();
    assert_eq!(gross(&server, None), 180);
    wait_until("its absence is noticed", || !answers(&server));
    broker.restart();
    produce(&topics, &direct, &["--edge", "two", "--transactions", "2", "--after", "2"]);
    wait_until("it reads on", || gross(&server, None) == 240);
    have_no_trouble(&server, &["one", "two"]);
    server.stop();
}

/// Nothing of these edges lacks, nothing came twice.
#[track_caller]
fn have_no_trouble(server: &Server, edges: &[&str]) {
    for edge in edges {
        assert_eq!(edge_of(server, edge)["troubles"], Value::from(Vec::<Value>::new()), "{edge}");
    }
}

/// Partitions that are added while it runs are read from their beginning within seconds, and a restart goes on in them.
#[test]
fn partitions_that_are_added_while_it_runs_are_read_too() {
    let (broker, folder) = (shared::broker(), shared::folder());
    let direct = broker.direct();
    let topics = Topics::create(&direct, "global-wider");
    let global = Global::new(folder.path(), &topics, &direct);
    let server = global.start();
    produce(&topics, &direct, &["--edge", "first", "--transactions", "2", "--partition", "0"]);
    wait_until("all is counted", || gross(&server, None) == 60);
    let before = crate::reader::describe_topic(&direct, &topics.partials)["partitions"].as_u64().expect("a number");
    crate::reader::widen_topic(&direct, &topics.partials, before as u32 + 2);
    let last = (before + 1).to_string();
    produce(&topics, &direct, &["--edge", "second", "--transactions", "3", "--partition", &last]);
    produce(&topics, &direct, &["--edge", "first", "--transactions", "1", "--after", "2", "--partition", "0"]);
    wait_until("both are counted", || gross(&server, None) == 180);
    let lag = format!("tollgate_global_consumer_lag_records{{partition=\"{last}\"}}");
    wait_until("it is told of", || get(server.admin, "/metrics").contains(&lag));
    server.kill();
    produce(&topics, &direct, &["--edge", "second", "--transactions", "1", "--after", "3", "--partition", &last]);
    let server = global.start();
    wait_until("it reads on", || gross(&server, None) == 210);
    have_no_trouble(&server, &["first", "second"]);
    server.stop();
}

/// Records that are gone before they were read, and another cluster's topic, stop it: nothing is guessed.
#[test]
fn an_offset_that_is_gone_and_another_topic_halt_it() {
    let (broker, folder) = (shared::broker(), shared::folder());
    let topics = Topics::create(&broker.direct(), "global-gone");
    topics.produce(&broker.direct(), &["--edge", "gone", "--transactions", "3"]).expect("written");
    let mut global = Global::new(folder.path(), &topics, &broker.direct());
    let server = global.start();
    wait_until("all is counted", || gross(&server, None) == 90);
    server.stop();
    // Made anew, and shorter or longer than what was read of it: its id tells.
    make_anew(&topics, &broker.direct());
    let ended = global.spawn(&[]).ended_within(crate::wait::PATIENCE);
    assert!(ended.code == Some(77) && ended.errors.contains("made anew"), "{ended:?}");
    produce(&topics, &broker.direct(), &["--edge", "gone", "--transactions", "8", "--after", "3"]);
    let ended = global.spawn(&[]).ended_within(crate::wait::PATIENCE);
    assert!(ended.code == Some(77) && ended.errors.contains("--from-earliest"), "{ended:?}");
    crate::reader::create_topic(&broker.direct(), "global-other.partials", 1, &[]);
    global.topic = "global-other.partials".to_owned();
    let ended = global.spawn(&[]).ended_within(crate::wait::PATIENCE);
    assert!(ended.code == Some(77) && ended.errors.contains("--rebuild"), "{ended:?}");
}

/// The topic of partials is deleted, and made again.
pub fn make_anew(topics: &Topics, brokers: &str) {
    crate::reader::delete_topic(brokers, &topics.partials);
    wait_until("it is gone", || crate::reader::describe_topic(brokers, &topics.partials)["partitions"] == 0);
    crate::reader::create_topic(brokers, &topics.partials, 4, &[]);
}

/// What is counted stays, what the topic has is added, and what is missing is named: a topic that is made anew, also while it runs, and
/// one whose records were deleted unread.
#[test]
fn counting_goes_on_from_the_earliest_that_there_is() {
    let (broker, folder) = (shared::broker(), shared::folder());
    let direct = broker.direct();
    let topics = Topics::create(&direct, "global-earliest");
    let global = Global::new(folder.path(), &topics, &direct);
    let start = |flags: &[&str]| {
        let mut server = global.spawn(flags);
        assert!(server.ready_within(crate::wait::PATIENCE));
        server
    };
    let mut server = start(&[]);
    produce(&topics, &direct, &["--edge", "one", "--transactions", "3", "--partition", "1"]);
    wait_until("all is counted", || gross(&server, None) == 90);
    // Longer than what was read, and in the same partition.
    make_anew(&topics, &direct);
    produce(&topics, &direct, &["--edge", "one", "--transactions", "5", "--after", "3", "--partition", "1"]);
    let ended = server.ended_within(crate::wait::PATIENCE);
    assert!(ended.code == Some(77) && ended.errors.contains("made anew"), "{ended:?}");
    server = start(&["--from-earliest"]);
    wait_until("what it has is added", || gross(&server, None) == 240);
    have_no_trouble(&server, &["one"]);
    server.kill();
    // Deleted before they were read: two transactions, of 60 clicks.
    produce(&topics, &direct, &["--edge", "one", "--transactions", "2", "--after", "8", "--partition", "1"]);
    crate::reader::empty_topic(&direct, &topics.partials);
    produce(&topics, &direct, &["--edge", "one", "--transactions", "1", "--after", "10", "--partition", "1"]);
    let ended = global.spawn(&[]).ended_within(crate::wait::PATIENCE);
    assert!(ended.code == Some(77) && ended.errors.contains("deleted before it was read"), "{ended:?}");
    server = start(&["--from-earliest"]);
    wait_until("what it has is added", || gross(&server, None) == 270);
    let edge = edge_of(&server, "one");
    assert_eq!((&edge["clicks_missing"], &edge["troubles_seen"]["gap"]), (&60.into(), &1.into()), "{edge}");
    server.stop();
    // And without the flag from there on.
    server = start(&[]);
    produce(&topics, &direct, &["--edge", "one", "--transactions", "1", "--after", "11", "--partition", "1"]);
    wait_until("it reads on", || gross(&server, None) == 300);
    // A topic that is gone is waited for, and said to be gone.
    crate::reader::delete_topic(&direct, &topics.partials);
    wait_until("it is told of", || answer(server.admin, "/readyz").1.contains("is not there any more"));
    server.stop();
}
