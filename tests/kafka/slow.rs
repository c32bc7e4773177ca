//! A slow line to the brokers: what does not get through in a transaction's time is sent in smaller ones until it does.

use std::fmt::Write as _;
use std::time::Duration;

use crate::client::{Connection, request, verdicts};
use crate::edge::{Edge, wait_for_export};
use crate::rules::{Action, Api, Rule, When};
use crate::sending::set;
use crate::server::{Server, now_ms};
use crate::shared;
use crate::wait::wait_until;

const ADS: u64 = 20;
/// Of each ad: enough for a sketch at its full size.
const USERS: u64 = 500;
const BYTES_PER_SECOND: u64 = 5_000;
/// Of a transaction, in `config.rs`.
const TIME_OUT: Duration = Duration::from_secs(15);

/// Every user clicks on every ad, in one pane.
fn send(server: &Server) {
    let mut connection = Connection::open(server.clicks).expect("it listens");
    let at_ms = now_ms() / 10_000 * 10_000;
    for users in (0..USERS).collect::<Vec<_>>().chunks(50) {
        let mut lines = String::new();
        for (user, ad) in users.iter().flat_map(|user| (0..ADS).map(move |ad| (user, ad))) {
            let id = format!("\"request_id\":\"{ad}-{user}\",\"user_id\":\"u{user}\"");
            writeln!(lines, "{{\"ad_id\":\"ad_{ad}\",\"timestamp\":{at_ms},{id}}}").expect("a string takes it");
        }
        connection.send(request("application/x-ndjson", &lines).as_bytes()).expect("it reads");
        let reply = connection.reply().expect("it answers").expect("it answers");
        assert_eq!(verdicts(&reply.body), (50 * ADS, 0, 0), "{}", reply.head);
    }
}

#[test]
fn full_sketches_over_a_slow_line_are_split_until_they_get_through() {
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let mut edge = Edge::new("slow", &broker.direct(), &proxy.address().to_string());
    set(&mut edge, &["compression.type=none"]);
    proxy.pause();
    let server = edge.start();
    send(&server);
    server.kill();

    // The recovered log is one range: one transaction of twenty sketches of 4 KB.
    let action = Action::Throttle { bytes_per_second: BYTES_PER_SECOND };
    let applied = proxy.add(Rule { api: Api::PRODUCE, when: When::Each, action });
    proxy.resume();
    let server = edge.start();
    wait_until("the first is given up", || server.scrape().sum("tollgate_export_doubts_total") > 0);
    wait_until("smaller ones get through", || server.scrape().sum("tollgate_export_transactions_total") > 1);
    wait_for_export(&server);
    let doubts = server.scrape().sum("tollgate_export_doubts_total");
    assert!(doubts <= 2 && applied.times() > 2, "{doubts} doubts, {} slow requests", applied.times());
    proxy.clear();
    server.stop();
    let (sum, counts) = edge.counts();
    assert_eq!((sum.clicks(), counts.len() as u64), (ADS * USERS, ADS));
    assert!(counts.values().all(|clicks| *clicks == USERS), "{counts:?}");
    let wanted = ADS * 4_000 / BYTES_PER_SECOND;
    assert!(wanted > TIME_OUT.as_secs(), "all in one would have got through in {wanted} s");
}
