//! The dashboard in a real Chromium, driven from Node by puppeteer-core. Each test serves something and runs one scenario against it; the
//! scenario asks for what is to happen meanwhile. `scripts/dashboard-driver` installs the driver, and says what is missing.
//!
//! With TOLLGATE_SCREENSHOTS=DIR the demo's pictures are written there, after TOLLGATE_SCREENSHOTS_AFTER_S (240) of it.

// The child process of the crash tests, and the transactions of the global tier's: this uses some of what they can.
#[allow(dead_code)]
#[path = "../crash/client.rs"]
mod client;
mod edges;
#[allow(dead_code)]
#[path = "../../global/src/fixture.rs"]
mod fixture;
#[allow(dead_code)]
#[path = "../crash/server.rs"]
mod server;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::edges::Edges;
use crate::server::{EXPORTS, Server, binary};

/// Longer than a scenario's deadlines on a slow machine; one that hangs ends then.
const LIMIT_S: u64 = 150;

const DEMO: [&str; 5] = ["--demo", "--segment-bytes", "4MiB", "--dedup-memory-bytes", "64MiB"];

/// Dropped, it is killed.
struct Scenario(Child);

impl Drop for Scenario {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the driver is installed.
fn driver() -> String {
    let output = Command::new("scripts/dashboard-driver").current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.expect("scripts/dashboard-driver can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/dashboard-driver: {said}");
    String::from_utf8(output.stdout).expect("a path").trim().to_owned()
}

/// Runs one scenario to its end; `asked` does what it asks for.
fn passes(file: &str, query: SocketAddr, variables: &[(&str, String)], limit_s: u64, mut asked: impl FnMut(&str)) {
    let mut node = Command::new("node");
    node.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard").join(file));
    node.env("DRIVER", driver()).env("LIMIT_S", limit_s.to_string());
    node.env("QUERY", format!("http://{query}")).envs(variables.iter().map(|(name, value)| (name, value)));
    let child = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node, which the driver needs too");
    let mut scenario = Scenario(child);
    let mut stdin = scenario.0.stdin.take().expect("piped");
    // The scenario ends by itself, when it hangs too: then so does this.
    for line in BufReader::new(scenario.0.stdout.take().expect("piped")).lines() {
        let line = line.expect("text");
        match line.strip_prefix("> ") {
            Some(word) => {
                asked(word);
                writeln!(stdin, "done").expect("it waits");
            }
            None => println!("{file}: {line}"),
        }
    }
    let status = scenario.0.wait().expect("our child");
    assert!(status.success(), "{file} of tests/dashboard: {status}; what it said is above");
}

#[test]
fn the_page_shows_what_the_api_says_and_what_is_sent_appears() {
    let folder = tempfile::tempdir().expect("folder");
    let data_dir = folder.path().join("data");
    let mut server = Some(Server::start(&data_dir, &EXPORTS));
    let (clicks, query) = server.as_ref().map(|server| (server.clicks, server.query)).expect("just started");
    let variables = [("CLICKS", format!("http://{clicks}"))];
    passes("numbers.mjs", query, &variables, LIMIT_S, |word| match word {
        "kill" => server.take().expect("it runs").kill(),
        "start" => {
            let query = query.to_string();
            server = Some(Server::start(&data_dir, &[&EXPORTS[..], &["--query-listen", &query]].concat()));
        }
        other => panic!("asked to {other}"),
    });
}

#[test]
fn a_dead_edge_is_said() {
    let edges = Edges::serve(&["fra-1", "ams-2"]);
    passes("edges.mjs", edges.query, &[], LIMIT_S, |word| match word.split_once(' ') {
        Some(("silence", edge_id)) => edges.tell(edge_id, false),
        Some(("wake", edge_id)) => edges.tell(edge_id, true),
        _ => panic!("asked to {word}"),
    });
}

/// Without Kafka nobody is heard; it is said so, and of no edge that it is silent.
#[test]
fn nobody_is_called_silent_while_kafka_does_not_answer() {
    let edges = Edges::serve(&["fra-1", "ams-2"]);
    passes("unheard.mjs", edges.query, &[], LIMIT_S, |word| match word.split_once(' ') {
        Some(("silence", edge_id)) => edges.tell(edge_id, false),
        Some(("wake", edge_id)) => edges.tell(edge_id, true),
        Some(("tear", edge_id)) => edges.tears(edge_id),
        None if word == "deafen" => edges.go_deaf(),
        None if word == "hear" => edges.hear_again(),
        _ => panic!("asked to {word}"),
    });
}

/// A token that `tollgate token create` makes for a data directory.
fn token(data_dir: &Path, flags: &[&str]) -> String {
    let mut command = Command::new(binary());
    let output =
        command.args(["token", "create", "--new", "--data-dir"]).arg(data_dir).args(flags).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.trim().to_owned()
}

#[test]
fn a_token_is_asked_for_and_traded_for_a_cookie() {
    let folder = tempfile::tempdir().expect("folder");
    let data_dir = folder.path().join("data");
    let server = Server::start(&data_dir, &EXPORTS);
    let tokens = [
        ("TOKEN", token(&data_dir, &["--all"])),
        ("SCOPED_TOKEN", token(&data_dir, &["--campaign", "campaign_1", "--name", "of one"])),
    ];
    client::send_one_by_one(server.clicks, 0, 10);
    let click = |n| {
        format!(
            r#"{{"ad_id":"seen_by_one","campaign_id":"campaign_1","timestamp":{},"request_id":"s{n}"}}"#,
            server::now_ms()
        )
    };
    let mut connection = client::Connection::open(server.clicks).expect("it listens");
    let lines = (0..7).map(click).collect::<Vec<_>>().join("\n");
    connection.send(client::request("application/x-ndjson", &lines).as_bytes()).expect("it reads");
    assert_eq!(connection.reply().expect("it answers").expect("it answers").status, 202);
    server::wait_until("the tokens are in force", || {
        server::answer(server.query, "/v1/edges").0.starts_with("HTTP/1.1 401")
    });
    passes("tokens.mjs", server.query, &tokens, LIMIT_S, |word| {
        assert_eq!(word, "revoke");
        let (code, text) = server::tollgate(&data_dir, &["token", "revoke", "of one"]);
        assert_eq!(code, Some(0), "{text}");
    });
}

#[test]
fn what_is_missing_is_said_and_nothing_old_looks_new() {
    let folder = tempfile::tempdir().expect("folder");
    let server = Server::start(&folder.path().join("data"), &DEMO);
    passes("gaps.mjs", server.query, &[], LIMIT_S, |word| match word {
        "hang" => server.signal(Signal::STOP),
        "go on" => server.signal(Signal::CONT),
        other => panic!("asked to {other}"),
    });
}

#[test]
fn the_demo_is_alive_at_the_first_look() {
    let folder = tempfile::tempdir().expect("folder");
    let data_dir = folder.path().join("data");
    let server = Server::start(&data_dir, &DEMO);
    let shots = std::env::var("TOLLGATE_SCREENSHOTS").unwrap_or_default();
    let after_s = std::env::var("TOLLGATE_SCREENSHOTS_AFTER_S").map_or(240, |text| text.parse().expect("seconds"));
    let limit_s = if shots.is_empty() { LIMIT_S } else { LIMIT_S + after_s };
    let variables = [("SHOTS", shots), ("SHOTS_AFTER_S", after_s.to_string())];
    passes("demo.mjs", server.query, &variables, limit_s, |word| panic!("asked to {word}"));
    let said = std::fs::read_to_string(data_dir.with_extension("stderr")).expect("standard error");
    assert!(said.contains("--demo: this edge sends itself"), "{said}");
}
