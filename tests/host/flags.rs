//! The server in a namespace, with what fits it to its NIC: a click over the veth is counted with each, and what the host does not
//! have is said in one line.

use std::path::Path;

use crate::client::send_one_by_one;
use crate::namespace::Namespace;
use crate::server::{Server, answer_with, binary, tollgate, wait_until};

/// Serves within, with these flags; and the field by which its counts are asked for: beyond the loopback nobody is answered without
/// a token.
fn start(namespace: &Namespace, data_dir: &Path, flags: &[&str]) -> (Server, String) {
    let (code, token) = tollgate(data_dir, &["token", "create", "--all", "--new"]);
    assert_eq!(code, Some(0), "{token}");
    let token = token.split_whitespace().find(|word| word.starts_with("tgt_")).expect("it is printed");
    let field = format!("Authorization: Bearer {token}\r\n");
    let mut command = namespace.command(binary());
    let any = format!("{}:0", namespace.address);
    command.args(["up", "--listen", &any, "--query-listen", &any, "--admin-listen", &any]);
    command
        .args(["--segment-bytes", "1MiB", "--dedup-memory-bytes", "16MiB", "--export-interval", "100ms"])
        .args(flags);
    let mut server = Server::spawn_command(command, data_dir);
    assert!(server.ready_within(crate::server::PATIENCE), "{}", said(data_dir));
    (server, field)
}

/// A click over the veth is counted.
fn counts_one(server: &Server, field: &str) {
    send_one_by_one(server.clicks, 0, 1);
    wait_until("the click is counted", || answer_with(server.query, "/v1/totals", field).1.contains("\"gross\":1,"));
}

fn said(data_dir: &Path) -> String {
    std::fs::read_to_string(data_dir.with_extension("stderr")).unwrap_or_default()
}

/// With these flags it serves and counts, and says each of `lines` exactly once.
#[track_caller]
fn counts(namespace: &Namespace, flags: &[&str], lines: &[&str]) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data_dir = folder.path().join("data");
    let (server, field) = start(namespace, &data_dir, flags);
    counts_one(&server, &field);
    server.stop();
    let text = said(&data_dir);
    for line in lines {
        assert_eq!(text.lines().filter(|said| said.contains(line)).count(), 1, "{flags:?}: {line:?} in: {text}");
    }
}

#[test]
fn connections_are_accepted_where_their_packets_arrive() {
    let Some(namespace) = Namespace::new() else { return };
    let flags = ["--cpus", "0,1", "--incoming-cpu", "on"];
    counts(&namespace, &flags, &["--incoming-cpu is set untried: connections over loopback were answered"]);
    namespace.loopback_up();
    counts(&namespace, &flags, &["--incoming-cpu: connections are accepted by the worker on whose CPU"]);
    counts(
        &namespace,
        &["--cpus", "0", "--incoming-cpu", "on"],
        &["--incoming-cpu does nothing here: it picks between"],
    );
}

#[test]
fn the_nic_is_polled_or_it_is_said_that_it_is_not() {
    let Some(namespace) = Namespace::new() else { return };
    counts(
        &namespace,
        &["--busy-poll-us", "50"],
        &["--busy-poll-us: a receive that finds nothing looks into the NIC's"],
    );
    // As it is made a veth has no NAPI queue.
    for napi in ["on", "prefer"] {
        let lines = ["--napi: before it sleeps, a worker polls", "--napi does nothing for the first connection"];
        counts(&namespace, &["--busy-poll-us", "50", "--napi", napi], &lines);
    }
    namespace.with_napi();
    let line = "--napi: the first connection came by a NAPI queue, which is polled";
    counts(&namespace, &["--busy-poll-us", "50", "--napi", "on"], &[line]);
}

#[test]
fn a_veth_has_no_interrupts_to_check() {
    let Some(namespace) = Namespace::new() else { return };
    let none = |whose: &str| format!("--irq-affinity-check does nothing here: /proc/interrupts has none of {whose}");
    let named = ["--cpus", "0", "--nic", &namespace.nic, "--irq-affinity-check", "refuse"];
    counts(&namespace, &named, &[&none(&namespace.nic)]);
    counts(&namespace, &["--cpus", "0", "--irq-affinity-check", "warn"], &[&none("any network interface")]);
}

#[test]
fn huge_pages_of_each_kind_or_their_want_is_said() {
    let Some(namespace) = Namespace::new() else { return };
    let free = namespace.shell("cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let enough = free.parse::<u64>().unwrap() >= 8;
    let line =
        if enough { "ids lie in explicit huge pages pages=8" } else { "it needs 8 free pages of 2 MiB, there are" };
    counts(&namespace, &["--huge-pages", "explicit"], &[line]);
    counts(&namespace, &["--huge-pages", "off"], &[]);
}

#[test]
fn other_threads_stay_on_the_housekeeping_cpus() {
    let Some(namespace) = Namespace::new() else { return };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (server, field) = start(&namespace, &folder.path().join("data"), &["--cpus", "0", "--housekeeping-cpus", "1"]);
    for (thread, cpu) in [("worker", "0"), ("exporter", "1"), ("keeper", "1"), ("query", "1")] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.thread(thread))).unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        assert_eq!(list.trim(), cpu, "{thread}");
    }
    counts_one(&server, &field);
    server.stop();
}
