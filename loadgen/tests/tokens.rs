//! `tollgate-loadgen` against a real edge whose query port wants a token: out of a file or the environment it is sent, and what is
//! wrong with it is said before a click is sent.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tollgate_loadgen::prove::process::Process;

const CLICKS: &str = "300";

/// An edge with tokens, each in a file of its name; all of it is gone with the test.
struct Edge {
    folder: tempfile::TempDir,
    process: Process,
}

/// What `examples/edge.rs` is; `cargo test` builds it unless it is told to build one test alone.
fn edge() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_tollgate-loadgen")).with_file_name("examples").join("edge");
    assert!(path.is_file(), "build it with `cargo build -p tollgate-loadgen --example edge`");
    path
}

impl Edge {
    fn start() -> Edge {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for (name, flags) in
            [("all", &["--all"][..]), ("slow", &["--all", "--rate", "50/s"]), ("scoped", &["--campaign", "campaign_1"])]
        {
            let mut command = Command::new(edge());
            command.args(["token", "create", "--new", "--data-dir"]).arg(folder.path().join("data")).args(flags);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", said(&output));
            std::fs::write(folder.path().join(name), output.stdout).unwrap();
        }
        let mut command = Command::new(edge());
        command.arg("serve").arg("--data-dir").arg(folder.path().join("data"));
        for flag in ["--listen", "--query-listen", "--admin-listen"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        command.args(["--dedup-memory-bytes", "64MiB", "--segment-bytes", "4MiB", "--export-interval", "100ms"]);
        let process = Process::start(command, &folder.path().join("log")).unwrap();
        Edge { folder, process }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn token(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap().trim().to_owned()
    }

    fn loadgen(&self, flags: &[&str], variable: Option<&str>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-loadgen"));
        command.args(flags).env_remove("TOLLGATE_TOKEN").envs(variable.map(|token| ("TOLLGATE_TOKEN", token)));
        let output = command.output().unwrap();
        for secret in ["all", "slow", "scoped"].map(|name| self.token(name)) {
            assert!(!said(&output).contains(&secret), "a token is shown: {}", said(&output));
        }
        output
    }

    fn run(&self, flags: &[&str], variable: Option<&str>) -> Output {
        let clicks = self.process.address::<SocketAddr>("listen").unwrap().to_string();
        let verify =
            ["--verify", &self.query(), "--ads", "30", "--clicks", CLICKS, "--batch", "10", "--connections", "2"];
        self.loadgen(&[&["run", "--target", &clicks], &verify[..], flags].concat(), variable)
    }

    fn prove(&self, flags: &[&str]) -> Output {
        let clicks = self.process.address::<SocketAddr>("listen").unwrap().to_string();
        let (query, seconds) =
            (self.query(), ["--no-null", "--rounds", "1", "--seconds", "0.3", "--ads", "20", "--shape", "one"]);
        self.loadgen(&[&["prove", "--target", &clicks, "--query", &query], &seconds[..], flags].concat(), None)
    }

    fn query(&self) -> String {
        format!("http://{}", self.process.address::<SocketAddr>("query").unwrap())
    }

    /// Clicks that the edge was ever sent.
    fn received(&self) -> u64 {
        let admin: SocketAddr = self.process.address("admin").unwrap();
        let mut stream = TcpStream::connect(admin).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let samples = text.lines().filter(|line| line.starts_with("tollgate_clicks_received_total"));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn ends(output: &Output, code: i32, says: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(says.iter().all(|words| text.contains(words)), "{says:?} not all in: {text}");
}

#[test]
fn a_run_is_verified_with_the_token_of_a_file_or_of_the_environment() {
    let edge = Edge::start();
    let verified = format!("verified: {CLICKS} clicks");
    ends(&edge.run(&["--token-file", &edge.file("all")], None), 0, &[&verified]);
    ends(&edge.run(&[], Some(&edge.token("all"))), 0, &[&verified]);
    // The flag is what is meant where both are there. More ads at a look than this token may ask for in a second: it is waited for.
    ends(&edge.run(&["--token-file", &edge.file("slow"), "--ads", "120"], Some("tgt_wrong")), 0, &[&verified]);
}

#[test]
fn what_is_wrong_with_a_token_is_said_before_a_click_is_sent() {
    let edge = Edge::start();
    let flag = ["--token-file", "TOLLGATE_TOKEN"];
    ends(&edge.run(&[], None), 64, &[&["answered 401 without a token", &edge.query()], &flag[..]].concat());
    ends(
        &edge.run(&[], Some("tgt_wrong")),
        64,
        &[&["answered 401 to the token of TOLLGATE_TOKEN"], &flag[..]].concat(),
    );
    let scoped = edge.file("scoped");
    let of_some = format!("the token of --token-file {scoped} sees some campaigns");
    ends(&edge.run(&["--token-file", &scoped], None), 64, &[&[of_some.as_str()], &flag[..]].concat());
    ends(&edge.run(&["--token-file", &edge.file("none")], None), 64, &["--token-file", "none: No such file"]);
    let log = edge.file("log");
    std::fs::write(edge.file("words"), "two words").unwrap();
    ends(&edge.run(&["--token-file", &edge.file("words")], None), 64, &["holds 2 words", "tgt_"]);
    ends(&edge.loadgen(&["run", "--token-file", &log], None), 64, &["--verify"]);
    ends(&edge.prove(&[]), 64, &[&["answered 401 without a token"], &flag[..]].concat());
    let slow = ["--freshness", "--token-file", &edge.file("slow")];
    ends(&edge.prove(&slow), 64, &["--freshness asks 100 times a second", "only 50 times", "--rate 100/s"]);
    ends(&edge.loadgen(&["prove", "--token-file", &log], None), 64, &["--target"]);
    assert_eq!(edge.received(), 0);
}

#[test]
fn hosts_that_want_a_token_are_proved() {
    let edge = Edge::start();
    let output = edge.prove(&["--freshness", "--token-file", &edge.file("all")]);
    // The schedule of the open loop may not be kept on a busy machine: then this is said, and nothing else.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", said(&output));
    assert!(said(&output).contains("verdict               pass"), "{}", said(&output));
}
