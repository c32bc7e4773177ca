//! The NIC: queues, where its interrupts are handled, and over which CPUs its packets are spread.

use super::Patient;
use super::finding::{Change, Finding};
use super::plan::Layout;
use crate::config::{NapiMode, Switch};
use crate::host::irqs::{self, Irq, Use};
use crate::host::masks::{format_list, format_mask};
use crate::host::nic::{self, Nic, Queue};

const AREA: &str = "network";

pub(super) fn findings(patient: &Patient) -> Vec<Finding> {
    let named = &patient.config.tuning.nic;
    let root = patient.root;
    let nics = if named.is_empty() { irqs::nics(root) } else { vec![named.clone()] };
    if nics.is_empty() {
        let there = root.names("sys/class/net").join(", ");
        let why = "clicks that come over loopback or a veth are no NIC's; else name it with --nic";
        return vec![Finding::ok(AREA, "nic", format!("none with interrupts among {there}"), why)];
    }
    let mut found = Vec::new();
    for name in nics {
        let Some(nic) = nic::read(root, &name) else {
            let there = root.names("sys/class/net").join(", ");
            let missing = Finding::ok(AREA, name, "no such interface", "");
            found.push(missing.problem("name another with --nic", format!("here are: {there}")));
            continue;
        };
        let irqs = irqs::of_nic(root, &name);
        found.push(queues(patient, &nic));
        found.extend(interrupts(patient, &nic, &irqs));
        found.extend(balancer(patient, &irqs));
        found.extend(receive_spread(patient, &nic));
        found.extend(send_spread(patient, &nic));
        found.extend(node(patient, &nic));
        found.extend(deferral(patient, &nic));
    }
    found.extend(incoming_cpu(patient));
    found
}

fn title(nic: &Nic, what: &str) -> String {
    format!("{} {what}", nic.name)
}

/// Changes of a NIC are made where it was named: nobody means all of them.
fn allowed(patient: &Patient, finding: Finding, changes: Vec<Change>) -> Finding {
    if patient.config.tuning.nic.is_empty() { finding } else { finding.changing(changes) }
}

/// Where no worker is pinned, no CPU is a worker's to keep interrupts off, or to send them to.
fn for_pinned(patient: &Patient, finding: Finding) -> Finding {
    let cpus = format_list(&patient.plan.workers);
    Finding {
        why: format!("no worker is pinned: where this should be is a question with --cpus, such as {cpus}"),
        ..finding
    }
}

fn queues(patient: &Patient, nic: &Nic) -> Finding {
    let (receive, send, driver) = (nic.receive.len(), nic.send.len(), nic.driver.as_deref().unwrap_or("software"));
    let asked =
        patient.probed.nics.iter().find(|(name, _)| *name == nic.name).map(|(_, asked)| *asked).unwrap_or_default();
    let most = asked.channels.map_or(String::new(), |channels| format!(" of {} it could run", channels.receive_max));
    let table =
        asked.indirection.map_or(String::new(), |entries| format!(", its hash (RSS) picks by a table of {entries}"));
    let found = format!("{driver}: {receive} to receive{most}, {send} to send{table}");
    let finding = Finding::ok(AREA, title(nic, "queues"), found, "");
    let wanted = patient.plan.receive_cpus().len();
    match asked.channels {
        Some(channels) if receive < wanted && channels.receive_max as usize > receive => {
            let to = wanted.min(channels.receive_max as usize);
            let why = format!(
                "packets are to be taken in on {wanted} CPUs, and each queue is taken in on one; this cuts the link for a moment"
            );
            finding.advice(format!("ethtool -L {} combined {to}", nic.name), why)
        }
        _ if receive < wanted => {
            Finding { why: "fewer than CPUs to take packets in: RPS spreads them".to_owned(), ..finding }
        }
        _ => finding,
    }
}

fn interrupts(patient: &Patient, nic: &Nic, irqs: &[Irq]) -> Option<Finding> {
    let queues: Vec<&Irq> = irqs.iter().filter(|irq| irq.of != Use::Other).collect();
    if queues.is_empty() {
        return None;
    }
    let shown = |irq: &&Irq| format!("{} on {}", irq.number, format_list(&irq.cpus));
    let found = queues.iter().map(shown).collect::<Vec<_>>().join(", ");
    let cpus = patient.plan.receive_cpus();
    let (mut changes, mut turns) = (Vec::new(), [0_usize; 3]);
    for irq in queues {
        let turn = &mut turns[irq.of as usize];
        let cpu = cpus[*turn % cpus.len()];
        *turn += 1;
        // Where none is shown, as in some containers, none is set.
        if irq.cpus != [cpu] && !irq.allowed.is_empty() {
            let path = format!("proc/irq/{}/smp_affinity_list", irq.number);
            changes.push(Change { path, old: format_list(&irq.allowed), new: cpu.to_string() });
        }
    }
    let finding = Finding::ok(AREA, title(nic, "interrupts"), found, "");
    if changes.is_empty() {
        return Some(finding);
    }
    if !patient.plan.pinned {
        return Some(for_pinned(patient, finding));
    }
    let wanted = changes.iter().map(Change::command).collect::<Vec<_>>().join("; ");
    let why = match patient.plan.layout {
        Layout::Aligned => "a queue's packets are taken in on the CPU of one worker, each worker's turn",
        Layout::Apart => "packets are taken in beside the workers, whose CPUs are theirs alone",
    };
    Some(allowed(patient, finding.advice(wanted, why), changes))
}

/// It moves interrupts every ten seconds, and what is set here with them.
fn balancer(patient: &Patient, irqs: &[Irq]) -> Option<Finding> {
    let numbers = patient.root.names("proc").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let runs = |pid: String| patient.root.text(&format!("proc/{pid}/comm")).is_some_and(|name| name == "irqbalance");
    (!irqs.is_empty() && numbers.into_iter().any(runs)).then(|| {
        let finding = Finding::ok(AREA, "irqbalance", "runs", "");
        finding.advice("systemctl disable --now irqbalance, or ban these interrupts there", "it moves them back")
    })
}

fn masks(queues: &[Queue]) -> String {
    let shown = |queue: &Queue| match queue.cpus.as_deref() {
        None => "?".to_owned(),
        Some([]) => "none".to_owned(),
        Some(cpus) => format_list(cpus),
    };
    queues.iter().map(shown).collect::<Vec<_>>().join(" | ")
}

/// The changes that give each queue its mask.
fn set_masks(queues: &[Queue], wanted: impl Fn(usize) -> Vec<usize>) -> Vec<Change> {
    let change = |(at, queue): (usize, &Queue)| {
        let (old, new) = (queue.cpus.as_ref()?, wanted(at));
        (*old != new).then(|| Change { path: queue.path.clone(), old: format_mask(old), new: format_mask(&new) })
    };
    queues.iter().enumerate().filter_map(change).collect()
}

fn spread_over(queues: &[Queue]) -> String {
    if queues.iter().all(|queue| queue.cpus.as_ref().is_some_and(Vec::is_empty)) {
        return "off: packets stay on the CPU of their queue's interrupt".to_owned();
    }
    format!("packets spread over CPUs {}", masks(queues))
}

fn receive_spread(patient: &Patient, nic: &Nic) -> Option<Finding> {
    let cpus = patient.plan.receive_cpus();
    let spread = nic.receive.len() < cpus.len();
    let changes = set_masks(&nic.receive, |_| if spread { cpus.to_vec() } else { Vec::new() });
    let finding = Finding::ok(AREA, title(nic, "RPS"), spread_over(&nic.receive), "");
    if nic.receive.is_empty() || changes.is_empty() {
        return (!nic.receive.is_empty()).then_some(finding);
    }
    if !patient.plan.pinned {
        return Some(for_pinned(patient, finding));
    }
    let why = if spread {
        "fewer queues than CPUs to take packets in: the kernel spreads the flows over these"
    } else {
        "there is a queue for each of these CPUs: to pass packets on costs an interrupt between CPUs"
    };
    let wanted = changes.iter().map(Change::command).collect::<Vec<_>>().join("; ");
    Some(allowed(patient, finding.advice(wanted, why), changes))
}

fn send_spread(patient: &Patient, nic: &Nic) -> Option<Finding> {
    let queues = nic.send.len();
    // Of a single queue there is nothing to pick.
    if queues < 2 || nic.send.iter().any(|queue| queue.cpus.is_none()) {
        return None;
    }
    let changes = set_masks(&nic.send, |queue| patient.plan.senders(queue, queues));
    let finding = Finding::ok(AREA, title(nic, "XPS"), format!("queues sent by from CPUs {}", masks(&nic.send)), "");
    if changes.is_empty() {
        return Some(finding);
    }
    if !patient.plan.pinned {
        return Some(for_pinned(patient, finding));
    }
    let wanted = changes.iter().map(Change::command).collect::<Vec<_>>().join("; ");
    Some(allowed(
        patient,
        finding.advice(wanted, "each worker sends by a queue that no other has the lock of"),
        changes,
    ))
}

fn node(patient: &Patient, nic: &Nic) -> Option<Finding> {
    let number = nic.numa_node?;
    let near = nic::cpus_of_node(patient.root, number);
    let far: Vec<usize> = patient.plan.workers.iter().copied().filter(|cpu| !near.contains(cpu)).collect();
    let finding =
        Finding::ok(AREA, title(nic, "memory node"), format!("{number}, with CPUs {}", format_list(&near)), "");
    Some(match near.is_empty() || far.is_empty() {
        true => finding,
        false => {
            let why = format!("workers on CPUs {} read each packet from the other node's memory", format_list(&far));
            finding.advice("--cpus of those", why)
        }
    })
}

fn deferral(patient: &Patient, nic: &Nic) -> Option<Finding> {
    if patient.config.ring.napi != NapiMode::Prefer {
        return None;
    }
    let (defer, flush) = (nic.defer_hard_irqs?, nic.gro_flush_timeout_ns?);
    let found = format!("napi_defer_hard_irqs {defer}, gro_flush_timeout {flush} ns");
    let finding = Finding::ok(AREA, title(nic, "deferred interrupts"), found, "");
    Some(match defer > 0 && flush > 0 {
        true => finding,
        false => {
            let folder = format!("/sys/class/net/{}", nic.name);
            let wanted = format!("echo 2 > {folder}/napi_defer_hard_irqs; echo 200000 > {folder}/gro_flush_timeout");
            finding.advice(wanted, "--napi prefer holds interrupts back with these, and does not without")
        }
    })
}

fn incoming_cpu(patient: &Patient) -> Option<Finding> {
    let (config, plan) = (patient.config, &patient.plan);
    let on = config.tuning.incoming_cpu == Switch::On;
    if plan.workers.len() < 2 {
        return None;
    }
    let finding = Finding::ok(AREA, "--incoming-cpu", config.tuning.incoming_cpu.name(), "");
    Some(match (plan.layout, on) {
        (Layout::Aligned, false) => finding.advice(
            "--incoming-cpu on",
            "packets are taken in on the workers' CPUs: each connection is best served where its are",
        ),
        (Layout::Aligned, true) | (Layout::Apart, _) => finding,
    })
}
