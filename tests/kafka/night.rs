//! Kafka away for a night: what the edge shows, what a stop leaves, and how a host is taken out all the same.

use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Client, Connection, Shape, sums};
use crate::edge::{Edge, wait_for_export};
use crate::reader::alter_topic;
use crate::rules::{Action, Api, Rule, When};
use crate::server::{Server, answer, status_json};
use crate::shared;
use crate::wait::{PATIENCE, wait_until};

const EXPORT_ALL: &str = "--until-exported";

/// Starts it to take nothing and export everything; waits until its admin port answers.
fn exporting(edge: &mut Edge) -> Server {
    edge.flags.push(EXPORT_ALL.to_owned());
    let mut server = edge.spawn();
    edge.flags.pop();
    assert!(server.ready_within(PATIENCE), "it does not say that it exports");
    server
}

/// A batch, acknowledged.
fn send(client: &mut Client, server: &Server) {
    let mut connection = Connection::open(server.clicks).expect("it listens");
    client.once(&mut connection).expect("it answers");
}

#[test]
fn a_host_is_taken_out_though_kafka_is_away() {
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let mut edge = Edge::new("night", &broker.direct(), &proxy.address().to_string());
    let mut clients = [Client::new(1, Shape::Lines(20), 1)];
    let server = edge.start();
    send(&mut clients[0], &server);
    wait_for_export(&server);
    let metrics = server.scrape();
    let shown = |name: &str| metrics.sum(&format!("tollgate_export_{name}"));
    assert_eq!((shown("sink_answers"), shown("clicks_behind"), shown("lag_seconds")), (1, 0, 0));

    // A commit that gets no answer is in doubt; then Kafka is known to be away.
    proxy.pause();
    send(&mut clients[0], &server);
    wait_until("a commit is in doubt", || server.scrape().sum("tollgate_export_doubts_total") > 0);
    wait_until("Kafka is away", || server.scrape().sum("tollgate_export_sink_away_seconds") > 0);
    let metrics = server.scrape();
    let shown = |name: &str| metrics.sum(&format!("tollgate_export_{name}"));
    let behind = shown("clicks_behind");
    assert!(behind > 0 && shown("sink_answers") == 0, "{behind}");
    assert!(shown("lag_seconds") > 0 && shown("commit_age_seconds") > 0, "15 s is a transaction's time");
    server.kill();

    // The recovered log's clicks are behind before Kafka has ever answered this process.
    let waiting = exporting(&mut edge);
    wait_until("Kafka is away", || waiting.scrape().sum("tollgate_export_sink_answers") == 0);
    assert!(answer(waiting.admin, "/readyz").1.contains("\"exporting\""));
    let (_, json) = status_json(waiting.admin);
    assert_eq!((&json["state"], &json["export"]["sink"]), (&"exporting".into(), &"kafka".into()), "{json}");
    assert_eq!(json["export"]["clicks_behind"].as_f64(), Some(behind as f64), "{json}");
    let said = edge.data_dir.with_extension("stderr");
    wait_until("it says how far it is", || {
        let said = std::fs::read_to_string(&said).unwrap_or_default();
        said.contains(&format!("the sink gives no answer to go on with, and is asked again clicks_behind={behind}"))
    });
    waiting.signal(Signal::TERM);
    let ended = waiting.ended_within(PATIENCE);
    assert_eq!(ended.code, Some(76), "{}", ended.errors);
    assert!(ended.errors.contains(&format!("{behind} clicks left to export")), "{}", ended.errors);

    let waiting = exporting(&mut edge);
    wait_until("Kafka is away", || waiting.scrape().sum("tollgate_export_sink_answers") == 0);
    proxy.resume();
    let ended = waiting.ended_within(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let sum = edge.check(&sums(&clients));
    assert_eq!(sum.edge(&edge.id)["stopped"], true, "{}", sum.0);
}

/// A commit without an answer shows long before it is in doubt, and so do the clicks that come meanwhile.
#[test]
fn a_commit_that_gets_no_answer_shows_before_it_is_in_doubt() {
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let edge = Edge::new("silent", &broker.direct(), &proxy.address().to_string());
    let mut clients = [Client::new(1, Shape::Lines(20), 1)];
    let server = edge.start();
    send(&mut clients[0], &server);
    wait_for_export(&server);
    // Longer than silence is taken for an answer that is late, shorter than a transaction may be open.
    let held = Duration::from_secs(9);
    let action = Action::DelayResponse(held);
    let applied = proxy.add(Rule { api: Api::END_TXN, when: When::Nth(1), action });
    let commits = server.scrape().sum("tollgate_export_transactions_total");
    wait_until("Kafka is silent", || server.scrape().sum("tollgate_export_sink_answers") == 0);
    send(&mut clients[0], &server);
    wait_until("a click grows old", || server.scrape().sum("tollgate_export_lag_seconds") > 0);
    let metrics = server.scrape();
    let shown = |name: &str| metrics.sum(&format!("tollgate_export_{name}"));
    let at_most = commits + 1;
    assert!(shown("transactions_total") <= at_most && shown("doubts_total") == 0 && shown("sink_away_seconds") > 0);
    let (_, json) = status_json(server.admin);
    assert_eq!(json["export"]["answers"], false, "{json}");
    wait_for_export(&server);
    let metrics = server.scrape();
    assert_eq!(metrics.sum("tollgate_export_sink_answers"), 1);
    assert_eq!((metrics.sum("tollgate_export_doubts_total"), applied.times()), (0, 1), "the commit was clean");
    server.stop();
    edge.check(&sums(&clients));
}

#[test]
fn a_kafka_that_a_person_must_mend_is_not_waited_for() {
    let broker = shared::broker();
    let mut edge = Edge::new("lax", &broker.direct(), &broker.direct());
    edge.exports(&mut Client::new(1, Shape::Lines(20), 1), 1);
    alter_topic(&broker.direct(), &edge.topics.checkpoints, &["cleanup.policy=delete"]);
    edge.flags.push(EXPORT_ALL.to_owned());
    edge.halts(77, &["lax.checkpoints", "compact"]);
}
