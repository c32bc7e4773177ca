//! Made-up hosts, and what is found of them.

use super::*;
use crate::config::{HugePages, NapiMode, Switch};
use crate::host::testing::tree;

/// Two CPUs, a NIC with a queue for each, everything as it should be.
const SOUND: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "6.12.0\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "8192\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/self/limits", "Max locked memory  65536  65536  bytes\nMax open files  1024  65536  files\n"),
    ("proc/self/mountinfo", "30 27 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"),
    ("proc/interrupts", "  CPU0 CPU1\n 40: 1 1 PCI-MSI 1-edge eth0-TxRx-0\n 41: 1 1 PCI-MSI 2-edge eth0-TxRx-1\n"),
    ("proc/irq/40/smp_affinity_list", "0\n"),
    ("proc/irq/41/smp_affinity_list", "1\n"),
    ("proc/1/comm", "init\n"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
    ("sys/class/net/eth0/queues/rx-1/rps_cpus", "0\n"),
    ("sys/class/net/eth0/queues/tx-0/xps_cpus", "1\n"),
    ("sys/class/net/eth0/queues/tx-1/xps_cpus", "2\n"),
    ("sys/class/net/eth0/napi_defer_hard_irqs", "0\n"),
    ("sys/class/net/eth0/gro_flush_timeout", "0\n"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
    ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n"),
    ("sys/devices/system/cpu/vulnerabilities/retbleed", "Vulnerable\n"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "4\n"),
    ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "4\n"),
    ("sys/dev/block/8:1/queue/scheduler", "[none] mq-deadline\n"),
    ("sys/dev/block/8:1/queue/write_cache", "write back\n"),
    ("sys/dev/block/8:1/queue/rotational", "0\n"),
];

struct Case {
    files: Vec<(&'static str, &'static str)>,
    config: Config,
    machine: Machine,
    probed: Probed,
}

fn sound() -> Case {
    let mut config = Config { cpus: vec![0, 1], ..Config::default() };
    config.tuning.nic = "eth0".to_owned();
    config.tuning.incoming_cpu = Switch::On;
    let sync = |bytes, median_us| Sync { bytes, writes: 9, median_us, p99_us: median_us, max_us: median_us };
    Case {
        files: SOUND.to_vec(),
        config,
        machine: Machine { cpus: vec![0, 1], cpu_quota: None, memory_bytes: 8 << 30 },
        probed: Probed {
            missing: Vec::new(),
            ring: Some(Features { gathers: true, napi: true }),
            nics: Vec::new(),
            place: PathBuf::from("/data"),
            syncs: Ok(vec![sync(4096, 80), sync(256 << 10, 300)]),
        },
    }
}

impl Case {
    fn file(&mut self, path: &'static str, text: &'static str) {
        self.files.retain(|(other, _)| *other != path);
        self.files.push((path, text));
    }

    fn examine(&self) -> Vec<Finding> {
        let (_folder, root) = tree(&self.files);
        examine(&root, &self.config, &self.machine, &self.probed)
    }
}

/// With one thing of a sound host changed, one finding is not well: the level, its name, and a word of what is wanted or why.
#[track_caller]
fn found(change: impl FnOnce(&mut Case), level: Level, name: &str, word: &str) {
    let mut case = sound();
    change(&mut case);
    let findings = case.examine();
    let unwell: Vec<&Finding> = findings.iter().filter(|finding| finding.level != Level::Ok).collect();
    assert!(unwell.len() == 1 && unwell[0].name == name && unwell[0].level == level, "{name}: {unwell:#?}");
    let text = format!("{} {}", unwell[0].wanted.as_deref().unwrap_or_default(), unwell[0].why);
    assert!(text.contains(word), "{word}: {text}");
}

#[test]
fn a_sound_host_is_left_alone() {
    let findings = sound().examine();
    let unwell: Vec<&Finding> = findings.iter().filter(|finding| finding.level != Level::Ok).collect();
    assert!(unwell.is_empty(), "{unwell:#?}");
    assert!(findings.iter().all(|finding| finding.changes.is_empty()));
    assert!(findings.len() > 18, "{findings:#?}");
    let text = screen::text(&findings, &[], false);
    assert!(text.ends_with("0 problems, 0 pieces of advice\n") && text.contains("open: retbleed"), "{text}");
}

#[test]
fn what_keeps_from_starting_or_loses_clicks_is_a_problem() {
    let missing = |what: &str, remedy: &str| Missing { what: what.to_owned(), remedy: remedy.to_owned() };
    found(|c| c.probed.missing = vec![missing("no ring", "allow it")], Level::Problem, "needed", "allow it");
    for option in ["nobarrier", "barrier=0"] {
        let mounts: &'static str =
            Box::leak(format!("30 27 8:1 / / rw - ext4 /dev/sda1 rw,{option}\n").into_boxed_str());
        found(|c| c.file("proc/self/mountinfo", mounts), Level::Problem, "file system", option);
    }
    found(|c| c.probed.syncs = Err(io::Error::other("full")), Level::Problem, "sync latency", "O_DIRECT");
    found(|c| c.config.tuning.nic = "eth9".to_owned(), Level::Problem, "eth9", "here are: eth0");
}

#[test]
fn what_costs_speed_is_advice() {
    let advice = Level::Advice;
    found(
        |c| c.file("proc/sys/net/core/somaxconn", "128\n"),
        advice,
        "net.core.somaxconn",
        "echo 4096 > /proc/sys/net",
    );
    found(|c| c.file("proc/sys/net/ipv4/tcp_max_syn_backlog", "512\n"), advice, "net.ipv4.tcp_max_syn_backlog", "4096");
    found(|c| c.config.listen.set_port(40_000), advice, "local ports", "--listen 40000");
    found(|c| c.probed.ring = Some(Features { gathers: false, napi: true }), advice, "io_uring", "6.12");
    found(|c| c.config.ring.napi = NapiMode::Prefer, advice, "eth0 deferred interrupts", "gro_flush_timeout");
    found(|c| c.file("proc/7/comm", "irqbalance\n"), advice, "irqbalance", "systemctl disable");
    found(
        |c| c.file("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
        advice,
        "transparent huge pages",
        "echo madvise > /sys",
    );
    found(|c| c.config.tuning.huge_pages = HugePages::Explicit, advice, "pool of 2 MiB pages", "vm.nr_hugepages=128");
    found(|c| c.machine.cpu_quota = Some(2.0), advice, "cgroup quota", "cpu.max");
    let hpet = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    found(|c| c.file(hpet, "hpet\n"), advice, "clock", "clocksource=tsc");
    found(|c| c.file("sys/dev/block/8:1/queue/scheduler", "none [bfq]\n"), advice, "8:1 scheduler", "echo none");
    found(
        |c| c.file("proc/self/mountinfo", "30 27 8:1 / / rw - ext4 /dev/sda1 rw,discard\n"),
        advice,
        "discard",
        "fstrim",
    );
    found(
        |c| c.file("proc/self/mountinfo", "30 27 8:1 / / rw - zfs tank rw\n"),
        advice,
        "file system",
        "zfs was not tried",
    );
    let sync = |median_us| Ok(vec![Sync { bytes: 4096, writes: 9, median_us, p99_us: 1, max_us: 1 }]);
    found(|c| c.probed.syncs = sync(9_000), advice, "sync of 4 KiB", "within 2 ms");
    found(|c| c.probed.syncs = sync(2), advice, "sync of 4 KiB", "no disk is as quick");
}

#[test]
fn a_governor_that_saves_power_is_set_to_perform() {
    let folder = "sys/devices/system/cpu/cpu1/cpufreq";
    found(
        |c| {
            c.file("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n");
            c.file("sys/devices/system/cpu/cpu1/cpufreq/scaling_available_governors", "performance powersave\n");
        },
        Level::Advice,
        "governor",
        &format!("echo performance > /{folder}/scaling_governor"),
    );
}

/// Interrupts, RPS and XPS of the same host for other plans.
#[test]
fn the_nic_is_set_for_the_cores_there_are() {
    let changes = |change: &dyn Fn(&mut Case)| {
        let mut case = sound();
        change(&mut case);
        let commands = |finding: Finding| finding.changes.iter().map(|change| change.command()).collect::<Vec<_>>();
        case.examine().into_iter().filter(|finding| finding.area == "network").flat_map(commands).collect::<Vec<_>>()
    };
    // One worker: packets are taken in beside it, and all queues send for it.
    assert_eq!(
        changes(&|c| c.config.cpus = vec![1]),
        ["echo 0 > /proc/irq/41/smp_affinity_list", "echo 2 > /sys/class/net/eth0/queues/tx-0/xps_cpus"]
    );
    // Four workers, two queues: the kernel spreads what the NIC does not.
    let four = |c: &mut Case| {
        c.machine.cpus = vec![0, 1, 2, 3];
        c.config.cpus = vec![0, 1, 2, 3];
    };
    assert_eq!(
        changes(&four),
        [
            "echo f > /sys/class/net/eth0/queues/rx-0/rps_cpus",
            "echo f > /sys/class/net/eth0/queues/rx-1/rps_cpus",
            "echo 5 > /sys/class/net/eth0/queues/tx-0/xps_cpus",
            "echo a > /sys/class/net/eth0/queues/tx-1/xps_cpus"
        ]
    );
    // What nobody named is not changed.
    assert!(changes(&|c| (c.config.tuning.nic, c.config.cpus) = (String::new(), vec![1])).is_empty());
}

#[test]
fn more_queues_are_asked_for_where_the_nic_could_run_them() {
    let answer = NicAnswer { channels: Some(Channels { receive: 2, receive_max: 3 }), indirection: Some(128) };
    let mut case = sound();
    (case.machine.cpus, case.config.cpus) = (vec![0, 1, 2, 3], vec![0, 1, 2, 3]);
    case.probed.nics = vec![("eth0".to_owned(), answer)];
    let findings = case.examine();
    let queues = findings.iter().find(|finding| finding.name == "eth0 queues").unwrap();
    assert_eq!(queues.wanted.as_deref(), Some("ethtool -L eth0 combined 3"));
    assert!(queues.found.contains("2 to receive of 3") && queues.found.contains("table of 128"), "{queues:?}");
}

#[test]
fn workers_that_share_a_core_are_moved_where_there_are_cores() {
    let mut case = sound();
    case.machine.cpus = vec![0, 1, 2, 3];
    for (cpu, threads) in [(0, "0-1\n"), (1, "0-1\n"), (2, "2-3\n"), (3, "2-3\n")] {
        let path: &'static str =
            Box::leak(format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").into_boxed_str());
        case.file(path, threads);
    }
    let of = |case: &Case| case.examine().into_iter().find(|finding| finding.name == "threads of a core").unwrap();
    assert_eq!(of(&case).wanted.as_deref(), Some("--cpus 0,2"));
    case.config.cpus = vec![0, 2];
    assert_eq!(of(&case).level, Level::Ok);
    (case.machine.cpus, case.config.cpus) = (vec![0, 1], vec![0, 1]);
    assert_eq!(of(&case).level, Level::Ok, "there are no others");
}

/// What is applied is found to be well, and the ways back lead back.
#[test]
fn what_is_applied_is_set_and_can_be_put_back() {
    let mut case = sound();
    case.file("proc/sys/net/core/somaxconn", "128\n");
    case.file("proc/irq/41/smp_affinity_list", "0-1\n");
    case.file("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000003\n");
    let (_folder, root) = tree(&case.files);
    let look = || examine(&root, &case.config, &case.machine, &case.probed);
    let applied = apply(&root, &look());
    let undone: Vec<&str> = applied.iter().map(|one| one.undo.as_str()).collect();
    assert_eq!(
        undone,
        [
            "echo 128 > /proc/sys/net/core/somaxconn",
            "echo 0-1 > /proc/irq/41/smp_affinity_list",
            "echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus"
        ]
    );
    assert_eq!(root.text("proc/irq/41/smp_affinity_list").unwrap(), "1");
    assert!(applied.iter().all(|one| one.error.is_none()));
    assert!(look().iter().all(|finding| finding.level == Level::Ok), "{:#?}", look());
    assert!(apply(&root, &look()).is_empty(), "nothing is left to set");
}

/// Interrupts are kept off workers' CPUs: where none is pinned, there are no such.
#[test]
fn an_edge_whose_workers_are_not_pinned_is_not_told_where_interrupts_go() {
    let mut case = sound();
    case.config.cpus = Vec::new();
    case.file("proc/irq/41/smp_affinity_list", "0-1\n");
    case.file("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000003\n");
    let of_nic = |case: &Case| {
        let of = |finding: &Finding| finding.name == "eth0 interrupts" || finding.name == "eth0 RPS";
        case.examine().into_iter().filter(of).collect::<Vec<_>>()
    };
    let findings = of_nic(&case);
    assert_eq!(findings.len(), 2, "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.level == Level::Ok && finding.changes.is_empty()), "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.why.contains("--cpus")), "{findings:#?}");
    case.file("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n");
    assert!(of_nic(&case).iter().any(|finding| finding.found.starts_with("off: ")), "{:#?}", of_nic(&case));
}

#[test]
fn a_dry_run_marks_what_apply_would_set() {
    let mut case = sound();
    case.file("proc/sys/net/core/somaxconn", "128\n");
    let text = screen::text(&case.examine(), &[], false);
    assert!(text.contains("set (or --apply): echo 4096 > /proc/sys/net/core/somaxconn"), "{text}");
    assert!(screen::text(&sound().examine(), &[], true).contains("nothing is set"));
}

#[test]
fn what_cannot_be_set_is_said() {
    let mut case = sound();
    case.file("proc/sys/net/core/somaxconn", "128\n");
    let (folder, root) = tree(&case.files);
    let findings = examine(&root, &case.config, &case.machine, &case.probed);
    std::fs::remove_dir_all(folder.path().join("proc/sys/net/core")).unwrap();
    let applied = apply(&root, &findings);
    assert!(applied[0].error.is_some());
    let text = screen::text(&findings, &applied, true);
    assert!(
        text.contains(": NOT set /proc/sys/net/core/somaxconn to \"4096\"") && text.contains("0 of 1 set"),
        "{text}"
    );
}

#[test]
fn a_directory_that_is_not_there_is_looked_for_in_its_parents() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().canonicalize().unwrap();
    assert_eq!(nearest(&there.join("a/b")), there);
    assert_eq!(nearest(&there), there);
}
