//! What an operator does at night: looks at an edge on one screen, and takes a host out with nothing left in its log.

use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Client, Connection, Shape, send_one_by_one, while_sending};
use crate::server::{EXPORTS, PATIENCE, Server, answer, audited, status, status_json, tollgate, wait_until};

/// So rare that a kill leaves clicks behind.
const RARE: [&str; 2] = ["--export-interval", "1m"];

#[test]
fn a_healthy_edge_under_load_is_shown_and_needs_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(&folder.path().join("data"), &EXPORTS);
    let mut clients = [Client::new(1, Shape::Lines(50), 1)];
    let address = server.clicks;
    let looks = || {
        wait_until("clicks are taken", || server.scrape().sum("tollgate_clicks_accepted_total") > 100);
        (status_json(server.admin), status(server.admin, &[]))
    };
    let mut looked = None;
    while_sending(&mut clients, address, looks, |seen| looked = Some(seen));
    let ((code, json), (text_code, text)) = looked.expect("it was looked at");
    assert_eq!((code, text_code), (Some(0), Some(0)), "{json} {text}");
    assert_eq!((&json["state"], &json["export"]["sink"]), (&"ready".into(), &"embedded".into()), "{json}");
    assert_eq!((&json["version"], &json["needs"]), (&env!("CARGO_PKG_VERSION").into(), &serde_json::json!([])));
    assert_eq!((&json["log"]["hours_to_full"], &json["export"]["answers"]), (&serde_json::Value::Null, &true.into()));
    let positive = [
        ("clicks", "accepted_per_second"),
        ("log", "room_bytes"),
        ("log", "hours_to_full_without_export"),
        ("ids", "window_seconds"),
        ("ids", "watermark_age_seconds"),
        ("ids", "keys"),
    ];
    for (part, name) in positive {
        assert!(json[part][name].as_f64().is_some_and(|value| value > 0.0), "{part}.{name}: {json}");
    }
    let up = json["uptime_seconds"].as_f64();
    assert!(up.is_some_and(|seconds| (0.5..300.0).contains(&seconds)), "{json}");
    for part in [": ready, version", "accepted", "at present not filling", "embedded answers", "needs    nothing"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    server.stop();
}

#[test]
fn an_edge_that_sheds_needs_somebody_and_one_that_is_gone_is_not_reached() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let server = Server::start(&data_dir, &["--wal-bytes-max", "16MiB"]);
    std::fs::write(data_dir.join("logs/ballast"), vec![1; 14 << 20]).expect("written");
    wait_until("clicks are shed", || answer(server.admin, "/readyz").0.starts_with("HTTP/1.1 503"));
    let (code, json) = status_json(server.admin);
    assert_eq!((code, &json["state"]), (Some(1), &"shedding".into()), "{json}");
    assert!(json["needs"][0].as_str().is_some_and(|need| need.contains("--wal-bytes-max")), "{json}");
    assert_eq!((&json["log"]["full"], &json["log"]["hours_to_full"]), (&true.into(), &0.0.into()), "{json}");
    let (_, text) = status(server.admin, &[]);
    assert!(text.contains("NEEDS    shedding") && text.contains("FULL: clicks are shed"), "{text}");
    assert!(!text.contains("not filling"), "{text}");
    // What it says to do: free space.
    std::fs::remove_file(data_dir.join("logs/ballast")).expect("removed");
    wait_until("clicks are taken", || answer(server.admin, "/readyz").0.starts_with("HTTP/1.1 200"));
    send_one_by_one(server.clicks, 0, 5);
    server.wait_for_gross(5);
    let (admin, clicks) = (server.admin, server.clicks);
    assert_eq!(status(clicks, &[]).0, Some(69), "the port for clicks is no admin port");
    server.stop();
    audited(&data_dir);
    let (code, text) = status(admin, &[]);
    assert_eq!((code, text.lines().count()), (Some(69), 1), "{text}");
    assert!(text.contains(&admin.to_string()) && text.contains("--admin"), "{text}");
}

#[test]
fn what_a_killed_edge_left_is_exported_without_taking_a_click_and_then_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let server = Server::start(&data_dir, &RARE);
    let (was, listen) = (server.clicks, server.clicks.to_string());
    send_one_by_one(server.clicks, 0, 50);
    server.kill();
    let flags = [&RARE[..], &["--until-exported", "--listen", &listen]].concat();
    let ended = Server::spawn(&data_dir, &flags).ended_within(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert!(ended.errors.contains("no clicks are taken") && ended.errors.contains("everything is exported"));
    let (code, text) = tollgate(&data_dir, &["audit"]);
    assert!(code == Some(0) && text.contains("behind the checkpoint 0"), "{text}");
    assert!(Connection::open(was).is_err(), "nobody listens for clicks");
    let (code, text) = tollgate(&data_dir, &["wal", "inspect"]);
    assert!(
        code == Some(0) && text.contains("stopped cleanly, exported up to LSN") && text.contains(", 0 records behind"),
        "{text}"
    );
    // Nothing is left: it ends at once; and a start goes on as ever.
    assert_eq!(Server::spawn(&data_dir, &flags).ended_within(PATIENCE).code, Some(0));
    let server = Server::start(&data_dir, &EXPORTS);
    server.wait_for_gross(50);
    server.signal(Signal::TERM);
    assert_eq!(server.ended_within(PATIENCE).code, Some(0));
    audited(&data_dir);
}

/// A sink that was never heard of is not said to answer, and a log that was not exported not to have stopped well, or to be the same.
#[test]
fn what_was_never_exported_is_said_to_be_so_by_status_inspect_and_audit() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    // Nobody listens there.
    let kafka = ["--sink", "kafka", "--kafka-brokers", "127.0.0.1:9", "--edge-id", "e1"];
    let server = Server::start(&data_dir, &kafka);
    send_one_by_one(server.clicks, 0, 7);
    let (_, text) = status(server.admin, &[]);
    assert!(text.contains("kafka HAS NOT ANSWERED since the start") && !text.contains("kafka answers"), "{text}");
    let (_, json) = status_json(server.admin);
    let export = &json["export"];
    assert_eq!((&export["answers"], &export["never_answered"]), (&false.into(), &true.into()), "{json}");
    let (code, text) = tollgate(&data_dir, &["wal", "inspect"]);
    assert!(code == Some(0) && text.contains("is not known: ") && text.contains("in use by another process"), "{text}");
    assert!(!text.contains("stopped cleanly"), "{text}");
    server.signal(Signal::TERM);
    let ended = server.ended_within(Duration::from_secs(40));
    assert_eq!(ended.code, Some(76), "{}", ended.errors);
    let (code, text) = tollgate(&data_dir, &["wal", "inspect"]);
    assert!(code == Some(0) && text.contains("stopped before all was exported, exported up to LSN 0"), "{text}");
    let today = text.split("newest frame ").nth(1).and_then(|rest| rest.split('\n').next()).expect("a time");
    assert!(today.len() == 24 && today.starts_with("20") && today.ends_with('Z'), "{today}");
    let (code, text) = tollgate(&data_dir, &["audit"]);
    assert!(
        code == Some(0) && text.contains("nothing was compared: 7 clicks of the log are not known to be exported"),
        "{text}"
    );
    assert!(!text.contains("the same"), "{text}");
}
