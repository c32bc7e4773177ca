//! A topic that takes no batch of an edge: refused at a start, waited for where it came later; every click is counted once in the end.

use crate::client::sums;
use crate::edge::{Edge, wait_for_export};
use crate::reader::alter_topic;
use crate::sending::{client, forget, said, send, set};
use crate::server::{answer, tollgate};
use crate::shared;
use crate::wait::{let_pass, wait_until};

use std::time::Duration;

fn edge(name: &str) -> Edge {
    let direct = shared::broker().direct();
    Edge::new(name, &direct, &direct)
}

fn limit(topic: &str, bytes: u64) {
    alter_topic(&shared::broker().direct(), topic, &[&format!("max.message.bytes={bytes}")]);
}

/// What `tollgate topics check` says of its topics.
fn checked(edge: &Edge, more: &[&str]) -> (Option<i32>, String) {
    let (partials, checkpoints) = (&edge.topics.partials, &edge.topics.checkpoints);
    let fixed = ["topics", "check", "--kafka-brokers", &edge.brokers, "--kafka-topic-partials", partials];
    tollgate(&edge.data_dir, &[&fixed[..], &["--kafka-topic-checkpoints", checkpoints], more].concat())
}

/// The row of 77, both ways that the line offers.
#[test]
fn a_topic_whose_limit_no_batch_fits_ends_a_start_until_one_of_them_is_changed() {
    let mut edge = edge("too-small");
    let mut clients = [client(1)];
    edge.exports(&mut clients[0], 5);
    let partials = edge.topics.partials.clone();
    limit(&partials, 30_000);
    let named = [&partials, "max.message.bytes is 30000", "up to 1000000", "batch.size=30000", "Correct it"];
    edge.halts(77, &named);
    let (code, text) = checked(&edge, &[]);
    assert!(code == Some(1) && text.contains("max.message.bytes is 30000"), "{text}");

    set(&mut edge, &["batch.size=30000"]);
    assert_eq!(checked(&edge, &["--kafka-set", "batch.size=30000"]).0, Some(0));
    // Far more than 30,000 B of them.
    edge.exports(&mut clients[0], 60);
    edge.flags.clear();
    edge.halts(77, &named);
    limit(&partials, 1_048_588);
    assert_eq!(checked(&edge, &[]).0, Some(0));
    edge.exports(&mut clients[0], 5);
    assert!(edge.check(&sums(&clients)).clicks() > 500);
}

/// Each is looked at when the edge starts, and may be changed an hour later.
#[test]
fn a_limit_that_is_lowered_meanwhile_is_named_and_counts_wait_until_it_is_raised() {
    let edge = edge("lowered");
    let mut clients = [client(1)];
    for topic in [&edge.topics.partials, &edge.topics.checkpoints] {
        forget(&edge.data_dir);
        let server = edge.start();
        send(&server, &mut clients[0], 5);
        wait_for_export(&server);
        limit(topic, 100);
        let is_named =
            |line: &str| line.contains("in doubt") && line.contains(topic) && line.contains("MessageSizeTooLarge");
        wait_until("the reason is told", || {
            send(&server, &mut clients[0], 1);
            let_pass(Duration::from_millis(50));
            said(&edge.data_dir).lines().any(is_named)
        });
        assert!(answer(server.admin, "/readyz").0.starts_with("HTTP/1.1 200"), "clicks are taken");
        let metrics = server.scrape();
        assert!(metrics.sum("tollgate_export_lsn") < metrics.sum("tollgate_log_end_lsn"), "they wait");
        limit(topic, 1_048_588);
        wait_for_export(&server);
        server.stop();
        edge.check(&sums(&clients));
    }
}
