//! Where Kafka's checkpoint and the data directory contradict each other the edge halts for the right reason, before it fences
//! anyone; `tollgate adopt` says what going on would mean, and what is acknowledged is counted once after it. Each click is of
//! the same ad: the sum over the topic is the count.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::broker::{Broker, Setup};
use crate::client::{Connection, send_number, send_one_by_one};
use crate::edge::{Edge, wait_for_export};
use crate::proxy::Proxy;
use crate::reader::{Topics, create_topic, delete_topic, describe_topic, raw};
use crate::rules::Api;
use crate::server::{Server, copy, tollgate};
use crate::shared;
use crate::wait::{PATIENCE, wait_until};

/// Beside the edge's data directory.
fn beside(edge: &Edge, name: &str) -> PathBuf {
    edge.data_dir.parent().expect("a folder").join(name)
}

fn adopt(edge: &Edge, more: &[&str]) -> (Option<i32>, String) {
    let (partials, checkpoints) = (&edge.topics.partials, &edge.topics.checkpoints);
    let kafka = ["adopt", "--kafka-brokers", &edge.brokers, "--kafka-topic-partials", partials];
    let words = [&kafka[..], &["--kafka-topic-checkpoints", checkpoints], more].concat();
    tollgate(&edge.data_dir, &words)
}

/// Shows that this way is right, with these numbers; then goes it, and another look says that it will be followed.
#[track_caller]
fn adopted(edge: &Edge, way: &str, numbers: &str) -> String {
    let (code, shown) = adopt(edge, &[]);
    assert_eq!(code, Some(0), "{shown}");
    let line =
        shown.lines().find(|line| line.contains("(unless you say otherwise)")).unwrap_or_else(|| panic!("{shown}"));
    assert!(line.contains(way) && line.contains(numbers), "{way:?} and {numbers:?} not in {line:?} of\n{shown}");
    assert!(shown.contains("Nothing was changed. To go on like this, run it again with --from"), "{shown}");
    edge.halts(74, &["`tollgate adopt`"]);
    let (code, written) = adopt(edge, &["--yes"]);
    assert!(code == Some(0) && written.contains("written: ") && written.contains("exported.json"), "{written}");
    let (code, again) = adopt(edge, &[]);
    assert!(code == Some(0) && again.contains("This was adopted before"), "{again}");
    shown
}

/// Sends these clicks, and waits until all are exported.
#[track_caller]
fn export(server: &Server, from: u64, to: u64) {
    send_one_by_one(server.clicks, from, to);
    wait_for_export(server);
}

/// One run that ends well.
#[track_caller]
fn exported(edge: &Edge, from: u64, to: u64) {
    let server = edge.start();
    export(&server, from, to);
    server.stop();
}

/// So many clicks stand on the topics, and the contract is broken in these ways alone.
#[track_caller]
fn counts(edge: &Edge, clicks: u64, problems: &[&str]) {
    let sum = edge.topics.committed();
    let kind = |problem: &str| {
        let text = problem.strip_prefix(&format!("edge {}: ", edge.id)).unwrap_or(problem).to_owned();
        text.split(':').next().unwrap_or_default().to_owned()
    };
    let kinds: BTreeSet<String> = sum.problems().into_iter().map(kind).collect();
    let expected: BTreeSet<String> = problems.iter().map(|problem| (*problem).to_owned()).collect();
    assert_eq!((sum.clicks(), kinds), (clicks, expected), "{}", sum.0);
}

/// How often somebody who came through the proxy fenced whoever exported before.
fn fenced(proxy: &Proxy) -> u64 {
    proxy.requests(Api::INIT_PRODUCER_ID)
}

#[test]
fn a_clone_beside_the_running_original_halts_and_does_not_fence_it() {
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let mut edge = Edge::new("clone", &broker.direct(), &broker.direct());
    let mut original = edge.start();
    export(&original, 0, 5);
    let clone = beside(&edge, "clone");
    original.signal(Signal::STOP);
    copy(&edge.data_dir, &clone);
    original.signal(Signal::CONT);
    for click in 5..8 {
        export(&original, click, click + 1);
    }

    let (data_dir, direct) = (edge.data_dir.clone(), edge.brokers.clone());
    (edge.data_dir, edge.brokers) = (clone, proxy.address().to_string());
    let (accepted, before) = (proxy.accepted(), fenced(&proxy));
    edge.halts(74, &["it is a copy, or was restored", "stop that one for good", "`tollgate adopt`"]);
    let (code, text) = adopt(&edge, &[]);
    assert!(code == Some(0) && text.contains("two may not export under one name"), "{text}");
    assert_eq!((fenced(&proxy), proxy.accepted() > accepted), (before, true), "it looked, and fenced nobody");
    export(&original, 8, 10);
    assert!(original.is_running());
    original.stop();
    counts(&edge, 10, &[]);

    // The clone in its place: what it has of the log is exported, by the other one.
    adopted(&edge, "--from ", ": 0 clicks go out, of them 0 a second time; 5 are taken for exported");
    exported(&edge, 20, 23);
    counts(&edge, 13, &["range", "total"]);
    let (code, text) = adopt(&edge, &[]);
    assert!(code == Some(0) && text.contains("Nothing is contradictory"), "{text}");
    (edge.data_dir, edge.brokers) = (data_dir, direct);
    edge.halts(74, &["another one exported after it"]);
}

#[test]
fn a_snapshot_restored_while_kafka_was_away_goes_on_with_what_it_took_since() {
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let mut edge = Edge::new("restored", &broker.direct(), &proxy.address().to_string());
    create_topic(&broker.direct(), "restored.raw", 1, &[]);
    edge.flags.extend(["--raw-topic", "restored.raw"].map(str::to_owned));
    exported(&edge, 0, 5);
    let snapshot = beside(&edge, "snapshot");
    copy(&edge.data_dir, &snapshot);
    let original = edge.start();
    // Two transactions at least: one more than is remembered could be our own.
    export(&original, 5, 7);
    export(&original, 7, 9);
    original.kill();

    proxy.pause();
    edge.data_dir = snapshot;
    let restored = edge.start();
    send_one_by_one(restored.clicks, 100, 107);
    proxy.resume();
    let before = fenced(&proxy);
    let ended = restored.ended_within(PATIENCE);
    assert_eq!(ended.code, Some(74), "{}", ended.errors);
    assert!(ended.errors.contains("restored from a snapshot, and another one exported"), "{}", ended.errors);
    assert_eq!(fenced(&proxy), before, "it fenced nobody");
    let shown = adopted(&edge, "--from ", ": 7 clicks go out, of them 0 a second time; 5 are taken for exported");
    assert!(shown.contains("--from exported: 7 clicks go out, of them 0 a second time"), "{shown}");
    let server = edge.start();
    wait_for_export(&server);
    server.kill();
    exported(&edge, 107, 109);
    counts(&edge, 5 + 4 + 7 + 2, &["range", "total"]);

    // An LSN after the fork is a click of the one and another of the other: they go by different names.
    let sum = edge.topics.committed();
    let jumps = sum.problems().into_iter().filter(|problem| problem.contains("range: ")).collect::<Vec<_>>();
    assert!(jumps.len() == 1 && jumps[0].ends_with(" after 0"), "a new log begins in the middle, once: {jumps:?}");
    let file = edge.data_dir.with_extension("raw");
    let raw = raw(&broker.direct(), "restored.raw", "read_committed", &file, "");
    assert_eq!((&raw["clicks"], &raw["problems"]), (&(5 + 4 + 7 + 2).into(), &serde_json::json!([])), "{raw}");
    // What it exports from now on it still knows: by its name, and after another fork too.
    let (found, remembered) = (sum.checkpoint(&edge.id).to_string(), log_id(&edge));
    assert!(!found.contains(&remembered), "{remembered} in {found}");
    exported(&edge, 109, 110);
}

fn log_id(edge: &Edge) -> String {
    let text = std::fs::read_to_string(edge.data_dir.join("exported.json")).expect("the mirror");
    let mirror: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    mirror["exported"]["logs"][0]["log"].as_str().expect("an id").to_owned()
}

#[test]
fn a_topic_made_anew_is_gone_on_with_and_what_the_old_one_had_is_not_sent_again() {
    let broker = shared::broker();
    let mut edge = Edge::new("anew", &broker.direct(), &broker.direct());
    exported(&edge, 0, 5);
    for topic in [&edge.topics.partials, &edge.topics.checkpoints] {
        delete_topic(&broker.direct(), topic);
        wait_until("the topic is gone", || describe_topic(&broker.direct(), topic)["partitions"] == 0);
    }
    edge.topics = Topics::create(&broker.direct(), "anew");
    edge.halts(74, &["the topic was made anew", "Name the right brokers and topics", "`tollgate adopt`"]);
    for (from, names) in
        [("here", "LOG:LSN"), (&format!("{}:7", "0f".repeat(16)), "does not hold"), ("found", "no place")]
    {
        let (code, text) = adopt(&edge, &["--from", from, "--yes"]);
        assert!(code == Some(64) && text.contains(names), "{from}: {text}");
    }
    let shown = adopted(&edge, "--from exported", ": 0 clicks go out, of them 0 a second time");
    assert!(shown.contains("--from start: 5 clicks go out, of them 5 a second time"), "{shown}");
    exported(&edge, 5, 8);
    counts(&edge, 3, &["seq", "range", "total"]);
}

#[test]
fn a_rewound_topic_gets_what_it_lost_again_and_another_cluster_what_comes_new() {
    let dir = shared::folder();
    let mut broker = Broker::start(dir.path(), &Setup::default());
    let mut edge = Edge::new("rewound", &broker.direct(), &broker.direct());
    exported(&edge, 0, 5);
    broker.stop();
    let kept = dir.path().join("kept");
    copy(&broker.data(), &kept);
    broker.restart();
    exported(&edge, 5, 9);
    broker.stop();
    std::fs::remove_dir_all(broker.data()).expect("removed");
    std::fs::rename(kept, broker.data()).expect("renamed");
    broker.restart();
    edge.halts(74, &["the topic was rewound", "Bring back what the topic lost", "`tollgate adopt`"]);
    let shown = adopted(&edge, "--from found", ": 4 clicks go out, of them 0 a second time");
    assert!(shown.contains(
        "--from exported: 0 clicks go out, of them 0 a second time; 9 are taken for exported, of them 4 are"
    ));
    exported(&edge, 9, 11);
    counts(&edge, 11, &["seq"]);

    let other = shared::broker();
    edge.topics = Topics::create(&other.direct(), "rewound");
    edge.brokers = other.direct();
    edge.halts(77, &["this directory exported to the Kafka cluster", "`tollgate adopt`"]);
    let (code, shown) = adopt(&edge, &["--yes"]);
    let exact = "--from exported (unless you say otherwise): 0 clicks go out, of them 0 a second time";
    assert!(code == Some(0) && shown.contains("exported to another cluster") && shown.contains(exact), "{shown}");
    exported(&edge, 11, 13);
    counts(&edge, 2, &["seq", "range", "total"]);
    edge.brokers = broker.direct();
    edge.halts(77, &["this directory exported to the Kafka cluster"]);
}

#[test]
fn a_second_host_of_the_same_name_halts_and_takes_the_place_of_the_first_when_told_to() {
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let mut edge = Edge::new("twice", &broker.direct(), &broker.direct());
    let mut first = edge.start();
    export(&first, 0, 5);
    let (data_dir, second) = (edge.data_dir.clone(), beside(&edge, "second"));
    (edge.data_dir, edge.brokers) = (second, proxy.address().to_string());
    let before = fenced(&proxy);
    edge.halts(74, &["another host exports as this edge", "give this one an --edge-id of its own", "`tollgate adopt`"]);
    assert_eq!(fenced(&proxy), before, "it fenced nobody");
    export(&first, 5, 7);
    assert!(first.is_running());
    first.kill();

    proxy.pause();
    let server = edge.start();
    send_one_by_one(server.clicks, 50, 53);
    let (code, text) = adopt(&edge, &["--yes"]);
    assert!(code == Some(73) && text.contains("in use by another process"), "{text}");
    server.kill();
    let (code, text) = adopt(&edge, &["--yes"]);
    assert!(code == Some(77) && text.contains("Nothing was changed"), "{text}");
    proxy.resume();
    adopted(&edge, "--from start", ": 3 clicks go out, of them 0 a second time; 0 are taken");
    exported(&edge, 53, 55);
    counts(&edge, 12, &[]);

    // And back.
    edge.data_dir = data_dir;
    adopted(&edge, "--from exported", ": 0 clicks go out, of them 0 a second time; 7 are taken for exported");
    exported(&edge, 60, 64);
    counts(&edge, 16, &[]);
}

/// A machine stood still, and a copy of its disk took its place: neither knows of the other, and the one that comes back late
/// must not count under it. What it acknowledged since is in the same incarnation as what both have: a person says so.
#[test]
fn an_original_that_stood_still_while_its_clone_took_over_halts_and_keeps_what_it_took() {
    let broker = shared::broker();
    let mut edge = Edge::new("still", &broker.direct(), &broker.direct());
    let original = edge.start();
    export(&original, 0, 5);
    original.signal(Signal::STOP);
    let (data_dir, clone) = (edge.data_dir.clone(), beside(&edge, "clone"));
    copy(&data_dir, &clone);
    edge.data_dir = clone;
    let server = edge.start();
    export(&server, 20, 23);
    original.signal(Signal::CONT);
    // It takes them as long as it does not know.
    let mut connection = Connection::open(original.clicks).expect("it listens");
    let taken = (30..32).filter(|number| send_number(&mut connection, *number) == (1, 0, 0)).count() as u64;
    let ended = original.ended_within(PATIENCE);
    assert_eq!(ended.code, Some(74), "{}", ended.errors);
    assert!(ended.errors.contains("another process exports as this edge. Stop one of them"), "{}", ended.errors);
    export(&server, 23, 25);
    server.stop();
    counts(&edge, 10, &[]);

    edge.data_dir = data_dir;
    edge.halts(74, &["`tollgate adopt`"]);
    let (code, text) = adopt(&edge, &["--yes"]);
    assert!(code == Some(64) && text.contains("choose one with --from"), "{text}");
    assert!(text.contains("--from exported: 2 clicks go out, of them an unknown number a second time"), "{text}");
    let (code, text) = adopt(&edge, &["--from", "exported", "--yes"]);
    assert!(code == Some(0) && text.contains("written: "), "{text}");
    exported(&edge, 40, 41);
    counts(&edge, 10 + taken + 1, &["range", "total"]);
}

/// Recovery finds it before the exporter can, by what the directory remembers.
#[test]
fn a_log_older_than_what_was_exported_is_repaired_and_counts_stay() {
    let broker = shared::broker();
    let edge = Edge::new("older", &broker.direct(), &broker.direct());
    exported(&edge, 0, 5);
    let (logs, older) = (edge.data_dir.join("logs"), beside(&edge, "older"));
    copy(&logs, &older);
    exported(&edge, 5, 9);
    std::fs::remove_dir_all(&logs).expect("removed");
    std::fs::rename(older, logs).expect("renamed");
    edge.halts(71, &["was exported", "bring its newer files back", "`tollgate wal repair`"]);
    let (code, text) = tollgate(&edge.data_dir, &["wal", "repair", "--raise-horizon", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    for _ in 0..2 {
        let server = edge.start();
        wait_for_export(&server);
        server.stop();
        counts(&edge, 9, &[]);
    }
}

/// Nothing tells it from a copy. Where it cannot be put back, the checkpoint says where to go on.
#[test]
fn a_mirror_that_is_gone_for_good_is_found_again_in_the_topic() {
    let broker = shared::broker();
    let edge = Edge::new("mirrorless", &broker.direct(), &broker.direct());
    (0..3).for_each(|run| exported(&edge, run * 5, run * 5 + 5));
    std::fs::remove_file(edge.data_dir.join("exported.json")).expect("it is there");
    edge.halts(74, &["it is a copy, or was restored", "another one exported after it", "`tollgate adopt`"]);
    let server = edge.spawn();
    assert_eq!(server.ended_within(PATIENCE).code, Some(74), "a restart changes nothing");
    adopted(&edge, "--from found", ": 0 clicks go out, of them 0 a second time; 15 are taken for exported");
    exported(&edge, 15, 18);
    counts(&edge, 18, &[]);
}
