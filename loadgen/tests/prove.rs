//! `tollgate-loadgen prove`: a real edge is proved, also through kills; servers that do not keep the promise are found out.
#![allow(clippy::unwrap_used)]

// The other tests use the manners that these do not.
#[allow(dead_code)]
mod server;

use serde_json::Value;
use server::{Manner, Server, start};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory of its own, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The edge that `examples/edge.rs` is; `cargo test` builds it unless it is told to build one test alone.
fn edge() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_tollgate-loadgen")).with_file_name("examples").join("edge");
    assert!(path.is_file(), "build it with `cargo build -p tollgate-loadgen --example edge`");
    path
}

fn prove(flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-loadgen"));
    command.args(["prove", "--no-null", "--ads", "20", "--verify-timeout", "30s"]).args(flags);
    if !flags.contains(&"--rounds") {
        command.args(["--rounds", "1"]);
    }
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// With what a small edge has: its table of ids, two segments.
fn prove_edge(folder: &Folder, flags: &[&str]) -> Output {
    let (tollgate, scratch) = (edge(), folder.0.clone());
    let small = ["--dedup-memory-bytes=256MiB", "--segment-bytes=16MiB", "--wal-bytes-max=2GiB"];
    let small: Vec<String> = small.iter().map(|flag| format!("--tollgate-flag={flag}")).collect();
    let mut all = vec!["--tollgate", tollgate.to_str().unwrap(), "--scratch", scratch.to_str().unwrap()];
    all.extend(["--server-cpus", "0", "--client-cpus", "0"]);
    all.extend(small.iter().map(String::as_str));
    prove(&[&all, flags].concat())
}

#[test]
fn an_edge_is_proved_through_kills_and_the_report_tells_of_it() {
    let folder = Folder::new("prove");
    let (json, html) = (folder.0.join("proof.json"), folder.0.join("proof.html"));
    let files = ["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let how = ["--seconds", "1.5", "--freshness", "--kill-every", "500ms", "--shape", "ndjson", "--shape", "one"];
    let output = prove_edge(&folder, &[&how[..], &files].concat());
    let said = text(&output);
    // The schedule of the open loop may not be kept on a busy machine: then this is said, and nothing else.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    assert!(said.contains("clicks/s acknowledged after sync") && said.starts_with("one core: "), "{said}");
    assert!(said.contains("every ad's count verified; one-click requests: "), "{said}");

    let proof: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(proof["verdict"], "pass", "{said}");
    assert!(proof["kills"].as_array().unwrap().len() >= 2, "two shapes through kills: {said}");
    assert!(proof["retries"].as_u64().unwrap() > 0 && proof["repeats"].as_u64().unwrap() > 0, "{said}");
    assert!(proof["duplicates"].as_u64() >= proof["repeats"].as_u64().map(|_| 1), "{said}");
    assert!(proof["freshness"]["clicks"].as_u64().unwrap() >= 3 && proof["freshness"]["unseen"] == 0, "{said}");
    // A cut is made each second at most: what shows at once was not measured.
    let freshness_ms = proof["freshness"]["ms"]["max"].as_f64().unwrap();
    assert!((100.0..60_000.0).contains(&freshness_ms), "{said}");
    let remembered_s = proof["remembered_s"].as_f64().unwrap();
    assert!((0.5..30.0).contains(&remembered_s), "{said}");
    for shape in proof["shapes"].as_array().unwrap() {
        assert!(shape["clicks_per_s"].as_f64().unwrap() > 100.0, "{shape}");
        assert!(shape["cost"]["server_ns_per_click"].as_f64().unwrap() > 50.0, "{shape}");
        assert!(shape["open_loop"]["latency_ms"]["p99"].as_f64().unwrap() > 0.01, "{shape}");
    }
    let phases: std::collections::BTreeSet<&str> =
        proof["timeline"].as_array().unwrap().iter().map(|sample| sample["phase"].as_str().unwrap()).collect();
    assert_eq!(phases.len(), 7, "top rate, open loop and kills of two shapes, freshness of one: {phases:?}");

    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("<polyline") && page.contains("every ad&#39;s") | page.contains("every ad's"), "{page}");
    for outside in ["http:", "https:", "<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "the page reaches out: {outside}");
    }
    let left: Vec<_> = std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the data directory goes with its edge: {left:?}");
}

/// Against servers that are there already.
fn prove_there(servers: &[Server], flags: &[&str]) -> Output {
    let mut all = Vec::new();
    for server in servers {
        all.extend(["--target".to_owned(), server.clicks.to_string()]);
        all.extend(["--query".to_owned(), format!("http://{}", server.query)]);
    }
    let mut given: Vec<&str> = all.iter().map(String::as_str).collect();
    given.extend(["--shape", "ndjson", "--shape", "one", "--seconds", "0.3", "--duplicates", "0.5", "--drain", "1s"]);
    prove(&[&given, flags].concat())
}

#[test]
fn hosts_that_are_there_are_proved_together() {
    let output = prove_there(&[start(Manner::Honest), start(Manner::Honest)], &["--freshness"]);
    let said = text(&output);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    assert!(said.starts_with("two hosts: ") && said.contains("verdict               pass"), "{said}");
}

#[test]
fn a_rate_that_is_asked_for_is_fed_and_nothing_else() {
    let folder = Folder::new("rate");
    let json = folder.0.join("proof.json");
    let flags = ["--rate", "3000", "--rounds", "0", "--freshness", "--json", json.to_str().unwrap()];
    let output = prove_there(&[start(Manner::Honest)], &flags);
    let said = text(&output);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    let proof: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    for shape in proof["shapes"].as_array().unwrap() {
        let paced = shape["open_loop"]["clicks_per_s"].as_f64().unwrap();
        // Half of it is sent twice, and 0.3 s are short.
        assert!((500.0..9_000.0).contains(&paced) && shape["rounds_clicks_per_s"] == Value::Array(vec![]), "{shape}");
    }
    let timeline = proof["timeline"].as_array().unwrap();
    assert!(timeline.iter().all(|sample| !sample["phase"].as_str().unwrap().ends_with("top rate")), "{said}");
    assert!(
        !said.starts_with("one host: 0 clicks/s") && said.contains("clicks/s, as they were fed, acknowledged"),
        "{said}"
    );

    let refused = prove_there(&[start(Manner::Honest)], &["--rounds", "0"]);
    assert!(
        refused.status.code() == Some(64) && text(&refused).contains("none only with --rate"),
        "{}",
        text(&refused)
    );
}

#[test]
fn servers_that_lose_double_or_leave_clicks_are_no_proof() {
    let cases = [
        (Manner::LosesAClick, "1 LOST"),
        (Manner::CountsDuplicates, "COUNTED TWICE"),
        (Manner::LiesAboutDuplicates, "wrong replies"),
        (Manner::CountsAgainLater, "COUNTED TWICE"),
        (Manner::Overloaded, "without an answer"),
    ];
    for (manner, says) in cases {
        let output = prove_there(&[start(manner)], &["--verify-timeout", "1s"]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{manner:?}\n{said}");
        assert!(
            said.contains(says) && said.contains("NOT PROVED") && said.contains("verdict               fail"),
            "{said}"
        );
    }
}

#[test]
fn a_proof_through_kills_without_a_kill_is_none() {
    let folder = Folder::new("unkilled");
    let output = prove_edge(&folder, &["--seconds", "0.2", "--kill-every", "1m", "--shape", "one"]);
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains("nothing was killed"), "{said}");
    let kept = std::fs::read_dir(&folder.0).unwrap().count();
    assert_eq!(kept, 1, "the data directory of a failed proof stays to be looked at: {said}");
}

#[test]
fn what_cannot_be_started_or_makes_no_sense_is_said() {
    let folder = Folder::new("usage");
    let output = prove_edge(&folder, &["--tollgate-flag=--nonsense"]);
    assert!(output.status.code() == Some(69) && text(&output).contains("did not get ready"), "{}", text(&output));
    for (flags, says) in [
        (&["--target", "127.0.0.1:1"][..], "--query"),
        (&["--target", "127.0.0.1:1", "--query", "x", "--kill-every", "1s"], "--kill-every"),
        (&["--rounds", "0", "--tollgate", "/bin/true"], "--rounds 0"),
        (&["--shape", "round"], "ndjson, pipelined, one"),
    ] {
        let output = prove(flags);
        assert!(output.status.code() == Some(64) && text(&output).contains(says), "{flags:?}: {}", text(&output));
    }
}
