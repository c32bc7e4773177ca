//! What a reader measures itself by, as OPERATING.md says: the watermark of the newest end record goes on while no click comes.

use crate::client::sums;
use crate::edge::{Edge, wait_for_export};
use crate::sending::{client, send};
use crate::server::now_ms;
use crate::shared;
use crate::wait::{let_pass, wait_until};

use std::time::Duration;

#[test]
fn an_idle_edge_tells_readers_the_time_and_one_whose_kafka_is_away_does_not() {
    const MS_LATER: i64 = 5_000;
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let mut edge = Edge::new("idle", &broker.direct(), &proxy.address().to_string());
    edge.flags.extend(["--watermark-delay".to_owned(), "500ms".to_owned()]);
    let watermark_ms = || edge.topics.committed().edge(&edge.id)["watermark_ms"].as_i64().unwrap_or(0);
    let mut clients = [client(1)];
    let server = edge.start();
    send(&server, &mut clients[0], 5);
    wait_for_export(&server);
    // No click has a time that late.
    let sent_ms = now_ms();
    wait_until("the watermark goes on", || watermark_ms() > sent_ms + MS_LATER);
    let behind_ms = now_ms() - watermark_ms();
    assert!((500..15_000).contains(&behind_ms), "{behind_ms} ms behind: the delay, 3 s, and some");

    proxy.pause();
    let_pass(Duration::from_millis(MS_LATER as u64));
    wait_until("the edge knows", || server.scrape().sum("tollgate_export_commit_age_seconds") >= 4);
    assert!(now_ms() - watermark_ms() > MS_LATER - 1_000, "both are high: it is the edge");
    proxy.resume();
    wait_for_export(&server);
    server.stop();
    assert_eq!(edge.check(&sums(&clients)).edge(&edge.id)["stopped"], true);
}
