//! `tollgate-loadgen run --verify` against a server that counts exactly, and against servers that do not: the first must
//! pass, whatever it does to connections, and each of the others must be found out.
#![allow(clippy::unwrap_used)]

mod server;

use server::{Manner, start};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Runs the generator against a server of this manner, with `--verify` and these flags.
fn run(manner: Manner, flags: &[&str]) -> Output {
    let server = start(manner);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-loadgen"));
    command.arg("run").args(["--target", &server.clicks.to_string()]);
    command.args(["--verify", &format!("http://{}", server.query), "--verify-timeout", "1s"]);
    command.args(["--ads", "5", "--seed", "11", "--timeout", "300ms", "--drain", "20s"]).args(flags);
    command.output().unwrap()
}

fn check(manner: Manner, flags: &[&str], code: i32, says: &str) {
    let output = run(manner, flags);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{manner:?} {flags:?}\n{text}\n{errors}");
    assert!(text.contains(says), "{manner:?} {flags:?} should say {says:?}\n{text}\n{errors}");
}

const MIXED: [&str; 14] = [
    "--connections",
    "4",
    "--batch",
    "20",
    "--clicks",
    "6000",
    "--duplicates",
    "0.3",
    "--late",
    "0.2",
    "--invalid",
    "0.1",
    "--pipeline",
    "3",
];
const SINGLE: [&str; 8] = ["--connections", "4", "--clicks", "1500", "--duplicates", "0.2", "--invalid", "0.1"];

#[test]
fn an_exact_server_passes() {
    check(Manner::Honest, &MIXED, 0, "verified:");
    check(Manner::Honest, &SINGLE, 0, "verified:");
}

#[test]
fn an_exact_server_passes_in_an_open_loop() {
    let flags = ["--connections", "4", "--batch", "5", "--rate", "5000", "--duration", "600ms", "--pipeline", "8"];
    let output = run(Manner::Honest, &flags);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("verified: 3000 clicks"), "{text}");
    // A busy machine may have held the generator up: then the run says so, and nothing else.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{text}");
    assert_eq!(output.status.code() == Some(3), text.contains("INVALID"), "{text}");
}

#[test]
fn a_server_that_sheds_passes_because_the_same_ids_are_sent_again() {
    check(Manner::Sheds, &MIXED, 0, "verified:");
}

#[test]
fn a_server_that_only_sheds_is_not_hammered_and_the_drain_is_kept() {
    for more in [&[][..], &["--busy-poll", "--cpus", "0"], &["--rate", "2000"]] {
        let flags =
            ["--connections", "8", "--batch", "10", "--duration", "500ms", "--drain", "1s", "--clicks", "90000"];
        let began = Instant::now();
        let output = run(Manner::Overloaded, &[&flags, more].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?} {more:?}", began.elapsed());
        let unknown =
            |text: &str| -> u64 { text.split_once("once; ").unwrap().1.split(' ').next().unwrap().parse().unwrap() };
        assert_eq!(output.status.code(), Some(2), "{text}");
        // In a closed loop each connection waits with its one request until it may send it again.
        let most = if more.contains(&"--rate") { 1_000 } else { 80 };
        assert!((1..=most).contains(&unknown(&text)), "{more:?}\n{text}");
    }
}

#[test]
fn a_server_that_resets_connections_passes_because_the_same_ids_are_sent_again() {
    check(Manner::Resets, &MIXED, 0, "verified:");
    check(Manner::Resets, &SINGLE, 0, "verified:");
}

#[test]
fn a_server_that_leaves_requests_unanswered_passes() {
    check(Manner::Mute, &["--connections", "4", "--batch", "20", "--clicks", "2000"], 0, "verified:");
}

#[test]
fn clicks_of_unknown_outcome_may_be_counted_or_not_but_are_not_called_verified() {
    let flags = ["--connections", "2", "--batch", "10", "--clicks", "20", "--duration", "100ms", "--drain", "200ms"];
    check(Manner::Silent, &flags, 2, "within bounds: 0 clicks acknowledged and counted once; 20 of unknown outcome");
}

/// An open loop cannot keep its schedule then, which says nothing of the clicks.
#[test]
fn a_server_that_stops_answering_an_open_loop_leaves_clicks_unknown_whatever_was_never_sent() {
    let flags = ["--rate", "2000", "--connections", "2", "--batch", "10", "--clicks", "2000", "--duration", "300ms"];
    let output = run(Manner::Silent, &[&flags[..], &["--drain", "200ms"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(2) && text.contains("of unknown outcome"), "{text}");
    assert!(text.contains("INVALID: "), "it says both: {text}");
}

#[test]
fn a_lost_click_is_found() {
    check(Manner::LosesAClick, &MIXED, 1, "1 LOST");
}

#[test]
fn a_click_counted_for_another_ad_is_found_though_the_sum_is_right() {
    check(Manner::MixesUpAds, &MIXED, 1, "1 COUNTED TWICE");
}

#[test]
fn a_duplicate_counted_is_found() {
    check(Manner::CountsDuplicates, &MIXED, 1, "COUNTED TWICE");
}

#[test]
fn a_click_counted_again_by_the_next_export_is_found() {
    check(Manner::CountsAgainLater, &SINGLE, 1, "COUNTED TWICE");
}

#[test]
fn counts_that_no_further_export_confirms_are_not_called_verified() {
    let output = run(Manner::StandsStill, &SINGLE);
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code() == Some(69) && !text.contains("verified:"), "{text}\n{errors}");
    assert!(errors.contains("watermark"), "{errors}");
}

#[test]
fn a_duplicate_called_accepted_is_found() {
    check(Manner::LiesAboutDuplicates, &MIXED, 1, "accepted");
}

#[test]
fn a_broken_click_taken_is_found() {
    check(Manner::TakesBrokenClicks, &MIXED, 1, "DIFFERENCE");
}

#[test]
fn what_was_counted_before_the_run_is_subtracted() {
    let server = start(Manner::Honest);
    for seed in ["1", "2"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-loadgen"));
        command.arg("run").args(["--target", &server.clicks.to_string(), "--seed", seed, "--clicks", "200"]);
        command.args(["--ads", "5", "--verify", &format!("http://{}", server.query), "--verify-timeout", "1s"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn hosts_share_the_clicks_and_their_counts_are_added() {
    let servers = [start(Manner::Honest), start(Manner::Honest)];
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-loadgen"));
    command.args([
        "run",
        "--ads",
        "5",
        "--clicks",
        "4000",
        "--batch",
        "20",
        "--duplicates",
        "0.5",
        "--connections",
        "8",
    ]);
    for server in &servers {
        command.args(["--target", &server.clicks.to_string(), "--verify", &format!("http://{}", server.query)]);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("verified: 4000"), "{text}");
}

#[test]
fn a_seed_used_before_sends_ids_that_are_known() {
    let server = start(Manner::Honest);
    for (seed, code) in [("1", 0), ("2", 0), ("1", 1)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-loadgen"));
        command.arg("run").args(["--target", &server.clicks.to_string(), "--seed", seed, "--clicks", "200"]);
        assert_eq!(command.output().unwrap().status.code(), Some(code), "seed {seed}");
    }
}

#[test]
fn usage_and_absence_have_their_own_codes() {
    let code = |flags: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate-loadgen")).arg("run").args(flags).output().unwrap();
        output.status.code()
    };
    assert_eq!(code(&["--nonsense"]), Some(64));
    assert_eq!(code(&["--connections", "0"]), Some(64));
    assert_eq!(code(&["--target", "127.0.0.1:1"]), Some(69));
    assert_eq!(code(&["--help"]), Some(0));
}
