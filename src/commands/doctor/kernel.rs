//! The kernel: what tollgate needs of it and does not get, limits, and the sysctls of connections.

use super::Patient;
use super::finding::{Change, Finding};
use crate::host::memory::limit;
use crate::host::sysctls;
use crate::net::listener::BACKLOG;

const AREA: &str = "kernel";

pub(super) fn findings(patient: &Patient) -> Vec<Finding> {
    let release = patient.root.text("proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    let mut found = vec![Finding::ok(AREA, "release", release, "")];
    for missing in &patient.probed.missing {
        let finding = Finding::ok(AREA, "needed", missing.what.clone(), "");
        found.push(finding.problem(missing.remedy.clone(), "tollgate does not start without"));
    }
    found.extend(ring(patient));
    found.extend(locked_memory(patient));
    found.extend(open_files(patient));
    found.extend(backlog(
        patient,
        "net.core.somaxconn",
        "more connections wait to be accepted than this, and those beyond are dropped",
    ));
    found.extend(backlog(
        patient,
        "net.ipv4.tcp_max_syn_backlog",
        "more handshakes are under way than this, where many clients come at once",
    ));
    found.extend(local_ports(patient));
    found
}

fn ring(patient: &Patient) -> Option<Finding> {
    let features = patient.probed.ring?;
    let mut lacking = Vec::new();
    let mut has = vec!["deferred task work", "messages between rings"];
    let mut sort = |there: bool, name: &'static str, lack: &'static str| {
        if there { has.push(name) } else { lacking.push(lack) }
    };
    sort(features.gathers, "waiting for a batch", "waiting for a batch needs 6.12");
    sort(features.napi, "NAPI polling", "--napi needs 6.9 and CONFIG_NET_RX_BUSY_POLL");
    let finding = Finding::ok(AREA, "io_uring", has.join(", "), "");
    Some(if lacking.is_empty() { finding } else { finding.advice("a later kernel", lacking.join("; ")) })
}

fn bytes_or_none(value: Option<u64>) -> String {
    value.map_or("unlimited".to_owned(), |value| value.to_string())
}

fn locked_memory(patient: &Patient) -> Option<Finding> {
    let (soft, _) = limit(patient.root, "Max locked memory")?;
    let why = "any is enough: io_uring counts registered buffers, and tollgate has none";
    Some(Finding::ok(AREA, "memlock", bytes_or_none(soft), why))
}

/// That the hard one is too low for `--connections-max` is among what is missing.
fn open_files(patient: &Patient) -> Option<Finding> {
    let (soft, hard) = limit(patient.root, "Max open files")?;
    let found = format!("{}, raised at the start up to {}", bytes_or_none(soft), bytes_or_none(hard));
    Some(Finding::ok(AREA, "nofile", found, ""))
}

fn backlog(patient: &Patient, name: &'static str, why: &str) -> Option<Finding> {
    let (value, least) = (sysctls::number(patient.root, name)?, BACKLOG as u64);
    let finding = Finding::ok(AREA, name, value.to_string(), "");
    if value >= least {
        return Some(finding);
    }
    let change = Change { path: sysctls::path(name), old: value.to_string(), new: least.to_string() };
    Some(finding.advice(change.command(), format!("tollgate asks for {least}: {why}")).changing(vec![change]))
}

/// A port that others may be given for connections of theirs may be taken when tollgate starts again.
fn local_ports(patient: &Patient) -> Option<Finding> {
    let (first, last) = sysctls::local_ports(patient.root)?;
    let config = patient.config;
    let named =
        [("--listen", config.listen), ("--query-listen", config.query_listen), ("--admin-listen", config.admin_listen)];
    let taken = named.iter().filter(|(_, address)| {
        let port = address.port();
        (first..=last).contains(&port) && !sysctls::is_reserved(patient.root, port)
    });
    let taken: Vec<String> = taken.map(|(flag, address)| format!("{flag} {}", address.port())).collect();
    let finding = Finding::ok(AREA, "local ports", format!("{first} to {last}"), "");
    if taken.is_empty() {
        return Some(finding);
    }
    let why = format!(
        "{} lies in it: another program's connection may have the port when tollgate starts again",
        taken.join(", ")
    );
    Some(finding.advice("a port below, or net.ipv4.ip_local_reserved_ports", why))
}
