//! What the host grants this process: CPUs by affinity and quota, memory by RAM and cgroup. Read once at start from
//! `/proc` and `/sys`; defaults and bounds follow from it. What cannot be read is taken as not limited.

use std::fs;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// CPUs of the affinity mask, ascending.
    pub cpus: Vec<usize>,
    /// CPU time a second that the cgroup grants; `None` where it sets no quota.
    pub cpu_quota: Option<f64>,
    /// The lesser of RAM and the cgroup's limit.
    pub memory_bytes: u64,
}

impl Machine {
    /// This host, as the process sees it now.
    pub fn read() -> Machine {
        Machine::read_under(Path::new("/"))
    }

    fn read_under(root: &Path) -> Machine {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let cpus = field(&text("proc/self/status"), "Cpus_allowed_list:").and_then(|list| parse_cpu_list(&list));
        let kib = field(&text("proc/meminfo"), "MemTotal:").and_then(|v| v.strip_suffix(" kB")?.parse::<u64>().ok());
        let ram = kib.map_or(u64::MAX, |kib| kib * 1024);
        let groups = cgroups(root, &text("proc/self/cgroup"));
        let limits = groups.iter().flat_map(|dir| {
            ["memory.max", "memory.limit_in_bytes"].map(|name| fs::read_to_string(dir.join(name)).unwrap_or_default())
        });
        let memory_bytes = limits.filter_map(|text| text.trim().parse::<u64>().ok()).fold(ram, u64::min);
        let quotas = groups.iter().filter_map(|dir| parse_quota(&fs::read_to_string(dir.join("cpu.max")).ok()?));
        let cpu_quota = quotas.reduce(f64::min);
        Machine { cpus: cpus.unwrap_or_else(|| vec![0]), cpu_quota, memory_bytes }
    }
}

/// `0-3,8` as 0, 1, 2, 3, 8. `None` where it is no such list, is empty or descends.
pub fn parse_cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus: Vec<usize> = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        if last < first || last >= 4096 || cpus.last().is_some_and(|cpu| *cpu >= first) {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Every cgroup this process is in, up to the root: each may limit it.
fn cgroups(root: &Path, self_cgroup: &str) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for line in self_cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let mount = match controllers {
            "" => root.join("sys/fs/cgroup"),
            list if list.split(',').any(|name| name == "memory") => root.join("sys/fs/cgroup/memory"),
            _ => continue,
        };
        for up in Path::new(path.trim_start_matches('/')).ancestors() {
            dirs.push(mount.join(up));
        }
    }
    dirs
}

/// `150000 100000` (µs granted, µs of the period) as 1.5; `max 100000` as none.
fn parse_quota(text: &str) -> Option<f64> {
    let (granted, period) = text.trim().split_once(' ')?;
    let (granted, period) = (granted.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
    (period > 0.0).then(|| granted / period)
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_tightest_cgroup_on_the_way_up_limits() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "proc/self/status", "Name:\tx\nCpus_allowed_list:\t2-3\n");
        write(root, "proc/meminfo", "MemTotal:       16000000 kB\n");
        write(root, "proc/self/cgroup", "0::/a/b\n");
        write(root, "sys/fs/cgroup/a/memory.max", "1048576\n");
        write(root, "sys/fs/cgroup/a/b/memory.max", "max\n");
        write(root, "sys/fs/cgroup/a/b/cpu.max", "150000 100000\n");
        let machine = Machine::read_under(root);
        assert_eq!(machine, Machine { cpus: vec![2, 3], cpu_quota: Some(1.5), memory_bytes: 1 << 20 });
    }

    #[test]
    fn a_version_one_cgroup_limits_too() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "proc/meminfo", "MemTotal: 4 kB\n");
        write(root.path(), "proc/self/cgroup", "5:cpu:/x\n3:memory:/y\n");
        write(root.path(), "sys/fs/cgroup/memory/y/memory.limit_in_bytes", "2048\n");
        assert_eq!(Machine::read_under(root.path()).memory_bytes, 2048);
    }

    #[test]
    fn nothing_readable_limits_nothing() {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::read_under(root.path());
        assert_eq!(machine, Machine { cpus: vec![0], cpu_quota: None, memory_bytes: u64::MAX });
    }

    #[test]
    fn this_host_has_a_cpu_and_memory() {
        let machine = Machine::read();
        assert!(!machine.cpus.is_empty());
        assert!(machine.memory_bytes > 64 << 20);
    }

    #[test]
    fn cpu_lists() {
        for (text, want) in [
            ("0", Some(vec![0])),
            ("0-2,5", Some(vec![0, 1, 2, 5])),
            ("", None),
            ("3-1", None),
            ("1,1", None),
            ("a", None),
            ("0-99999", None),
        ] {
            assert_eq!(parse_cpu_list(text), want, "{text}");
        }
    }
}
