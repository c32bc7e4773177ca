//! What the global tier reads of a topic, and when it cannot: transactions larger together than its memory, a topic that may not be read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::broker::{Broker, Setup};
use crate::global::{Global, command, edge_of, gross, make_anew, produce};
use crate::reader::{Topics, create_topic, rights};
use crate::secured::{PASSWORD, user_flags};
use crate::server::{Server, answer, get};
use crate::shared;
use crate::wait::{PATIENCE, let_pass, wait_until};

/// Where the shared broker is, a folder, and topics of that name.
fn of_its_own(name: &str) -> (String, tempfile::TempDir, Topics) {
    let direct = shared::broker().direct();
    let topics = Topics::create(&direct, name);
    (direct, shared::folder(), topics)
}

/// Ten partitions, in each of which a transaction of 50,000 partials has begun before another has ended: half a million partials that
/// cannot be committed yet, in twice the memory that they may take.
#[test]
fn transactions_that_are_too_large_together_are_read_one_after_the_other() {
    const EDGES: usize = 10;
    let (direct, folder, mut topics) = of_its_own("global-large");
    topics.partials = "global-large-ten.partials".to_owned();
    create_topic(&direct, &topics.partials, EDGES as u32, &[]);
    for nth in 0..EDGES {
        let (edge, partition) = (format!("large-{nth}"), nth.to_string());
        let words = ["--edge", &edge, "--transactions", "1", "--partials", "50000", "--partition", &partition];
        produce(&topics, &direct, &words);
    }
    let mut global = Global::new(folder.path(), &topics, &direct);
    // An eighth of it: of two transactions.
    global.flags.extend(["--store-memory-bytes", "64MiB"].map(str::to_owned));
    let server = global.start();
    wait_until("all is counted", || gross(&server, None) == EDGES as u64 * 50_000 * 3);
    for nth in 0..EDGES {
        let edge = edge_of(&server, &format!("large-{nth}"));
        assert_eq!((&edge["clicks"], &edge["troubles"]), (&150_000.into(), &serde_json::json!([])), "{edge}");
    }
    let held_back = line(&server, "tollgate_global_partitions_held_back_total");
    assert!(!held_back.ends_with(" 0"), "they had to wait: {held_back}");
    server.stop();
}

/// What the admin port says of one metric.
fn line(server: &Server, metric: &str) -> String {
    let metrics = get(server.admin, "/metrics");
    let line = metrics.lines().find(|line| line.starts_with(&format!("{metric} ")));
    line.unwrap_or_else(|| panic!("{metric} in {metrics}")).to_owned()
}

fn closed(server: &Server) -> String {
    line(server, "tollgate_global_closed_timestamp_seconds")
}

/// Metadata is answered, and fetches are not: nobody is silent for that, no window closes over what may be there, and it is said once.
#[test]
fn what_may_not_be_read_closes_no_window_and_makes_nobody_silent() {
    let (direct, folder, topics) = of_its_own("global-denied");
    let read = format!("TOPIC {} READ", topics.partials);
    let describe = format!("TOPIC {} DESCRIBE", topics.partials);
    let change = |words: &[&str], is_there: bool| {
        rights(&direct, "global-denied", words);
        wait_until("the broker knows", || rights(&direct, "global-denied", &[]).contains(&read) == is_there);
    };
    change(&["--password", PASSWORD, "--allow", &read, "--allow", &describe], true);
    let mut global = Global::new(folder.path(), &topics, &shared::broker().secured().address().to_string());
    global.flags = ["--idle-after", "10s"].map(str::to_owned).to_vec();
    global.flags.extend(user_flags("global-denied", PASSWORD));
    let server = global.start();
    let send = |edge: &str, after: &str, transactions: &str, partition: &str| {
        let words = ["--edge", edge, "--after", after, "--transactions", transactions, "--partials", "1"];
        produce(&topics, &direct, &[&words[..], &["--partition", partition]].concat());
    };
    send("near", "0", "3", "0");
    send("far", "0", "60", "1");
    wait_until("all is counted", || gross(&server, None) == 63 * 3);
    change(&["--deny", &read], false);
    let before = closed(&server);
    send("near", "3", "2", "0");
    wait_until("it is told", || get(server.admin, "/readyz").contains("nothing is consumed since"));
    // Longer than --idle-after, and than several looks.
    let_pass(Duration::from_secs(16));
    assert_eq!(["near", "far"].map(|edge| edge_of(&server, edge)["presence"].clone()), ["unheard", "unheard"]);
    let (code, text) = command(&server, &["edges", "list"]);
    assert!(code == Some(1) && text.contains("KAFKA: nothing is consumed since"), "{text}");
    assert_eq!(closed(&server), before, "up to what the slower one has said");
    let said = std::fs::read_to_string(folder.path().join("global.stderr")).expect("its lines");
    assert_eq!(said.matches("nothing is consumed").count(), 1, "once: {said}");
    change(&["--allow", &read], true);
    wait_until("it reads on", || gross(&server, None) == 65 * 3);
    assert_eq!(edge_of(&server, "near")["presence"], "live");
    server.stop();
}

/// The word of an operator is about what a start finds. A topic that is made anew after that is another one: nothing is guessed of it.
#[test]
fn from_earliest_does_not_go_over_to_a_topic_that_is_made_anew_while_it_reads() {
    let (direct, folder, topics) = of_its_own("global-anew");
    let mut global = Global::new(folder.path(), &topics, &direct);
    produce(&topics, &direct, &["--edge", "one", "--transactions", "3", "--partition", "1"]);
    global.flags.push("--from-earliest".to_owned());
    let mut server = global.start();
    wait_until("all is counted", || gross(&server, None) == 90);
    make_anew(&topics, &direct);
    produce(&topics, &direct, &["--edge", "one", "--transactions", "5", "--after", "3", "--partition", "1"]);
    let ended = server.ended_within(PATIENCE);
    assert!(ended.code == Some(77) && ended.errors.contains("made anew"), "{ended:?}");
    // A start finds it, and goes on with it.
    server = global.start();
    wait_until("what it has is added", || gross(&server, None) == 240);
    assert_eq!(edge_of(&server, "one")["troubles"], serde_json::json!([]));
    server.stop();
}

/// Somebody else's record that claims a later version: no update would ever read it. The line that says so names the way on.
#[test]
fn a_record_that_claims_a_later_version_ends_it_until_an_operator_passes_over_it() {
    let (direct, folder, topics) = of_its_own("global-strange");
    let mut global = Global::new(folder.path(), &topics, &direct);
    let words =
        ["--edge", "strange", "--transactions", "3", "--partials", "1", "--partition", "2", "--break", "version"];
    produce(&topics, &direct, &words);
    let mut server = global.start();
    let ended = server.ended_within(PATIENCE);
    assert_eq!(ended.code, Some(77), "{ended:?}");
    let named = ended.errors.split_once("--pass-over ").unwrap_or_else(|| panic!("{ended:?}")).1;
    let place: String = named.chars().take_while(|char| char.is_ascii_digit() || *char == ':').collect();
    let place = place.trim_end_matches(':');
    assert!(place.starts_with("2:"), "{ended:?}");
    let plain = std::mem::take(&mut global.flags);
    global.flags = [&plain[..], &["--pass-over".to_owned(), place.to_owned()]].concat();
    server = global.start();
    wait_until("it reads on", || edge_of(&server, "strange")["troubles_seen"]["torn"] == 1);
    let edge = edge_of(&server, "strange");
    let why = edge["troubles"][0]["text"].as_str().expect("a text");
    assert!(edge["clicks"] == 6 && edge["held_at_ms"].is_number() && why.contains("--pass-over"), "{edge}");
    server.stop();
    // It was read: the flag is for one start.
    global.flags = plain;
    let server = global.start();
    produce(&topics, &direct, &["--edge", "next", "--transactions", "1", "--partition", "2"]);
    wait_until("it reads on", || gross(&server, None) == 36);
    server.stop();
}

/// What can be read ends within a transaction that is committed, where another's begins that is not decided: the rest is hidden, and
/// comes later.
#[test]
fn a_transaction_that_is_half_hidden_by_another_is_waited_for() {
    let (direct, folder, topics) = of_its_own("global-hidden");
    let server = Global::new(folder.path(), &topics, &direct).start();
    let words = ["--edge", "a", "--transactions", "2", "--break", "hidden", "--set", "transaction.timeout.ms=4000"];
    produce(&topics, &direct, &words);
    // Its second transaction has 10 partials and an end record.
    assert!(topics.committed().undecided() > 10, "it is hidden");
    wait_until("the other's is aborted", || topics.committed().undecided() == 0);
    wait_until("all is counted", || gross(&server, None) == 60);
    let edge = edge_of(&server, "a");
    assert_eq!((&edge["troubles"], &edge["txn_seq"]), (&serde_json::json!([]), &2.into()), "{edge}");
    server.stop();
}

/// Nothing comes behind it, and nothing is undecided: its end will never come. It is told then, and not kept open until the topic
/// deletes it.
#[test]
fn a_transaction_that_nothing_ends_is_told_where_the_log_ends() {
    let (direct, folder, topics) = of_its_own("global-half");
    let server = Global::new(folder.path(), &topics, &direct).start();
    produce(&topics, &direct, &["--edge", "half", "--transactions", "2", "--break", "torn"]);
    wait_until("it is told", || edge_of(&server, "half")["troubles_seen"]["torn"] == 1);
    let edge = edge_of(&server, "half");
    assert!(edge["clicks"] == 30 && edge["troubles"][0]["text"] == "10 partials, and no end record", "{edge}");
    server.stop();
}

/// A copy of the broker's directory is put back while nobody reads, and others write until the topic is longer than it was: the offset that
/// is to be read next is there, and is another record's.
#[test]
fn a_topic_that_was_put_back_and_has_grown_is_not_read_on() {
    // A broker of its own: it is stopped.
    let (home, folder) = (shared::folder(), shared::folder());
    let mut broker = Broker::start(home.path(), &Setup::default());
    let direct = broker.direct();
    let topics = Topics::create(&direct, "put-back");
    produce(&topics, &direct, &["--edge", "one", "--transactions", "3"]);
    produce(&topics, &direct, &["--edge", "far", "--transactions", "2", "--partition", "1"]);
    broker.stop();
    let copied = |from: &str, to: &str| {
        let [from, to] = [from, to].map(|name| home.path().join(name));
        let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
        assert!(status.success(), "{status}");
    };
    copied("data", "copy");
    broker.restart();
    produce(&topics, &direct, &["--edge", "one", "--transactions", "2", "--after", "3"]);
    produce(&topics, &direct, &["--edge", "far", "--transactions", "1", "--after", "2", "--partition", "1"]);
    let mut global = Global::new(folder.path(), &topics, &direct);
    let server = global.start();
    wait_until("all is counted", || gross(&server, None) == 240);
    server.stop();
    // As it is, it is read on.
    let server = global.start();
    assert_eq!(gross(&server, None), 240);
    server.stop();

    broker.stop();
    std::fs::rename(home.path().join("data"), home.path().join("later")).expect("moved");
    copied("copy", "data");
    broker.restart();
    produce(&topics, &direct, &["--edge", "two", "--transactions", "6"]);
    produce(&topics, &direct, &["--edge", "three", "--transactions", "6", "--partition", "1"]);
    let server = global.spawn(&[]);
    let ended = server.ended_within(PATIENCE);
    assert!(ended.code == Some(77) && ended.errors.contains("put back"), "{ended:?}");
    global.flags.push("--from-earliest".to_owned());
    let server = global.start();
    wait_until("what it has is added", || gross(&server, None) == 240 + 360);
    for (edge, clicks) in [("one", 150), ("far", 90), ("two", 180), ("three", 180)] {
        assert_eq!(edge_of(&server, edge)["clicks"], clicks, "{edge}");
    }
    assert_eq!(edge_of(&server, "three")["troubles"], serde_json::json!([]));
    server.stop();
}

/// Where edges commit all the time, a reader that is at the head never finds nothing more: one that died would hold all windows open for ever.
#[test]
fn a_dead_edge_is_silent_though_its_partition_is_never_quiet() {
    const EACH: u32 = 300;
    let (direct, folder, topics) = of_its_own("global-busy");
    let mut global = Global::new(folder.path(), &topics, &direct);
    global.flags = ["--idle-after", "4s"].map(str::to_owned).to_vec();
    produce(&topics, &direct, &["--edge", "dead", "--transactions", "1", "--partials", "1"]);
    let (server, done) = (global.start(), AtomicBool::new(false));
    wait_until("it is counted", || gross(&server, None) == 3);
    server.stop();
    std::thread::scope(|scope| {
        for edge in ["busy", "as-busy", "no-less"] {
            let (topics, direct, done) = (&topics, &direct, &done);
            let send = move |after: u32| {
                let [after, transactions] = [after, EACH].map(|number| number.to_string());
                let words = ["--edge", edge, "--after", &after, "--transactions", &transactions, "--partials", "1"];
                produce(topics, direct, &words);
            };
            let rounds = (0..).step_by(EACH as usize).take_while(|_| !done.load(Ordering::Relaxed));
            scope.spawn(move || rounds.for_each(send));
        }
        let looks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let server = global.start();
            let seen = || gross(&server, None);
            wait_until("they send", || seen() > 3 * u64::from(EACH));
            wait_until("it has caught up", || answer(server.admin, "/readyz").1.contains("\"reason\":\"ready\""));
            wait_until("its silence is noticed", || edge_of(&server, "dead")["presence"] == "silent");
            server.stop();
        }));
        done.store(true, Ordering::Relaxed);
        looks.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
