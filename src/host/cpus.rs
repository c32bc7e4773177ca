//! The CPUs: which there are, which share a core, how fast they are let run, what guards them, and the clock they read.

use super::Root;
use crate::machine::parse_cpu_list;

/// The governor of one CPU's frequency, and where it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Governor {
    pub path: String,
    pub name: String,
    pub has_performance: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockSource {
    pub current: String,
    pub available: Vec<String>,
}

pub fn online(root: &Root) -> Vec<usize> {
    root.text("sys/devices/system/cpu/online").and_then(|list| parse_cpu_list(&list)).unwrap_or_default()
}

/// Those that the scheduler leaves alone (`isolcpus`).
pub fn isolated(root: &Root) -> Vec<usize> {
    root.text("sys/devices/system/cpu/isolated").and_then(|list| parse_cpu_list(&list)).unwrap_or_default()
}

/// The threads of the core that a CPU is one of, itself among them.
pub fn siblings(root: &Root, cpu: usize) -> Vec<usize> {
    let list = root.text(&format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"));
    list.and_then(|list| parse_cpu_list(&list)).unwrap_or_else(|| vec![cpu])
}

/// `None`: the frequency is not the kernel's to set, as in most guests.
pub fn governor(root: &Root, cpu: usize) -> Option<Governor> {
    let folder = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq");
    let path = format!("{folder}/scaling_governor");
    let name = root.text(&path)?;
    let available = root.text(&format!("{folder}/scaling_available_governors")).unwrap_or_default();
    Some(Governor { path, name, has_performance: available.split_whitespace().any(|one| one == "performance") })
}

pub fn clock_source(root: &Root) -> Option<ClockSource> {
    let folder = "sys/devices/system/clocksource/clocksource0";
    let available = root.text(&format!("{folder}/available_clocksource")).unwrap_or_default();
    Some(ClockSource {
        current: root.text(&format!("{folder}/current_clocksource"))?,
        available: available.split_whitespace().map(str::to_owned).collect(),
    })
}

/// Flaws of these CPUs, and what the kernel does about each.
pub fn vulnerabilities(root: &Root) -> Vec<(String, String)> {
    let folder = "sys/devices/system/cpu/vulnerabilities";
    let state = |name: String| Some((name.clone(), root.text(&format!("{folder}/{name}"))?));
    root.names(folder).into_iter().filter_map(state).filter(|(_, state)| state != "Not affected").collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::tree;
    use super::*;

    #[test]
    fn a_host_with_threads_governors_and_flaws() {
        let (_folder, root) = tree(&[
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("sys/devices/system/cpu/isolated", "2-3\n"),
            ("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "1,3\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_available_governors", "performance powersave\n"),
            ("sys/devices/system/cpu/vulnerabilities/meltdown", "Not affected\n"),
            ("sys/devices/system/cpu/vulnerabilities/retbleed", "Mitigation: IBRS\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
            ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet \n"),
        ]);
        assert_eq!((online(&root), isolated(&root)), (vec![0, 1, 2, 3], vec![2, 3]));
        assert_eq!((siblings(&root, 1), siblings(&root, 0)), (vec![1, 3], vec![0]));
        let governor = governor(&root, 1).unwrap();
        assert!(governor.name == "powersave" && governor.has_performance, "{governor:?}");
        assert_eq!(vulnerabilities(&root), [("retbleed".to_owned(), "Mitigation: IBRS".to_owned())]);
        let clock = clock_source(&root).unwrap();
        assert_eq!((clock.current.as_str(), clock.available), ("hpet", vec!["tsc".to_owned(), "hpet".to_owned()]));
    }

    #[test]
    fn what_is_not_shown_is_not_guessed() {
        let (_folder, root) = tree(&[("sys/devices/system/cpu/isolated", "\n")]);
        assert!(online(&root).is_empty() && isolated(&root).is_empty() && vulnerabilities(&root).is_empty());
        assert_eq!((governor(&root, 0), clock_source(&root)), (None, None));
    }
}
