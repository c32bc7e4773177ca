//! The side-by-side run works end to end with the null servers, every reply of theirs checked by the load generator.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::process::Command;

#[test]
fn null_servers_answer_every_shape_and_are_charged_for_it() {
    let json = std::env::temp_dir().join(format!("tollgate-compare-{}.json", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-bench"));
    command.args(["compare", "--rounds", "2", "--seconds", "0.1", "--server-cpu", "0", "--client-cpu", "0", "--json"]);
    let output = command.arg(&json).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    std::fs::remove_file(&json).unwrap();
    let rows = result["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 8, "four shapes, two servers");
    for row in rows {
        assert!(row["best"]["clicks_per_s"].as_f64().unwrap() > 100.0, "{row}");
        assert!(row["best"]["process_ns_per_click"].as_f64().unwrap() > 1.0, "{row}");
        assert_eq!(row["rounds"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn the_table_has_every_server_that_is_named_and_says_which_are_not() {
    let json = std::env::temp_dir().join(format!("tollgate-table-{}.json", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-bench"));
    command.args(["table", "--rounds", "1", "--seconds", "0.1", "--ads", "10,100", "--client-cpu", "0", "--json"]);
    let output = command.arg(&json).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        text.contains("tollgate is left out") && text.contains("one record of Kafka a click is left out"),
        "{text}"
    );
    let result: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    std::fs::remove_file(&json).unwrap();
    let rows = result["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 18, "two numbers of ads, three shapes, three servers");
    for rows in rows.chunks(3) {
        assert_eq!([&rows[0]["server"], &rows[1]["server"], &rows[2]["server"]], ["null-uring", "null-epoll", "axum"]);
        assert_eq!(rows[0]["null_cpu_over_own"], 1.0);
        // One that parses cannot be cheaper than one that does not look.
        let share = rows[2]["null_cpu_over_own"].as_f64().unwrap();
        assert!(share > 0.001 && share < 1.2, "{rows:?}");
    }
}

#[test]
fn a_kafka_that_is_not_there_is_said() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate-bench"));
    let output = command.args(["axum-kafka", "--kafka-brokers", "127.0.0.1:1"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("asking 127.0.0.1:1"), "{errors}");
}

/// A child that does not outlive its test, failed or not.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn what_is_no_request_is_hung_up_on() {
    use std::io::{BufRead, BufReader, Read, Write};
    for name in ["null-uring", "null-epoll"] {
        let child = Command::new(env!("CARGO_BIN_EXE_tollgate-bench"))
            .arg(name)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let mut ready = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let address = ready.trim_end().strip_prefix("ready listen=").unwrap();
        for _ in 0..3 {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            // The end may come as FIN or as a reset.
            assert_eq!(stream.read(&mut [0; 10]).unwrap_or(0), 0, "{name}");
        }
    }
}

#[test]
fn generation_runs() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tollgate-bench")).args(["generate", "--rounds", "1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("ns a click"));
}
