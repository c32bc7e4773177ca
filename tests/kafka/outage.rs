//! A broker that is away until the log is full: clicks are acknowledged while there is room, then shed with 503 and nothing else;
//! when it is back, the edge catches up by itself, faster than clicks come.
//!
//! `KAFKA_OUTAGE_SECONDS=600 cargo test --test kafka outage` keeps it away for longer once the log is full.

use std::time::{Duration, Instant};

use crate::broker::{Broker, Setup};
use crate::client::{Client, Shape, sums, while_sending};
use crate::edge::{Edge, wait_for_export};
use crate::server::{Server, answer};
use crate::shared;
use crate::wait::{let_pass, wait_until};

const AWAY: Duration = Duration::from_secs(3);
/// So much faster than clicks come is what was not exported caught up.
const TIMES_FASTER: f64 = 3.0;

fn away() -> Duration {
    let seconds = std::env::var("KAFKA_OUTAGE_SECONDS").ok();
    seconds.map_or(AWAY, |text| Duration::from_secs(text.parse().expect("a number of seconds")))
}

/// LSN to which everything is exported, and clicks accepted since the start.
fn progress(server: &Server) -> (u64, u64) {
    let metrics = server.scrape();
    (metrics.sum("tollgate_export_lsn"), metrics.sum("tollgate_clicks_accepted_total"))
}

#[test]
fn an_outage_that_fills_the_log_sheds_and_is_caught_up() {
    let folder = shared::folder();
    let mut broker = Broker::start(folder.path(), &Setup::default());
    let mut edge = Edge::new("outage", &broker.direct(), &broker.direct());
    let flags = [
        ["--segment-bytes", "4MiB"],
        ["--wal-bytes-max", "48MiB"],
        ["--dedup-memory-bytes", "96MiB"],
        ["--dedup-window-min", "1s"],
    ];
    edge.flags = flags.concat().into_iter().map(str::to_owned).collect();
    let mut clients: Vec<Client> = (1..=3).map(|number| Client::new(number, Shape::Lines(400), 9)).collect();
    let pause =
        |clients: &mut [Client], ms| clients.iter_mut().for_each(|client| client.pause = Duration::from_millis(ms));
    pause(&mut clients, 5);
    let server = edge.start();
    wait_until("it exports", || server.scrape().sum("tollgate_export_transactions_total") > 0);
    broker.stop();

    let fill = || {
        wait_until("the log is full", || server.scrape().sum("tollgate_clicks_shed_total") > 0);
        let (head, body) = answer(server.admin, "/readyz");
        assert!(head.starts_with("HTTP/1.1 503") && body.contains("--wal-bytes-max"), "{head} {body}");
        let_pass(AWAY);
        assert!(answer(server.admin, "/healthz").0.starts_with("HTTP/1.1 200"));
    };
    // Every answer that is neither of 202 nor of 503 ends a client with a panic.
    while_sending(&mut clients, server.clicks, fill, |()| ());
    if let Some(longer) = away().checked_sub(AWAY).filter(|longer| !longer.is_zero()) {
        // As clients that wait a second before they try again. What they are refused for so long is older in the end than any id
        // that the log has room to remember.
        pause(&mut clients, 1_000);
        while_sending(&mut clients, server.clicks, || let_pass(longer), |()| ());
        clients.iter_mut().for_each(|client| (client.late, client.repeats) = (true, false));
        assert!(answer(server.admin, "/readyz").0.starts_with("HTTP/1.1 503"), "there is no room yet");
    }
    let (stood, _) = progress(&server);
    let behind = server.scrape().sum("tollgate_log_end_lsn") - stood;
    assert!(behind > 200_000, "{behind} clicks: too few to catch up");

    pause(&mut clients, 60);
    broker.restart();
    let mut rates = (0.0, 0.0);
    let catch_up = || {
        let (began, (_, accepted)) = (Instant::now(), progress(&server));
        wait_until("clicks are taken again", || answer(server.admin, "/readyz").0.starts_with("HTTP/1.1 200"));
        wait_until("what was not exported is caught up", || {
            let metrics = server.scrape();
            metrics.sum("tollgate_log_end_lsn") - metrics.sum("tollgate_export_lsn") < 20_000
        });
        let_pass(Duration::from_secs(1));
        let (seconds, (exported, now_accepted)) = (began.elapsed().as_secs_f64(), progress(&server));
        rates = ((exported - stood) as f64 / seconds, (now_accepted - accepted) as f64 / seconds);
    };
    while_sending(&mut clients, server.clicks, catch_up, |()| ());
    let (out, taken_in) = rates;
    println!("{behind} clicks behind; caught up at {out:.0}/s while {taken_in:.0}/s came in");
    assert!(out >= TIMES_FASTER * taken_in && taken_in > 1_000.0, "{out:.0}/s out, {taken_in:.0}/s in");
    clients.iter_mut().for_each(|client| client.settle(server.clicks));
    wait_for_export(&server);
    server.stop();
    let of = |count: fn(&Client) -> u64| clients.iter().map(count).sum::<u64>();
    let (shed, forgotten) = (of(|client| client.shed), of(|client| client.forgotten));
    println!("{shed} clicks shed, {forgotten} of them too old in the end");
    assert!(shed > 0, "nothing was shed");
    edge.check(&sums(&clients));
}
