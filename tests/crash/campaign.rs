//! A hundred rounds of kill under load at seeded moments, every second one killed again while it recovers.
//!
//! `CRASH_ROUNDS=1000 cargo test --test crash campaign` runs as many as one likes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::{Client, PerAd, Random, Shape, sums, while_sending};
use crate::document::timed_document;
use crate::server::{Server, audited, wait_until};

const ROUNDS: u64 = 100;
/// Starts that a round may take to be killed while it recovers: one that was ready first does not count.
const TRIES: u32 = 20;
const SEED: u64 = 20_261_122;

fn flags(cores: &str) -> [&str; 4] {
    ["--export-interval", "100ms", "--cores", cores]
}

fn clients(seed: u64) -> Vec<Client> {
    let shapes =
        [Shape::Single, Shape::Single, Shape::Pipelined(4), Shape::Pipelined(16), Shape::Lines(10), Shape::Lines(30)];
    (1..).zip(shapes).map(|(number, shape)| Client::new(number, shape, seed)).collect()
}

/// Lets the clients send for a time, looking at the ledger meanwhile; `end` ends the server.
pub fn load(server: Server, clients: &mut [Client], time: Duration, end: impl FnOnce(Server)) {
    let address = server.clicks;
    let scrape = || {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            server.scrape();
            std::thread::park_timeout(left.min(Duration::from_millis(40)));
        }
        server
    };
    while_sending(clients, address, scrape, end);
}

/// What was acknowledged is counted once; what never was, at most once.
pub fn check_counts(server: &Server, ads: &BTreeMap<String, PerAd>) -> u64 {
    let mut counted = 0;
    for (ad, PerAd { acknowledged, unknown }) in ads {
        let gross = server.gross(Some(ad));
        assert!((*acknowledged..=acknowledged + unknown).contains(&gross), "{ad}: {gross}, {acknowledged} + {unknown}");
        counted += gross;
    }
    assert_eq!(server.gross(None), counted, "the totals are the sum of the ads");
    counted
}

/// Waits until everything durable is exported.
pub fn wait_for_export(server: &Server) {
    wait_until("everything durable is exported", || {
        let metrics = server.scrape();
        metrics.sum("tollgate_log_end_lsn") == metrics.sum("tollgate_export_lsn")
    });
}

/// Starts servers until one was killed between the first read of its log and its being ready. `window` is how long after the first read a kill
/// may come; it follows the time that recovery takes.
fn kill_recovering(data_dir: &Path, flags: &[&str], window: &mut Duration, random: &mut Random) {
    for _ in 0..TRIES {
        let mut server = Server::spawn(data_dir, flags);
        server.wait_for_recovery();
        std::thread::park_timeout(Duration::from_micros(random.below(1 + window.as_micros() as u64)));
        if server.kill_unready() {
            *window += *window / 4 + Duration::from_micros(100);
            return;
        }
        *window /= 2;
    }
    panic!("{TRIES} servers were ready before they could be killed");
}

#[test]
fn a_hundred_kills_lose_and_double_nothing() {
    kills(&["1"]);
}

/// The cores of each start are drawn anew: logs become idle, and are gone on with; every id finds another home.
#[test]
fn a_hundred_kills_while_the_cores_change_lose_and_double_nothing() {
    kills(&["1", "2"]);
}

fn kills(cores: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let mut random = Random::new(SEED);
    let mut clients = clients(SEED);
    let rounds = std::env::var("CRASH_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number of rounds"));
    let (mut killed_recovering, mut window, began) = (0_u64, Duration::from_millis(5), Instant::now());
    for round in 0..rounds {
        let flags = flags(cores[random.below(cores.len() as u64) as usize]);
        if round % 2 == 1 {
            kill_recovering(&data_dir, &flags, &mut window, &mut random);
            killed_recovering += 1;
        }
        let server = Server::start(&data_dir, &flags);
        load(server, &mut clients, Duration::from_millis(20 + random.below(280)), Server::kill);
    }
    let server = Server::start(&data_dir, &flags(cores[cores.len() - 1]));
    clients.iter_mut().for_each(|client| client.settle(server.clicks));
    wait_for_export(&server);
    let ads = sums(&clients);
    let counted = check_counts(&server, &ads);
    server.stop();
    audited(&data_dir);
    let server = Server::start(&data_dir, &flags(cores[0]));
    assert_eq!(check_counts(&server, &ads), counted, "a clean restart changes nothing");

    let of = |what: fn(&Client) -> u64| clients.iter().map(what).sum::<u64>();
    let (duplicates, retried, shed) =
        (of(|client| client.duplicates), of(|client| client.retried), of(|client| client.shed));
    let counts = format!(
        "\"kills\":{rounds},\"killed_recovering\":{killed_recovering},\"clicks\":{counted},\"duplicates\":{duplicates},\"retried\":{retried},\"shed\":{shed}"
    );
    assert!(
        counted > 100 * rounds && duplicates > 5 * rounds && retried > rounds,
        "too little load to prove anything: {counts}"
    );
    println!("{}", timed_document(&format!("kills, {} cores", cores.join(" or ")), &counts, began));
}
