//! Tests of the harness itself: a fault that is not applied, or a breach that the reader does not see, would make every other
//! test here worthless.

use std::time::{Duration, Instant};

use crate::broker::{Broker, Setup};
use crate::end_txn::{FENCED, Outcomes};
use crate::proxy::Proxy;
use crate::reader::{Topics, create_topic, delete_topic, describe_topic};
use crate::rules::{Action, Api, Applied, Rule, When};
use crate::shared;
use crate::wait::wait_until;

/// Writes `transactions` of 10 partials of 3 clicks through `bootstrap`, as edge `e`.
#[track_caller]
fn produce(topics: &Topics, bootstrap: &str, transactions: u64, flags: &[&str]) -> u64 {
    let count = transactions.to_string();
    let mut words = vec!["--edge", "e", "--transactions", &count];
    words.extend(flags);
    let answer = topics.produce(bootstrap, &words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    answer["clicks"].as_u64().expect("a number")
}

#[test]
fn what_is_committed_is_summed_and_what_is_aborted_is_seen_only_uncommitted() {
    let broker = shared::broker();
    let topics = Topics::create(&broker.direct(), "sums");
    // The third and the sixth of seven are aborted.
    assert_eq!(produce(&topics, &broker.direct(), 7, &["--abort-every", "3"]), 5 * 30);
    topics.produce(&broker.direct(), &["--edge", "f", "--partition", "2"]).expect("it is committed");
    let counts = shared::folder();
    let path = counts.path().join("counts.tsv");
    let sum = topics.counted(&path).sound();
    assert_eq!((sum.partials(), sum.ends(), sum.clicks(), sum.undecided()), (60, 6, 180, 0));
    assert_eq!(sum.edge("e")["last_seq"], 5);
    assert_eq!(sum.edge("e")["partitions"], serde_json::json!([0]));
    assert_eq!(sum.edge("f")["clicks"], 30);
    assert_eq!(sum.checkpoint("e")["txn_seq"], 5);
    assert_eq!(topics.uncommitted().partials(), 80);

    let text = std::fs::read_to_string(path).expect("it was written");
    let clicks = text.lines().map(|line| line.rsplit('\t').next().expect("a cell").parse::<u64>().expect("a number"));
    assert_eq!(clicks.sum::<u64>(), 180);
    assert!(
        text.lines().all(|line| line.split('\t').count() == 7)
            && text.starts_with("1700000010000\tad-0\tDE\t0\t0\t0\t6\n"),
        "{text}"
    );
}

#[test]
fn every_breach_of_the_contract_is_named() {
    let broker = shared::broker();
    for (how, names) in [
        ("seq", "seq: "),
        ("index", "index: "),
        ("crc", "crc: "),
        ("count", "count: "),
        ("clicks", "clicks: "),
        ("range", "range: "),
        ("total", "total: "),
        ("repeat", "repeated: "),
        ("partition", "partition: "),
        ("torn", "torn: "),
        ("checkpoint", "checkpoint: "),
        ("type", "unknown type \"close\""),
        ("header", "unknown header \"colour\""),
        ("key", "key \"e-other\""),
        ("version", "version: "),
    ] {
        let topics = Topics::create(&broker.direct(), &format!("breach-{how}"));
        produce(&topics, &broker.direct(), 2, &["--break", how]);
        // The producer is told that it is committed before the partitions are.
        let mut sum = topics.committed();
        wait_until("every transaction is decided", || {
            sum = topics.committed();
            sum.undecided() == 0
        });
        assert!(
            sum.problems().iter().any(|problem| problem.contains(names)),
            "{how}: {names:?} in {:?}",
            sum.problems()
        );
    }
}

#[test]
fn a_killed_a_stopped_and_a_frozen_broker_keep_what_was_committed() {
    let dir = shared::folder();
    let mut broker = Broker::start(dir.path(), &Setup::default());
    let topics = Topics::create(&broker.direct(), "kept");
    let direct = broker.direct();
    let mut clicks = produce(&topics, &direct, 3, &[]);
    broker.kill();
    assert!(std::net::TcpStream::connect(&direct).is_err(), "nobody listens");
    broker.restart();
    clicks += produce(&topics, &direct, 1, &["--after", "3"]);
    broker.stop();
    broker.restart();
    broker.pause();
    std::thread::scope(|scope| {
        let late = scope.spawn(|| produce(&topics, &direct, 1, &["--after", "4"]));
        // Nothing tells that it waits but that time passes.
        crate::wait::let_pass(Duration::from_millis(500));
        assert!(!late.is_finished(), "a frozen broker answers nobody");
        broker.resume();
        clicks += late.join().expect("it is committed");
    });
    let sum = topics.committed().sound();
    assert_eq!((sum.clicks(), sum.ends()), (clicks, 5));
    broker.orphan();
}

#[test]
fn a_transaction_that_is_left_open_holds_readers_back_until_it_times_out() {
    let broker = shared::broker();
    let topics = Topics::create(&broker.direct(), "open");
    let clicks = produce(&topics, &broker.direct(), 2, &["--break", "open", "--set", "transaction.timeout.ms=1500"]);
    // The topic of partials has 11 records more, that of checkpoints one.
    assert_eq!(topics.committed().sound().undecided(), 12);
    assert_eq!(topics.uncommitted().partials(), 20);
    wait_until("the broker aborts it", || topics.committed().undecided() == 0);
    assert_eq!(topics.committed().sound().clicks(), clicks);
}

/// Two transactions through a proxy with this rule; they are committed in spite of it, and once.
#[track_caller]
fn survives(name: &str, api: Api, action: Action, check: impl FnOnce(&Proxy, &Applied)) {
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let topics = Topics::create(&broker.direct(), name);
    let applied = proxy.add(Rule { api, when: When::Nth(1), action });
    let before = proxy.requests(api);
    let clicks = produce(&topics, &proxy.address().to_string(), 2, &[]);
    assert!(proxy.requests(api) > before, "{api:?} did not come through the proxy");
    // A commit that comes while the coordinator still ends the last one of its id is told to try again.
    wait_until("both transactions are decided", || topics.committed().undecided() == 0);
    check(&proxy, &applied);
    assert_eq!(applied.times(), 1, "{action:?} of {api:?}");
    assert_eq!(topics.committed().sound().clicks(), clicks);
}

#[test]
fn requests_and_responses_are_delayed() {
    const DELAY: Duration = Duration::from_millis(400);
    for (name, action) in
        [("late-request", Action::DelayRequest(DELAY)), ("late-response", Action::DelayResponse(DELAY))]
    {
        let start = Instant::now();
        survives(name, Api::INIT_PRODUCER_ID, action, |_, _| {});
        assert!(start.elapsed() >= DELAY, "{action:?} took {:?}", start.elapsed());
    }
}

#[test]
fn requests_and_responses_are_lost() {
    survives("lost-find", Api::FIND_COORDINATOR, Action::DropRequest, |_, _| {});
    survives("lost-produce", Api::PRODUCE, Action::DropRequest, |_, _| {});
    survives("lost-answer", Api::PRODUCE, Action::DropResponse, |_, _| {});
    survives("lost-commit", Api::END_TXN, Action::DropResponse, |_, _| {});
    survives("cut-metadata", Api::METADATA, Action::CutAtOnce, |_, _| {});
}

#[test]
fn requests_are_doubled() {
    survives("double-produce", Api::PRODUCE, Action::Duplicate, |_, applied| {
        wait_until("the second answer came and was swallowed", || applied.times() == 1);
    });
}

#[test]
fn a_commit_that_was_held_lands_late() {
    survives("held", Api::END_TXN, Action::Hold, |proxy, applied| {
        assert_eq!((applied.times(), proxy.held()), (0, 1));
        let answers = proxy.release();
        // It is of an epoch that is over: the broker refuses it.
        assert_eq!((answers.len(), applied.ends()), (1, Outcomes::from([(FENCED[1], 1)])));
        assert_eq!(proxy.held(), 0);
    });
    survives("delivered", Api::END_TXN, Action::DeliverLate(Duration::from_millis(50)), |_, applied| {
        wait_until("it was delivered", || applied.times() == 1);
    });
}

#[test]
fn a_share_of_requests_is_lost() {
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let topics = Topics::create(&broker.direct(), "share");
    let rule = |api, action| Rule { api, when: When::Percent { share: 30, seed: 1 }, action };
    let lost = proxy.add(rule(Api::PRODUCE, Action::DropResponse));
    let late = proxy.add(rule(Api::END_TXN, Action::DelayResponse(Duration::from_millis(5))));
    let clicks = produce(&topics, &proxy.address().to_string(), 20, &[]);
    assert!(lost.times() > 0 && late.times() > 0, "{lost:?} {late:?}");
    assert_eq!(topics.committed().sound().clicks(), clicks);
}

#[test]
fn a_paused_proxy_lets_nobody_in_until_it_is_resumed() {
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let topics = Topics::create(&broker.direct(), "paused");
    let address = proxy.address().to_string();
    proxy.pause();
    assert!(std::net::TcpStream::connect(&address).is_err(), "nobody listens");
    let error = topics.produce(&address, &["--edge", "e", "--set", "max.block.ms=300"]).expect_err("nobody is there");
    assert!(error.contains("Timeout"), "{error}");
    proxy.resume();
    let accepted = proxy.accepted();
    let clicks = produce(&topics, &address, 1, &[]);
    assert!(proxy.accepted() > accepted);
    assert_eq!(topics.committed().sound().clicks(), clicks);
}

#[test]
fn the_secured_listener_lets_in_who_knows_the_password() {
    let secured = shared::broker().secured();
    let topics = Topics::create(&shared::broker().direct(), "secured");
    let folder = shared::folder();
    let bootstrap = secured.address().to_string();
    let produce = |password: &str| {
        let properties = secured.client_properties(folder.path(), password);
        topics.produce(&bootstrap, &["--edge", "e", "--properties", properties.to_str().expect("UTF-8")])
    };
    let error = produce("a bad password").expect_err("it is refused");
    assert!(error.contains("Authentication"), "{error}");
    produce(crate::secured::PASSWORD).expect("it is let in");
    assert_eq!(topics.committed().sound().clicks(), 30);
}

#[test]
fn topics_are_created_described_and_deleted() {
    let bootstrap = shared::broker().direct();
    create_topic(&bootstrap, "plain", 3, &["cleanup.policy=compact", "min.insync.replicas=1"]);
    let found = describe_topic(&bootstrap, "plain");
    assert_eq!((&found["partitions"], &found["config"]["cleanup.policy"]), (&3.into(), &"compact".into()));
    delete_topic(&bootstrap, "plain");
    assert_eq!(describe_topic(&bootstrap, "plain")["partitions"], 0);
}
