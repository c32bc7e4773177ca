//! What an edge may do, where the broker has an authorizer: the rights that OPERATING.md lists are enough, each of them is needed,
//! and without one counts wait until it is there.

use std::collections::BTreeSet;
use std::path::Path;

use crate::client::{Client, sums};
use crate::edge::{Edge, wait_for_export};
use crate::reader::{create_topic, delete_topic, describe_topic, rights};
use crate::secured::{PASSWORD, edge_of};
use crate::sending::{client, forget, said, send};
use crate::server::{Server, answer, tollgate};
use crate::shared;
use crate::wait::wait_until;

/// The commands for `fra-1` in OPERATING.md, for the edge and user `id` and its topics.
fn documented(id: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATING.md");
    let text = std::fs::read_to_string(path).expect("it is there");
    let commands =
        text.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with("kafka-acls.sh"));
    let broker = shared::broker().direct();
    let ours = |line: &str| line.replace("k1:9092", &broker).replace("fra-1", id).replace("clicks.", &format!("{id}."));
    commands.map(ours).collect()
}

/// Has the rights of the user `id` changed, and waits until the broker knows.
#[track_caller]
fn change(id: &str, words: &[&str], is: impl Fn(&BTreeSet<String>) -> bool) -> BTreeSet<String> {
    let direct = shared::broker().direct();
    let mut now = rights(&direct, id, words);
    wait_until("the broker knows its rights", || {
        now = rights(&direct, id, &[]);
        is(&now)
    });
    now
}

/// An edge with a raw topic whose user has the rights that are documented; and those rights.
fn edge(id: &str) -> (Edge, BTreeSet<String>) {
    let mut edge = edge_of(id, id, PASSWORD);
    create_topic(&shared::broker().direct(), &raw_topic(id), 2, &[]);
    edge.flags.extend(["--raw-topic".to_owned(), raw_topic(id)]);
    let commands = documented(id);
    let mut words = vec!["--password", PASSWORD];
    words.extend(commands.iter().flat_map(|command| ["--command", command.as_str()]));
    let count = |command: &String| command.matches("--operation").count() * command.matches("--topic").count().max(1);
    let all: usize = commands.iter().map(count).sum();
    let rights = change(id, &words, |rights| rights.len() == all);
    (edge, rights)
}

fn raw_topic(id: &str) -> String {
    format!("{id}.raw")
}

/// A subcommand about its topics, as the edge's user.
fn run(edge: &Edge, words: &[&str], drop: &[&str]) -> (Option<i32>, String) {
    let all = edge.words();
    let pairs = all.chunks(2).filter(|pair| !drop.contains(&pair[0].as_str()));
    let flags: Vec<&str> = pairs.flatten().map(String::as_str).collect();
    tollgate(&edge.data_dir, &[words, &flags].concat())
}

/// What serve knows and `topics` does not.
const OF_SERVE: [&str; 3] = ["--sink", "--edge-id", "--export-interval"];

#[test]
fn the_rights_that_are_documented_are_enough() {
    let (edge, rights) = edge("enough");
    assert_eq!(rights.len(), 9, "{rights:?}");
    let (code, text) = run(&edge, &["topics", "check"], &OF_SERVE);
    assert!(code == Some(0) && !text.contains("is missing") && text.lines().count() == 3, "{text}");
    let mut clients = [client(1)];
    for _ in 0..2 {
        let server = edge.start();
        send(&server, &mut clients[0], 10);
        wait_for_export(&server);
        server.stop();
    }
    let clicks = edge.check(&sums(&clients)).clicks();
    let counts = edge.data_dir.with_extension("raw");
    let raw = crate::reader::raw(&shared::broker().direct(), &raw_topic(&edge.id), "read_committed", &counts, "");
    assert!(raw["clicks"] == clicks && clicks > 100, "{raw}");
    assert!(!said(&edge.data_dir).contains("is missing"), "{}", said(&edge.data_dir));
    let (code, text) = run(&edge, &["adopt"], &["--sink", "--export-interval"]);
    assert!(code == Some(0) && !text.contains("is missing"), "{text}");
}

#[test]
fn topics_are_made_with_the_right_to_create_them_besides() {
    let (edge, _) = edge("creates");
    let direct = shared::broker().direct();
    let topics = [edge.topics.partials.clone(), edge.topics.checkpoints.clone(), raw_topic(&edge.id)];
    topics.iter().for_each(|topic| delete_topic(&direct, topic));
    let create = ["topics", "create", "--partitions", "2", "--edges", "1", "--replication", "1"];
    let (code, text) = run(&edge, &create, &OF_SERVE);
    assert!(code == Some(77) && text.contains("cannot be made") && text.contains("authorization"), "{text}");
    let more = topics.iter().map(|topic| format!("TOPIC {topic} CREATE")).collect::<Vec<_>>();
    let words: Vec<&str> = more.iter().flat_map(|right| ["--allow", right]).collect();
    change(&edge.id, &words, |rights| more.iter().all(|right| rights.contains(right)));
    let (code, text) = run(&edge, &create, &OF_SERVE);
    assert_eq!(code, Some(0), "{text}");
    let partitions = |topic| describe_topic(&direct, topic)["partitions"].as_u64();
    assert_eq!(topics.each_ref().map(|topic| partitions(topic)), [Some(2), Some(1), Some(2)]);
}

/// Clicks are taken, and more than is exported.
fn waits(server: &Server) {
    assert!(answer(server.admin, "/readyz").0.starts_with("HTTP/1.1 200"), "clicks are taken");
    let metrics = server.scrape();
    assert!(metrics.sum("tollgate_log_end_lsn") > metrics.sum("tollgate_export_lsn"), "it was not needed");
}

/// What an edge says that lacks a right: its words, and the name of the topic where it is of one.
fn told(right: &str) -> [String; 2] {
    let words: Vec<&str> = right.split(' ').collect();
    let (of, topic) = match words[..] {
        ["GROUP", group, "DESCRIBE"] => (format!("Describe on the group {group}"), ""),
        ["TRANSACTIONAL_ID", _, "WRITE"] => ("Write on the edge's transactional id".to_owned(), ""),
        ["TOPIC", topic, "DESCRIBE_CONFIGS"] => ("DescribeConfigs on it".to_owned(), topic),
        ["TOPIC", topic, "READ"] => ("Read on this topic".to_owned(), topic),
        // That of checkpoints may be seen, since it may be read.
        ["TOPIC", topic, "WRITE"] if topic.ends_with(".checkpoints") => ("Write on this topic".to_owned(), topic),
        ["TOPIC", topic, "WRITE"] => ("Describe on this topic, which Write and Read bring,".to_owned(), topic),
        _ => panic!("nobody needs {right}"),
    };
    [format!("the right {of} is missing"), topic.to_owned()]
}

fn is_told(edge: &Edge, told: &[String; 2]) -> bool {
    said(&edge.data_dir).lines().any(|line| line.contains("WARN") && told.iter().all(|words| line.contains(words)))
}

/// Starts without one right, and is granted it.
fn without(edge: &Edge, right: &str, client: &mut Client) {
    forget(&edge.data_dir);
    change(&edge.id, &["--deny", right], |rights| !rights.contains(right));
    let server = edge.start();
    send(&server, client, 10);
    let told = told(right);
    wait_until(&format!("without {right} it is told: {told:?}"), || is_told(edge, &told));
    send(&server, client, 10);
    if right.ends_with("DESCRIBE_CONFIGS") {
        wait_for_export(&server);
    } else {
        waits(&server);
    }
    change(&edge.id, &["--allow", right], |rights| rights.contains(right));
    send(&server, client, 10);
    wait_for_export(&server);
    server.stop();
}

/// Three edges side by side, since most of it is waiting.
#[test]
fn without_any_of_them_it_is_named_and_counts_wait_until_it_is_granted() {
    const EDGES: usize = 3;
    let turns = move |nth: usize| {
        let (edge, rights) = edge(&format!("turn-{nth}"));
        let mut clients = [client(1)];
        let own = rights.iter().skip(nth).step_by(EDGES);
        own.for_each(|right| without(&edge, right, &mut clients[0]));
        edge.check(&sums(&clients));
    };
    std::thread::scope(|scope| {
        for nth in 0..EDGES {
            scope.spawn(move || turns(nth));
        }
    });
}

#[test]
fn a_right_that_is_taken_away_is_named_and_counts_wait_until_it_is_back() {
    let (edge, _) = edge("taken");
    let right = format!("TOPIC {} WRITE", edge.topics.partials);
    let mut clients = [client(1)];
    let server = edge.start();
    send(&server, &mut clients[0], 10);
    wait_for_export(&server);
    change(&edge.id, &["--deny", &right], |rights| !rights.contains(&right));
    let named = ["Write on this topic is missing".to_owned(), edge.topics.partials.clone()];
    wait_until("it is told", || is_told(&edge, &named));
    send(&server, &mut clients[0], 10);
    waits(&server);
    change(&edge.id, &["--allow", &right], |rights| rights.contains(&right));
    wait_for_export(&server);
    server.stop();
    edge.check(&sums(&clients));
}
