//! A directory belongs to the sink, the topics and the edge that it exported to: another one is refused with 73, and the way out
//! that the refusal names counts every click once.

use std::path::Path;

use crate::client::sums;
use crate::edge::{Edge, wait_for_export};
use crate::reader::create_topic;
use crate::sending::{client, forget, send};
use crate::server::{EXPORTS, Server};
use crate::shared;

fn direct() -> String {
    shared::broker().direct()
}

#[test]
fn a_directory_that_exported_to_kafka_is_refused_by_another_sink_edge_or_topic() {
    let mut edge = Edge::new("belongs", &direct(), &direct());
    let mut clients = [client(1)];
    edge.exports(&mut clients[0], 5);

    // Counted in the store, all would be counted again: the refusal says which sink it is.
    refused_by_the_store(&edge.data_dir, "belongs");
    assert!(!edge.data_dir.join("store.redb").exists(), "and none is made");
    let (id, partials) = (edge.id.clone(), edge.topics.partials.clone());
    edge.id = "another".to_owned();
    edge.halts(73, &["belongs to edge `belongs`, not to `another`", "--edge-id"]);
    edge.id = id;
    create_topic(&direct(), "belongs.else", 1, &[]);
    edge.topics.partials = "belongs.else".to_owned();
    edge.halts(73, &[&partials, "--kafka-topic-partials"]);
    edge.topics.partials = partials;
    let checkpoints = std::mem::replace(&mut edge.topics.checkpoints, "belongs.elsewhere".to_owned());
    edge.halts(73, &[&checkpoints, "--kafka-topic-checkpoints"]);
    edge.topics.checkpoints = checkpoints;

    // What each of them says to do.
    let server = edge.start();
    send(&server, &mut clients[0], 5);
    server.stop();
    edge.check(&sums(&clients));
    // To change the sink: it is stopped, all is exported; another directory begins.
    let anew = edge.data_dir.with_extension("anew");
    let server = Server::start(&anew, &EXPORTS);
    let mut later = client(2);
    send(&server, &mut later, 5);
    let acknowledged: u64 = later.ads.values().map(|ad| ad.acknowledged).sum();
    server.wait_for_gross(acknowledged);
    server.stop();
    edge.check(&sums(&clients));
}

/// As its mirror says; the brokers are of another cluster then.
#[test]
fn another_cluster_is_refused_with_77_before_anything_is_sent() {
    let edge = Edge::new("other-cluster", &direct(), &direct());
    let mut clients = [client(1)];
    edge.exports(&mut clients[0], 5);
    let seq = edge.topics.committed().checkpoint(&edge.id)["txn_seq"].clone();
    let path = edge.data_dir.join("exported.json");
    let mirror = std::fs::read_to_string(&path).expect("the mirror");
    let json: serde_json::Value = serde_json::from_str(&mirror).expect("JSON");
    let cluster = json["place"]["cluster"].as_str().expect("its cluster");
    std::fs::write(&path, mirror.replace(cluster, "of-somebody-else")).expect("writes");
    edge.halts(77, &["of-somebody-else", cluster, "--kafka-brokers"]);
    assert_eq!(edge.topics.committed().checkpoint(&edge.id)["txn_seq"], seq);
    std::fs::write(&path, &mirror).expect("writes");
    let server = edge.start();
    send(&server, &mut clients[0], 5);
    server.stop();
    edge.check(&sums(&clients));
}

#[test]
fn a_directory_that_exported_to_its_store_is_refused_by_kafka() {
    let mut edge = Edge::new("had-a-store", &direct(), &direct());
    let mut earlier = client(1);
    let flags = [&EXPORTS[..], &["--edge-id", "had-a-store"]].concat();
    let server = Server::start(&edge.data_dir, &flags);
    send(&server, &mut earlier, 5);
    server.kill();
    // Killed before its counts were in, perhaps; the refusal says to stop it, which exports them.
    let server = Server::start(&edge.data_dir, &flags);
    server.stop();
    edge.halts(73, &["store.redb", "--sink embedded", "SIGTERM", "empty --data-dir"]);
    let server = Server::start(&edge.data_dir, &flags);
    server.wait_for_gross(earlier.ads.values().map(|ad| ad.acknowledged).sum());
    server.stop();
    edge.data_dir = edge.data_dir.with_extension("anew");
    let mut clients = [client(2)];
    edge.exports(&mut clients[0], 5);
    edge.check(&sums(&clients));
}

/// Nothing of it can be counted twice.
#[test]
fn a_directory_that_never_counted_a_click_may_begin_with_kafka() {
    let edge = Edge::new("tried", &direct(), &direct());
    let server = Server::start(&edge.data_dir, &[&EXPORTS[..], &["--edge-id", "tried"]].concat());
    wait_for_export(&server);
    server.stop();
    assert!(edge.data_dir.join("store.redb").exists());
    let mut clients = [client(1)];
    edge.exports(&mut clients[0], 5);
    edge.check(&sums(&clients));
    // And from then on it is Kafka's.
    refused_by_the_store(&edge.data_dir, "tried");
}

#[track_caller]
fn refused_by_the_store(data_dir: &Path, id: &str) {
    forget(data_dir);
    let ended = Server::spawn(data_dir, &["--edge-id", id]).ended_within(crate::wait::PATIENCE);
    assert_eq!(ended.code, Some(73), "{}", ended.errors);
    for name in ["Kafka cluster", "say --sink kafka", "empty --data-dir"] {
        assert!(ended.errors.contains(name), "{name}: {}", ended.errors);
    }
}
