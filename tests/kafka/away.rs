//! Kafka away: the edge serves on its log's own evidence, asks seldom, says little, and exports when Kafka is back.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::broker::{Broker, Setup};
use crate::client::sums;
use crate::edge::{Edge, wait_for_export};
use crate::sending::{client, said, send, set};
use crate::server::{Server, answer, status};
use crate::shared;
use crate::wait::{let_pass, wait_until};

/// CPU time is counted over this.
const WATCHED: Duration = Duration::from_secs(5);

/// Of all threads that it ever had: librdkafka's come and go.
fn cpu_time(server: &Server) -> Duration {
    let metrics = server.scrape();
    let sample = metrics.samples().find(|(name, _)| *name == "process_cpu_seconds_total");
    Duration::from_secs_f64(sample.expect("it is shown").1)
}

/// Lines that begin so far behind the start of what it said.
fn warnings(edge: &Edge, from: usize) -> Vec<String> {
    let said = said(&edge.data_dir);
    said[from..].lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).map(str::to_owned).collect()
}

#[test]
fn kafka_away_at_a_start_keeps_only_counts_waiting_and_costs_next_to_nothing() {
    let dir = shared::folder();
    let mut broker = Broker::start(dir.path(), &Setup::default());
    let edge = Edge::new("away", &broker.direct(), &broker.direct());
    broker.stop();
    let mut clients = [client(1)];
    let server = edge.start();
    send(&server, &mut clients[0], 10);
    wait_until("it says why counts wait", || said(&edge.data_dir).contains("counts wait in the log"));
    assert!(said(&edge.data_dir).contains("Connection refused"), "{}", said(&edge.data_dir));
    assert!(answer(server.admin, "/readyz").0.starts_with("HTTP/1.1 200"), "clicks are taken");
    let (_, shown) = status(server.admin, &[]);
    assert!(shown.contains("kafka HAS NOT ANSWERED since the start"), "{shown}");
    let before = cpu_time(&server);
    let_pass(WATCHED);
    let used = cpu_time(&server).saturating_sub(before);
    assert!(used < WATCHED / 20, "{used:?} of {WATCHED:?} while Kafka is away");

    // What is refused at once is given up soon: long before the 30 s of a stop are over.
    let since = Instant::now();
    server.signal(Signal::TERM);
    let ended = server.ended_within(Duration::from_secs(35));
    let took = since.elapsed();
    assert!(ended.code == Some(76) && took < Duration::from_secs(31), "{took:?}: {}", ended.errors);
    let warnings = warnings(&edge, 0);
    assert!((1..=4).contains(&warnings.len()), "of one outage: {warnings:#?}");
    assert!(!edge.data_dir.join("exported.json").exists(), "no place was chosen");

    let server = edge.start();
    send(&server, &mut clients[0], 10);
    broker.restart();
    wait_for_export(&server);
    server.stop();
    edge.check(&sums(&clients));
}

#[test]
fn kafka_that_goes_away_and_comes_back_is_told_of_once_each() {
    let dir = shared::folder();
    let mut broker = Broker::start(dir.path(), &Setup::default());
    let edge = Edge::new("comes-back", &broker.direct(), &broker.direct());
    let mut clients = [client(1)];
    let server = edge.start();
    send(&server, &mut clients[0], 10);
    wait_for_export(&server);
    let from = said(&edge.data_dir).len();
    broker.kill();
    send(&server, &mut clients[0], 10);
    wait_until("the outage is told of", || said(&edge.data_dir)[from..].contains("counts wait in the log"));
    // As long as several tries.
    let_pass(WATCHED);
    broker.restart();
    send(&server, &mut clients[0], 10);
    wait_for_export(&server);
    assert!(said(&edge.data_dir)[from..].contains("counts leave again"));
    // The transaction that it broke, and that nobody answers.
    assert_eq!(warnings(&edge, from).len(), 2, "{}", &said(&edge.data_dir)[from..]);
    server.stop();
    edge.check(&sums(&clients));
}

/// One that is named and does not answer is none that matters while another does.
#[test]
fn one_dead_broker_among_those_named_is_no_outage() {
    let direct = shared::broker().direct();
    let mut edge = Edge::new("one-dead", &direct, &format!("127.0.0.1:9,{direct},127.0.0.1:10"));
    set(&mut edge, &["reconnect.backoff.ms=10"]);
    let mut clients = [client(1)];
    for _ in 0..3 {
        let server = edge.start();
        send(&server, &mut clients[0], 5);
        wait_for_export(&server);
        server.stop();
    }
    assert!(!said(&edge.data_dir).contains("counts wait"), "{}", said(&edge.data_dir));
    edge.check(&sums(&clients));
}
