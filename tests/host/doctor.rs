//! `tollgate doctor` on a veth: what it reads of it, what it sets, and how that is put back.

use serde_json::Value;

use crate::namespace::Namespace;
use crate::server::binary;

/// Its report, and its exit status.
fn doctor(namespace: &Namespace, arguments: &[&str]) -> (Option<i32>, Value) {
    let folder = env!("CARGO_TARGET_TMPDIR");
    let mut command = namespace.command(binary());
    command.args(["doctor", "--json", "--dedup-memory-bytes", "64MiB", "--data-dir", folder]).args(arguments);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text);
    (output.status.code(), report.unwrap_or_else(|_| panic!("{text} {}", String::from_utf8_lossy(&output.stderr))))
}

fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = report["findings"].as_array().unwrap().iter().find(|finding| finding["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

#[test]
fn a_veth_is_read_set_and_put_back() {
    let Some(namespace) = Namespace::new() else { return };
    let nic = namespace.nic.as_str();
    let (somaxconn, rps) = ("/proc/sys/net/core/somaxconn", format!("/sys/class/net/{nic}/queues/rx-0/rps_cpus"));
    namespace.shell(&format!("echo 128 > {somaxconn}"));
    let read = |path: &str| namespace.shell(&format!("cat {path}"));
    let all = ["--nic", nic, "--cpus", "0,1"];

    let (_, before) = doctor(&namespace, &all);
    let queues = finding(&before, &format!("{nic} queues"));
    assert!(queues["found"].as_str().unwrap().starts_with("software: 1 to receive"), "{queues}");
    let spread = finding(&before, &format!("{nic} RPS"));
    assert_eq!((&spread["level"], &spread["wanted"]), (&"advice".into(), &format!("echo 3 > {rps}").into()));
    assert_eq!(finding(&before, "net.core.somaxconn")["found"], "128");
    assert_eq!((read(&rps).as_str(), read(somaxconn).as_str()), ("0", "128"), "a look changes nothing");

    let (code, after) = doctor(&namespace, &[&all[..], &["--apply"]].concat());
    assert_eq!((read(&rps).as_str(), read(somaxconn).as_str()), ("3", "4096"));
    for name in [&format!("{nic} RPS"), "net.core.somaxconn"] {
        assert_eq!(finding(&after, name)["level"], "ok");
    }
    let applied = after["applied"].as_array().unwrap();
    assert!(applied.iter().all(|one| one["error"].is_null()), "{applied:#?}");
    let problem = |finding: &Value| finding["level"] == "problem";
    assert_eq!(code, Some(i32::from(after["findings"].as_array().unwrap().iter().any(problem))));

    // Also what it set of the host beside the namespace.
    for one in applied.iter().rev() {
        namespace.shell(one["undo"].as_str().unwrap());
    }
    assert_eq!((read(&rps).as_str(), read(somaxconn).as_str()), ("0", "128"));
}

#[test]
fn an_interface_that_is_not_there_is_a_problem() {
    let Some(namespace) = Namespace::new() else { return };
    let (code, report) = doctor(&namespace, &["--nic", "eth77"]);
    assert_eq!((code, &finding(&report, "eth77")["level"]), (Some(1), &"problem".into()));
    assert!(finding(&report, "eth77")["why"].as_str().unwrap().contains(&namespace.nic), "{report:#}");
}
