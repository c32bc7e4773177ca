//! `tollgate topics create | check`, what a start makes of topics that are not as they must be, and partitions of several edges.

use std::path::Path;
use std::time::Duration;

use crate::client::sums;
use crate::edge::{Edge, wait_for_export};
use crate::reader::{alter_topic, create_topic, delete_topic, describe_topic};
use crate::rules::{Action, Api, Rule, When};
use crate::sending::{client, forget, said, send};
use crate::server::tollgate;
use crate::shared;
use crate::wait::{PATIENCE, wait_until};

/// `tollgate topics …` about the topics of `name`.
fn topics(name: &str, words: &[&str]) -> (Option<i32>, String) {
    let broker = shared::broker().direct();
    let (partials, checkpoints) = (format!("{name}.partials"), format!("{name}.checkpoints"));
    let fixed = ["--kafka-brokers", &broker, "--kafka-topic-partials", &partials];
    let fixed = [&fixed[..], &["--kafka-topic-checkpoints", &checkpoints]].concat();
    tollgate(Path::new("no-directory"), &[&["topics"], words, &fixed[..]].concat())
}

#[test]
fn topics_are_made_as_the_protocol_needs_them_and_a_second_run_changes_nothing() {
    let create = ["create", "--partitions", "5", "--edges", "3", "--replication", "1", "--raw-topic", "made.raw"];
    let (code, text) = topics("made", &create);
    assert_eq!(code, Some(0), "{text}");
    for topic in ["made.partials", "made.checkpoints", "made.raw"] {
        assert!(text.contains(&format!("made: {topic}\n")), "{text}");
        assert!(text.contains(&format!("warning {topic}: 1 replicas, min.insync.replicas 1")), "{text}");
    }
    let direct = shared::broker().direct();
    let found = ["partials", "checkpoints", "raw"].map(|end| describe_topic(&direct, &format!("made.{end}")));
    assert_eq!(found.each_ref().map(|topic| topic["partitions"].as_u64()), [Some(5), Some(3), Some(5)]);
    let kept =
        |value: &str| found.each_ref().map(|topic| topic["config"][value].as_str().unwrap_or_default().to_owned());
    assert_eq!(kept("cleanup.policy"), ["delete", "compact", "delete"]);
    assert_eq!(kept("min.insync.replicas"), ["1"; 3]);
    assert_eq!(found[1]["config"]["segment.ms"], "3600000");

    let (code, text) = topics("made", &create);
    assert!(code == Some(0) && text.starts_with("all topics were there; nothing was changed\n"), "{text}");
    let (code, text) = topics("made", &["create", "--partitions", "5", "--edges", "4", "--replication", "1"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("warning made.checkpoints: has 3 partitions, 4 were asked for: it was not changed"),
        "{text}"
    );
    let again = ["partials", "checkpoints", "raw"].map(|end| describe_topic(&direct, &format!("made.{end}")));
    assert_eq!(again, found);
    assert_eq!(topics("made", &["check"]).0, Some(0));
}

#[test]
fn more_replicas_than_brokers_are_refused_with_how_many_there_are() {
    let (code, text) = topics("many", &["create", "--replication", "3"]);
    assert!(code == Some(77) && text.contains("the cluster has 1 brokers") && text.lines().count() == 1, "{text}");
    assert_eq!(describe_topic(&shared::broker().direct(), "many.partials")["partitions"], 0, "nothing was made");
}

#[test]
fn nobody_who_answers_is_an_error_and_not_a_finding() {
    let (code, text) = tollgate(Path::new("no-directory"), &["topics", "check", "--kafka-brokers", "127.0.0.1:9"]);
    assert!(code == Some(77) && text.contains("asking for") && text.contains("Connection refused"), "{text}");
}

#[test]
fn check_refuses_what_loses_counts() {
    let direct = shared::broker().direct();
    let (code, text) = topics("checked", &["check"]);
    assert!(code == Some(1) && text.contains("REFUSED checked.checkpoints: does not exist"), "{text}");
    assert!(text.contains("tollgate topics create"), "{text}");
    create_topic(&direct, "checked.partials", 2, &["cleanup.policy=compact"]);
    create_topic(&direct, "checked.checkpoints", 2, &["cleanup.policy=compact,delete"]);
    let (code, text) = topics("checked", &["check"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("REFUSED checked.partials: cleanup.policy is \"compact\""), "{text}");
    assert!(text.contains("REFUSED checked.checkpoints: cleanup.policy is \"compact,delete\""), "{text}");
    alter_topic(&direct, "checked.partials", &["cleanup.policy=delete", "unclean.leader.election.enable=true"]);
    alter_topic(&direct, "checked.checkpoints", &["cleanup.policy=compact"]);
    let (code, text) = topics("checked", &["check"]);
    assert!(code == Some(0) && !text.contains("REFUSED"), "{text}");
    assert!(text.contains("warning checked.partials: unclean.leader.election.enable is true"), "{text}");
    assert_eq!(text.lines().count(), 3, "and one for each topic's replicas: {text}");
}

/// The row of 77: provoked, its command followed, and every click counted.
#[test]
fn a_topic_of_checkpoints_that_is_not_compacted_ends_serve_until_it_is() {
    let direct = shared::broker().direct();
    let edge = Edge::new("uncompacted", &direct, &direct);
    let mut clients = [client(1)];
    edge.exports(&mut clients[0], 5);
    let text = said(&edge.data_dir);
    assert!(text.contains("min.insync.replicas 1"), "weak replication is warned of: {text}");
    alter_topic(&direct, &edge.topics.checkpoints, &["cleanup.policy=delete"]);
    forget(&edge.data_dir);
    // It takes clicks until it has seen the topic.
    let text = edge.halts(77, &["cleanup.policy is \"delete\"", "--add-config cleanup.policy=compact"]);
    assert!(!text.contains("panicked"), "{text}");
    let (code, text) = topics("uncompacted", &["check"]);
    assert!(code == Some(1) && text.contains("--add-config cleanup.policy=compact"), "{text}");
    alter_topic(&direct, &edge.topics.checkpoints, &["cleanup.policy=compact"]);
    edge.exports(&mut clients[0], 5);
    edge.check(&sums(&clients));
}

/// Topics that are not there yet are waited for.
#[test]
fn an_edge_that_finds_no_topics_takes_clicks_and_exports_when_they_are_made() {
    let direct = shared::broker().direct();
    let edge = Edge::new("later", &direct, &direct);
    for topic in [&edge.topics.partials, &edge.topics.checkpoints] {
        delete_topic(&direct, topic);
    }
    let mut clients = [client(1)];
    let server = edge.start();
    send(&server, &mut clients[0], 5);
    wait_until("it says what is missing", || said(&edge.data_dir).contains("tollgate topics create"));
    let (code, text) = topics("later", &["create", "--partitions", "4", "--edges", "1", "--replication", "1"]);
    assert_eq!(code, Some(0), "{text}");
    send(&server, &mut clients[0], 5);
    wait_for_export(&server);
    server.stop();
    edge.check(&sums(&clients));
}

/// Partition of partials, as its mirror remembers it, and that of checkpoints.
fn place(edge: &Edge) -> (u64, u64) {
    let text = std::fs::read_to_string(edge.data_dir.join("exported.json")).expect("the mirror");
    let mirror: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let of = |name: &str| mirror["place"][name].as_u64().unwrap_or_else(|| panic!("{name}: {text}"));
    (of("partition_partials"), of("partition_checkpoints"))
}

#[test]
fn each_edge_has_partitions_of_its_own_while_there_are_some_and_keeps_them() {
    let direct = shared::broker().direct();
    create_topic(&direct, "shared-topics.partials", 4, &[]);
    create_topic(&direct, "shared-topics.checkpoints", 2, &["cleanup.policy=compact"]);
    let mut edges: Vec<Edge> = ["first", "second", "third"].map(|id| Edge::new(id, &direct, &direct)).into();
    for edge in &mut edges {
        edge.topics.partials = "shared-topics.partials".to_owned();
        edge.topics.checkpoints = "shared-topics.checkpoints".to_owned();
    }
    let mut clients: Vec<_> = (1..=3).map(client).collect();
    let mut servers = Vec::new();
    for (edge, client) in edges.iter().zip(&mut clients) {
        let server = edge.start();
        send(&server, client, 5);
        wait_for_export(&server);
        servers.push(server);
    }
    let places: Vec<_> = edges.iter().map(place).collect();
    let own: std::collections::BTreeSet<_> = places[..2].iter().copied().collect();
    assert_eq!(own, [(0, 0), (1, 1)].into(), "one each");
    assert_eq!(places[2].0, places[2].1);
    let shares = |edge: &Edge| said(&edge.data_dir).contains("one partition for each edge");
    assert_eq!(edges.iter().map(shares).collect::<Vec<_>>(), [false, false, true]);
    for (server, client) in servers.into_iter().zip(&mut clients) {
        send(&server, client, 5);
        server.stop();
    }
    for (edge, client) in edges.iter().zip(&mut clients) {
        let server = edge.start();
        send(&server, client, 5);
        server.stop();
    }
    assert_eq!(edges.iter().map(place).collect::<Vec<_>>(), places, "kept");
    let sum = edges[0].check(&sums(&clients));
    for (edge, client) in edges.iter().zip(clients) {
        let acknowledged: u64 = client.ads.values().map(|ad| ad.acknowledged).sum();
        assert_eq!(sum.edge(&edge.id)["clicks"], acknowledged, "{}", edge.id);
    }
}

/// Two hosts that were given one id by mistake, fresh ones, choose their partition before either has written, and not the same one.
/// Whoever commits first goes on; the other halts, and does not count under another partition.
#[test]
fn two_fresh_hosts_of_one_id_do_not_end_in_two_partitions() {
    let (direct, proxy) = (shared::broker().direct(), shared::proxy());
    create_topic(&direct, "two-fresh.partials", 4, &[]);
    create_topic(&direct, "two-fresh.checkpoints", 2, &["cleanup.policy=compact"]);
    let [first, mut second] = ["fresh-one", "fresh-two"].map(|name| {
        let mut edge = Edge::new(name, &direct, &direct);
        edge.id = "two-fresh".to_owned();
        edge.topics.partials = "two-fresh.partials".to_owned();
        edge.topics.checkpoints = "two-fresh.checkpoints".to_owned();
        edge
    });
    second.brokers = proxy.address().to_string();
    let fences = || proxy.requests(Api::INIT_PRODUCER_ID);
    let before = fences();
    proxy.add(Rule { api: Api::INIT_PRODUCER_ID, when: When::Each, action: Action::DropRequest });
    // It chooses, and comes no further.
    let server = second.start();
    wait_until("it has chosen", || fences() > before);
    server.kill();
    let other = 1 - place(&second).1;
    let path = second.data_dir.join("exported.json");
    let text = std::fs::read_to_string(&path).expect("the mirror");
    let mut mirror: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    (mirror["place"]["partition_partials"], mirror["place"]["partition_checkpoints"]) = (other.into(), other.into());
    std::fs::write(&path, mirror.to_string()).expect("written");
    let (before, mut clients) = (fences(), [client(1), client(2)]);
    let late = second.start();
    send(&late, &mut clients[1], 5);
    wait_until("it has looked, and would fence", || fences() > before);

    let server = first.start();
    send(&server, &mut clients[0], 5);
    wait_for_export(&server);
    assert_ne!(place(&first).1, other, "they chose differently");
    proxy.clear();
    let ended = late.ended_within(PATIENCE);
    assert_eq!(ended.code, Some(74), "{}", ended.errors);
    assert!(ended.errors.contains("another host exports as this edge"), "{}", ended.errors);
    send(&server, &mut clients[0], 5);
    wait_for_export(&server);
    let before = fences();
    second.halts(74, &["another host exports as this edge", "`tollgate adopt`"]);
    assert_eq!(fences(), before, "from now on it fences nobody");
    server.stop();
    first.check(&sums(&clients[..1]));
}

/// They write different checkpoints: neither fences the other, not even in the middle of a commit.
#[test]
fn two_deployments_of_one_id_with_other_topics_do_not_fence_each_other() {
    let (direct, proxy) = (shared::broker().direct(), shared::proxy());
    let mut edges = ["apart-one", "apart-two"].map(|name| Edge::new(name, &direct, &direct));
    edges.iter_mut().for_each(|edge| edge.id = "apart".to_owned());
    edges[0].brokers = proxy.address().to_string();
    let action = Action::DelayRequest(Duration::from_millis(500));
    let slow = proxy.add(Rule { api: Api::END_TXN, when: When::Each, action });
    let mut clients = [client(1), client(2)];
    let servers: Vec<_> = edges.iter().map(Edge::start).collect();
    while slow.times() < 5 {
        let before = slow.times();
        send(&servers[0], &mut clients[0], 1);
        // Meanwhile the other one begins, and commits, what the first would not survive.
        wait_until("a slow commit", || {
            send(&servers[1], &mut clients[1], 1);
            slow.times() > before
        });
    }
    for server in servers {
        wait_for_export(&server);
        assert_eq!(server.scrape().sum("tollgate_export_doubts_total"), 0, "nobody stopped its transactions");
        server.stop();
    }
    for (edge, client) in edges.iter().zip(clients) {
        edge.check(&sums(&[client]));
    }
}

/// Its records are found by the place that the mirror keeps; without it, by the records.
#[test]
fn a_mirror_that_is_lost_after_several_transactions_halts_until_it_is_back() {
    let direct = shared::broker().direct();
    let edge = Edge::new("no-mirror", &direct, &direct);
    let mut clients = [client(1)];
    let server = edge.start();
    for _ in 0..3 {
        send(&server, &mut clients[0], 5);
        wait_for_export(&server);
    }
    server.stop();
    let (mirror, kept) = (edge.data_dir.join("exported.json"), edge.data_dir.with_extension("kept"));
    std::fs::rename(&mirror, &kept).expect("it is there");
    edge.halts(74, &["the stored checkpoint is of transaction", "tollgate adopt"]);
    std::fs::rename(&kept, &mirror).expect("it is there");
    let server = edge.start();
    send(&server, &mut clients[0], 5);
    server.stop();
    edge.check(&sums(&clients));
}
