//! The disk breaks its word while Kafka is away, and what it holds is needed again: it is not exported, and the process says so.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::broker::{Broker, Setup};
use crate::client::sums;
use crate::edge::{Edge, wait_for_export};
use crate::sending::{client, send};
use crate::shared;
use crate::wait::PATIENCE;

/// Flips a bit in the name of the last click's ad.
fn flip_a_bit(data_dir: &Path) -> (PathBuf, u64) {
    let log = std::fs::read_dir(data_dir.join("logs")).expect("a folder of logs").next().expect("one").expect("one");
    let segments = std::fs::read_dir(log.path()).expect("its segments").map(|entry| entry.expect("one").path());
    let last_ad = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("a segment");
        let at = bytes.windows(3).rposition(|three| three == b"ad_")?;
        Some((path, at as u64))
    };
    let (segment, at) = segments.filter_map(last_ad).max().expect("clicks lie there");
    flip(&segment, at);
    (segment, at)
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is that long");
    file.write_all_at(&[byte[0] ^ 4], at).expect("written");
}

#[test]
fn a_frame_that_goes_bad_while_kafka_is_away_ends_the_edge_and_is_not_exported() {
    let folder = shared::folder();
    let mut broker = Broker::start(folder.path(), &Setup::default());
    let edge = Edge::new("bad-frame", &broker.direct(), &broker.direct());
    let mut clients = [client(1)];
    let server = edge.start();
    send(&server, &mut clients[0], 10);
    wait_for_export(&server);
    broker.stop();
    send(&server, &mut clients[0], 10);
    // What it counted is gone with it, and is to be built from the log.
    server.kill();
    let server = edge.start();
    let (segment, at) = flip_a_bit(&edge.data_dir);
    broker.restart();
    let ended = server.ended_within(PATIENCE);
    assert_eq!(ended.code, Some(71), "{}", ended.errors);
    let (sum, counts) = edge.counts();
    let ads = sums(&clients);
    let sent: u64 = ads.values().map(|ad| ad.acknowledged).sum();
    assert!(sum.clicks() < sent, "{} of {sent} clicks are exported", sum.clicks());
    let wrong: Vec<_> =
        counts.iter().filter(|(ad, clicks)| ads.get(*ad).is_none_or(|of| **clicks > of.acknowledged)).collect();
    assert!(wrong.is_empty(), "{wrong:?} are exported, and {ads:?} were sent");
    edge.halts(71, &[]);

    // As it was: what was not exported is, once.
    flip(&segment, at);
    let server = edge.start();
    wait_for_export(&server);
    server.stop();
    edge.check(&ads);
}
