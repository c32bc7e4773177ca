//! The raw topic: every accepted click once, in the transaction that counts it, with all that it said.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, Connection, PerAd, Random, Shape, request, sums, verdicts, while_sending};
use crate::edge::{Edge, wait_for_export};
use crate::reader::{create_topic, raw};
use crate::sending::{client, said, send};
use crate::server::now_ms;
use crate::shared;
use crate::wait::{let_pass, wait_until};

/// An edge whose clicks go to `NAME.raw`, of four partitions.
fn edge(name: &str) -> Edge {
    let direct = shared::broker().direct();
    let mut edge = Edge::new(name, &direct, &direct);
    let topic = topic(&edge);
    create_topic(&direct, &topic, 4, &[]);
    edge.flags.extend(["--raw-topic".to_owned(), topic]);
    edge
}

fn topic(edge: &Edge) -> String {
    format!("{}.raw", edge.id)
}

fn counts_file(edge: &Edge) -> PathBuf {
    edge.data_dir.with_extension("raw")
}

/// What is committed; nothing breaks the contract.
#[track_caller]
fn committed(edge: &Edge, show: &str) -> Value {
    let read = || raw(&shared::broker().direct(), &topic(edge), "read_committed", &counts_file(edge), show);
    let mut answer = read();
    wait_until("every transaction is decided", || {
        answer = read();
        answer["undecided"] == 0
    });
    assert_eq!(answer["problems"], json!([]), "{answer}");
    answer
}

/// Raw clicks, partials and acknowledgements agree, ad by ad.
#[track_caller]
fn check(edge: &Edge, ads: &BTreeMap<String, PerAd>) -> u64 {
    let counted = edge.check(ads).clicks();
    let answer = committed(edge, "");
    assert_eq!(answer["clicks"], counted, "{answer}");
    let text = std::fs::read_to_string(counts_file(edge)).expect("the reader wrote it");
    let of_ad = |line: &str| {
        let (ad, clicks) = line.split_once('\t').expect("two cells");
        (ad.to_owned(), clicks.parse::<u64>().expect("a count"))
    };
    let sent: BTreeMap<String, u64> = text.lines().map(of_ad).collect();
    assert_eq!(sent, edge.counts().1, "ad by ad, as in the partials");
    counted
}

#[test]
fn a_click_keeps_all_that_it_said() {
    let edge = edge("whole");
    let server = edge.start();
    let mut connection = Connection::open(server.clicks).expect("it listens");
    let at_ms = now_ms() - 5_000;
    let uuid = "0188aa00-1111-4222-8333-44445555abcd";
    let agent = "Möbius/1.0 (日本; rv:🙂)";
    let full = json!({
        "ad_id": "ad-ü", "timestamp": at_ms, "request_id": uuid, "campaign_id": "c1", "advertiser_id": "a1",
        "user_id": "u-é", "click_id": "k1", "impression_id": "i1", "ip": "203.0.113.7", "country": "DE",
        "region": "Bayern", "device": "mobile", "user_agent": agent, "event_type": "click", "signature": "s1",
    });
    let bare = json!({"ad_id": "ad-ü", "timestamp": at_ms + 1, "request_id": "no uuid"});
    for click in [&full, &bare, &full] {
        connection.send(request("application/json", &click.to_string()).as_bytes()).expect("it reads");
        let reply = connection.reply().expect("it answers").expect("it answers");
        assert_eq!(reply.status, 202, "{}", String::from_utf8_lossy(&reply.body));
        assert_eq!(verdicts(&reply.body).2, 0);
    }
    wait_for_export(&server);
    server.stop();
    let answer = committed(&edge, "ad-ü");
    assert_eq!(
        (&answer["clicks"], &answer["edges"]),
        (&json!(2), &json!(["whole"])),
        "the duplicate is none: {answer}"
    );
    let (first, second) = (&answer["shown"][0], &answer["shown"][1]);
    let hex = |text: &str| json!(text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
    for (name, expected) in [
        ("ad_id", json!("ad-ü")),
        ("campaign_id", json!("c1")),
        ("advertiser_id", json!("a1")),
        ("event_ms", json!(at_ms)),
        ("key", json!(uuid.replace('-', ""))),
        ("key_hashed", json!(false)),
        ("device", json!(1)),
        ("class", json!(0)),
        ("user_id", hex("u-é")),
        ("request_id", hex(uuid)),
        ("click_id", hex("k1")),
        ("impression_id", hex("i1")),
        ("ip", hex("203.0.113.7")),
        ("country", hex("DE")),
        ("user_agent", hex(agent)),
        ("event_type", hex("click")),
        ("signature", hex("s1")),
    ] {
        assert_eq!(first[name], expected, "{name}: {first}");
    }
    // One of the two says where: the region that is counted, or the text that it was.
    let place = [&first["region"], &first["region_text"]];
    assert!(place.contains(&&json!("Bayern")) || place.contains(&&hex("Bayern")), "{first}");
    assert!(first["received_ms"].as_i64() >= Some(at_ms) && first["lsn"].as_u64() < second["lsn"].as_u64());
    assert_eq!((&second["key_hashed"], &second["request_id"]), (&json!(true), &hex("no uuid")), "{second}");
    assert_eq!((&second["user_agent"], &second["user_id"]), (&json!(""), &json!("")), "{second}");
}

#[test]
fn each_click_is_there_once_whatever_is_killed_when() {
    let edge = edge("killed-raw");
    let mut random = Random::new(3);
    let mut clients = [Client::new(1, Shape::Lines(30), 1), Client::new(2, Shape::Pipelined(8), 2)];
    for _ in 0..6 {
        let server = edge.start();
        let address = server.clicks;
        let meanwhile = || {
            let_pass(Duration::from_millis(200 + random.below(900)));
            server
        };
        while_sending(&mut clients, address, meanwhile, |server| server.kill());
    }
    let server = edge.start();
    clients.iter_mut().for_each(|client| client.settle(server.clicks));
    wait_for_export(&server);
    server.stop();
    assert!(check(&edge, &sums(&clients)) > 1_000);
    let all = raw(&shared::broker().direct(), &topic(&edge), "read_uncommitted", &counts_file(&edge), "");
    assert_eq!(all["undecided"], 0, "{all}");
}

/// More clicks than one transaction is to have, waiting in the log.
#[test]
fn a_backlog_leaves_in_transactions_that_end_in_time() {
    const CLICKS: u64 = 300_000;
    let mut edge = edge("backlog");
    let brokers = std::mem::replace(&mut edge.brokers, "127.0.0.1:9".to_owned());
    let mut clients = [Client::of_fresh_ids(1, 2_000, 0)];
    let mut server = edge.start();
    send(&server, &mut clients[0], (CLICKS / 2_000) as usize);
    server.kill_now();
    edge.brokers = brokers;
    let from = said(&edge.data_dir).len();
    let began = std::time::Instant::now();
    let server = edge.start();
    wait_for_export(&server);
    let took = began.elapsed();
    let transactions = server.scrape().sum("tollgate_export_transactions_total");
    let peak = server.peak_memory_bytes();
    server.stop();
    eprintln!("{CLICKS} clicks in {transactions} transactions, {took:?}, {peak} B");
    assert!(!said(&edge.data_dir)[from..].contains("in doubt"), "{}", &said(&edge.data_dir)[from..]);
    assert!(transactions > CLICKS >> 16, "{transactions} transactions");
    assert_eq!(check(&edge, &sums(&clients)), CLICKS);
}

/// Who asks for no raw clicks pays for none.
#[test]
fn without_the_flag_nothing_is_sent() {
    let mut edge = edge("no-raw");
    edge.flags.clear();
    let mut clients = [client(1)];
    edge.exports(&mut clients[0], 5);
    edge.check(&sums(&clients));
    assert_eq!(committed(&edge, "")["clicks"], 0);
}
