//! The binary as a shell sees it: what it prints, where, and its exit code. Nothing here starts a server.

use std::process::{Command, Output};

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_clear().args(arguments).envs(variables.iter().copied()).output().expect("the binary starts")
}

#[track_caller]
fn refused(output: &Output, names: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(output.stdout.is_empty(), "nothing on standard output");
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("tollgate: ") && names.iter().all(|name| text.contains(name)), "{names:?}: {text}");
}

#[test]
fn a_wrong_value_stops_with_one_line_and_64() {
    for command in ["up", "serve", "check"] {
        refused(&run(&[command, "--frame-bytes", "17KiB"], &[]), &["--frame-bytes", "\"17KiB\"", "16KiB to 16MiB"]);
    }
    for memory in ["4MiB", "256GiB"] {
        refused(&run(&["up", "--dedup-memory-bytes", memory], &[]), &["--dedup-memory-bytes", "8MiB to 255GiB"]);
    }
    refused(&run(&["up"], &[("TOLLGATE_DEDUP_WINDOW", "25h")]), &["TOLLGATE_DEDUP_WINDOW", "\"25h\"", "1m to 1d"]);
    refused(&run(&["up", "--config", "no-such.toml"], &[]), &["--config", "no-such.toml"]);
    refused(&run(&["up", "--lisen", "x"], &[]), &["--lisen"]);
    refused(&run(&[], &[]), &["subcommand"]);
}

const KAFKA: [&str; 6] = ["--sink", "kafka", "--kafka-brokers", "127.0.0.1:9", "--edge-id", "e1"];

#[test]
fn what_kafka_cannot_be_told_stops_with_one_line_and_64() {
    for command in ["serve", "check"] {
        let with = |more: &[&str]| run(&[&[command], &KAFKA[..], more].concat(), &[]);
        refused(&with(&["--kafka-set", "foo=bar"]), &["--kafka-set", "foo", "No such configuration property"]);
        refused(&with(&["--kafka-set", "acks=1"]), &["--kafka-set", "acks is decided by the protocol"]);
        refused(&with(&["--kafka-set", "linger.ms"]), &["--kafka-set", "has no =", "key=value"]);
        refused(&with(&["--kafka-set", "linger.ms=soon"]), &["--kafka-set", "linger.ms"]);
        refused(&with(&["--kafka-topic-partials", "a b"]), &["--kafka-topic-partials", "\"a b\""]);
        refused(&with(&["--keep-hours", "800d"]), &["--keep-hours", "`tollgate global`"]);
        refused(&run(&[&[command], &KAFKA[..4]].concat(), &[]), &["--edge-id"]);
        refused(&run(&[command, "--sink", "kafka", "--edge-id", "e1"], &[]), &["--kafka-brokers"]);
        refused(&run(&[command, "--kafka-brokers", "a:9092"], &[]), &["--sink kafka"]);
        refused(&run(&[&[command], &KAFKA[..2], &["--kafka-brokers", "a"]].concat(), &[]), &["host:port"]);
    }
    refused(&run(&[&["up"], &KAFKA[..]].concat(), &[]), &["tollgate serve --sink kafka"]);
    refused(&run(&["topics", "check"], &[]), &["--kafka-brokers"]);
    // One topic cannot be two things, whoever is told so.
    let (partials, checkpoints) = ("clicks.partials", "clicks.checkpoints");
    for (flag, topic, other) in [
        ("--raw-topic", partials, "--kafka-topic-partials"),
        ("--raw-topic", checkpoints, "--kafka-topic-checkpoints"),
        ("--kafka-topic-checkpoints", partials, "--kafka-topic-partials"),
    ] {
        for command in [&[&["serve"], &KAFKA[..]].concat()[..], &["topics", "create", KAFKA[2], KAFKA[3]]] {
            refused(&run(&[command, &[flag, topic]].concat(), &[]), &[flag, topic, other]);
        }
    }
    refused(&run(&["topics", "check", "--kafka-brokers", "127.0.0.1:9", "--kafka-set", "foo=bar"], &[]), &["foo"]);
}

/// Whatever is wrong beside it.
#[test]
fn a_refused_setting_shows_no_secret() {
    for also in ["acks=1", "foo=bar", "sasl.passwort=hush"] {
        let more = ["--kafka-set", "sasl.password=hush", "--kafka-set", also];
        let output = run(&[&["serve"], &KAFKA[..], &more].concat(), &[]);
        refused(&output, &["--kafka-set"]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hush"), "{also}: {output:?}");
    }
}

#[test]
fn properties_come_from_flags_a_file_or_the_environment_and_secrets_are_hidden() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tollgate.toml");
    let text = "sink = \"kafka\"\nkafka-brokers = [\"127.0.0.1:9\", \"127.0.0.1:10\"]\nedge-id = \"e1\"\n\
                kafka-set = [\"compression.type=zstd\", \"sasl.password=a,b=c\"]\n";
    std::fs::write(&file, text).expect("writes");
    let config = ("TOLLGATE_CONFIG", file.to_str().expect("UTF-8"));
    let shown = |flags: &[&str], variables: &[(&str, &str)]| {
        let output = run(&[&["check", "--json"], flags].concat(), &[&[config], variables].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("a,b=c") && !text.contains("hush"), "{text}");
        let report: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
        let values = report["values"].as_array().expect("a list").clone();
        let value = values.into_iter().find(|value| value["name"] == "kafka-set").expect("listed");
        let memory = report["memory"].as_array().expect("a list");
        assert!(memory.iter().any(|line| line["name"] == "kafka"), "what librdkafka holds is in the sum: {text}");
        (value["value"].as_str().expect("text").to_owned(), value["source"].as_str().expect("text").to_owned())
    };
    let said = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(shown(&[], &[]), said("compression.type=zstd,sasl.password=(hidden)", "file"));
    let lines = ("TOLLGATE_KAFKA_SET", "linger.ms=7\nssl.key.password=hush\n");
    assert_eq!(shown(&[], &[lines]), said("linger.ms=7,ssl.key.password=(hidden)", "env"));
    let flags = ["--kafka-set", "linger.ms=8", "--kafka-set", "sasl.username=u"];
    assert_eq!(shown(&flags, &[lines]), said("linger.ms=8,sasl.username=u", "flag"));
    let output = run(&["check", "--for", "serve"], &[config]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("sasl.password=(hidden)") && !text.contains("a,b=c"), "{text}");
}

/// What lies in memory would be acknowledged and lost with it.
#[test]
fn a_data_directory_in_memory_is_refused() {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a file system in memory");
    let data_dir = folder.path().join("data");
    let any = "127.0.0.1:0";
    let addresses = ["--listen", any, "--query-listen", any, "--admin-listen", any];
    let data_dir_flag = ["--data-dir", data_dir.to_str().expect("UTF-8"), "--dedup-memory-bytes", "8MiB"];
    let output = run(&[&["up"], &addresses[..], &data_dir_flag].concat(), &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains("past the page cache") && output.stdout.is_empty(), "{text}");
}

#[test]
fn a_file_and_the_environment_reach_check_with_their_sources() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tollgate.toml");
    std::fs::write(&file, "headers-max = 99\nrecv-buffers = 64\n").expect("writes");
    let variables = [("TOLLGATE_CONFIG", file.to_str().expect("UTF-8")), ("TOLLGATE_RECV_BUFFERS", "128")];
    let output = run(&["check", "--for", "up", "--json", "--edge-id", "e1"], &variables);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let of = |name: &str| {
        let value = report["values"].as_array().expect("a list").iter().find(|value| value["name"] == name);
        let value = value.expect("every setting is listed");
        (value["value"].as_str().expect("text").to_owned(), value["source"].as_str().expect("text").to_owned())
    };
    let said = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(of("headers-max"), said("99", "file"));
    assert_eq!(of("recv-buffers"), said("128", "env"));
    assert_eq!(of("edge-id"), said("e1", "flag"));
    assert_eq!(of("frame-bytes"), said("256KiB", "default"));
}

#[test]
fn help_and_version_end_well() {
    for arguments in [&["--help"][..], &["--version"], &["up", "--help"], &["wal", "repair", "--help"]] {
        let output = run(arguments, &[]);
        assert!(output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
}

/// Whoever reads lines of JSON gets one for a start that fails, too.
#[test]
fn a_start_that_fails_says_why_in_the_format_asked_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let failed = |format: &str| {
        let mut arguments = vec!["serve", "--data-dir", data_dir.to_str().expect("UTF-8"), "--log-format", format];
        arguments.extend(["--listen", "127.0.0.1:0", "--query-listen", "127.0.0.1:0", "--admin-listen", &address]);
        arguments.extend(["--dedup-memory-bytes", "8MiB"]);
        let output = run(&arguments, &[]);
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(69), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(&address) && text.contains("--admin-listen"), "{text}");
        text
    };
    assert!(failed("text").starts_with("tollgate: "));
    let line: serde_json::Value = serde_json::from_str(&failed("json")).expect("one JSON object");
    assert_eq!((&line["level"], &line["fields"]["code"]), (&"ERROR".into(), &69.into()), "{line}");
}
