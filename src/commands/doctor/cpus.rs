//! The CPUs: whose they are, which share a core, their frequency, their clock.

use super::Patient;
use super::finding::{Change, Finding};
use crate::host::cpus;
use crate::host::masks::format_list;

const AREA: &str = "cpu";

/// Clocks that are read without a system call.
const QUICK_CLOCKS: [&str; 5] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "timebase"];

pub(super) fn findings(patient: &Patient) -> Vec<Finding> {
    let mut found = vec![workers(patient)];
    found.extend(quota(patient));
    found.extend(threads_of_a_core(patient));
    found.extend(governors(patient));
    found.extend(clock(patient));
    found.push(mitigations(patient));
    found
}

fn workers(patient: &Patient) -> Finding {
    let plan = &patient.plan;
    let (workers, others) = (format_list(&plan.workers), format_list(&plan.housekeeping));
    let isolated = cpus::isolated(patient.root);
    let isolated = if isolated.is_empty() { String::new() } else { format!("; isolated {}", format_list(&isolated)) };
    if !plan.pinned {
        let finding = Finding::ok(AREA, "workers", format!("{}, not pinned{isolated}", patient.config.cores()), "");
        let why = "a pinned worker keeps its caches, and other threads of tollgate keep off its CPU; right where nothing else wants it";
        return if patient.machine.cpus.len() > 1 { finding.advice(format!("--cpus {workers}"), why) } else { finding };
    }
    if plan.housekeeping.is_empty() {
        let why = "exporter, log keeper and queries share the workers' CPUs: a worker that wakes may wait for them";
        return Finding::ok(AREA, "workers", format!("on CPUs {workers}, no CPU beside them{isolated}"), why);
    }
    Finding::ok(AREA, "workers", format!("on CPUs {workers}, other threads on {others}{isolated}"), "")
}

fn quota(patient: &Patient) -> Option<Finding> {
    let (quota, workers) = (patient.machine.cpu_quota?, patient.plan.workers.len());
    let finding = Finding::ok(AREA, "cgroup quota", format!("{quota} CPUs"), "");
    let why = "a throttled worker stands still for tens of milliseconds, and clicks wait";
    Some(if quota < workers as f64 + 0.5 {
        finding.advice(format!("a quota above {workers} CPUs, or none (cpu.max)"), why)
    } else {
        finding
    })
}

fn threads_of_a_core(patient: &Patient) -> Option<Finding> {
    let (root, plan) = (patient.root, &patient.plan);
    let siblings = |cpu: &usize| cpus::siblings(root, *cpu);
    if plan.workers.iter().all(|cpu| siblings(cpu).len() < 2) {
        return Some(Finding::ok(AREA, "threads of a core", "each worker's CPU is a core of its own", ""));
    }
    let shared = |cpu: &&usize| siblings(cpu).iter().any(|other| other != *cpu && plan.workers.contains(other));
    let sharing: Vec<usize> = plan.workers.iter().filter(shared).copied().collect();
    let firsts: Vec<usize> =
        patient.machine.cpus.iter().filter(|cpu| siblings(cpu).iter().all(|other| other >= *cpu)).copied().collect();
    let finding =
        Finding::ok(AREA, "threads of a core", format!("workers on CPUs {} share cores", format_list(&sharing)), "");
    if sharing.is_empty() {
        return Some(Finding { found: "no two workers share a core".to_owned(), ..finding });
    }
    let why = "two threads of a core share its caches and units: two such workers do little more than one and a half";
    Some(if firsts.len() >= plan.workers.len() {
        let cpus = &firsts[firsts.len() - plan.workers.len()..];
        finding.advice(format!("--cpus {}", format_list(cpus)), why)
    } else {
        Finding { why: why.to_owned(), ..finding }
    })
}

fn governors(patient: &Patient) -> Option<Finding> {
    let of = |cpu: &usize| cpus::governor(patient.root, *cpu);
    let governors: Vec<cpus::Governor> = patient.plan.workers.iter().filter_map(of).collect();
    if governors.is_empty() {
        return Some(Finding::ok(AREA, "governor", "none: the frequency is not the kernel's to set", ""));
    }
    let mut names: Vec<&str> = governors.iter().map(|governor| governor.name.as_str()).collect();
    names.dedup();
    let finding = Finding::ok(AREA, "governor", names.join(", "), "");
    let slow = governors.iter().filter(|governor| governor.name != "performance" && governor.has_performance);
    let new = "performance".to_owned();
    let changes: Vec<Change> = slow
        .map(|governor| Change { path: governor.path.clone(), old: governor.name.clone(), new: new.clone() })
        .collect();
    if changes.is_empty() {
        return Some(finding);
    }
    let wanted = changes.iter().map(Change::command).collect::<Vec<_>>().join("; ");
    let why = "a worker sleeps between batches, and others wake it at a low frequency";
    Some(finding.advice(wanted, why).changing(changes))
}

fn clock(patient: &Patient) -> Option<Finding> {
    let clock = cpus::clock_source(patient.root)?;
    let finding = Finding::ok(AREA, "clock", clock.current.clone(), "");
    if QUICK_CLOCKS.contains(&clock.current.as_str()) {
        return Some(finding);
    }
    let why = format!(
        "each look at the clock is a system call, or slow; there are: {}. If the kernel marked tsc unstable, ask its log why",
        clock.available.join(", ")
    );
    Some(finding.advice("clocksource=tsc at boot, or that of the hypervisor", why))
}

/// What guards against flaws of the CPU is never advised away.
fn mitigations(patient: &Patient) -> Finding {
    let flaws = cpus::vulnerabilities(patient.root);
    let open = flaws.iter().filter(|(_, state)| state.starts_with("Vulnerable")).map(|(name, _)| name.as_str());
    let open: Vec<&str> = open.collect();
    let guarded: Vec<&str> = flaws.iter().map(|(name, _)| name.as_str()).filter(|name| !open.contains(name)).collect();
    let list = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let found = format!("against {}; open: {}", list(&guarded), list(&open));
    Finding::ok(
        AREA,
        "mitigations",
        found,
        "each entry into the kernel pays for them, and a batch enters once; leave them on",
    )
}
