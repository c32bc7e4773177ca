//! The machine that a proof runs on: what it is, which CPUs this process may use, who gets which.

use std::fs;

/// The machine in a line.
pub fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field =
        |name: &str| info.lines().find(|line| line.starts_with(name))?.split_once(':').map(|(_, value)| value.trim());
    let model = field("model name").unwrap_or("unknown processor");
    let cpus = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_kib: u64 = memory.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    format!("{model}, {cpus} CPUs, {} GiB of memory, Linux {}", memory_kib >> 20, kernel.trim())
}

/// The CPUs that this process may run on.
pub fn allowed() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0");
    cpus(list.trim()).unwrap_or_else(|| vec![0])
}

/// A list like 1 or 0,1 or 2-5.
pub fn cpus(text: &str) -> Option<Vec<usize>> {
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= 1024 {
            return None;
        }
        list.extend(first..=last);
    }
    Some(list)
}

/// Who gets which CPU where nobody said so: the first half serves, the rest feeds. One CPU does both.
pub fn share_out(allowed: &[usize]) -> (Vec<usize>, Vec<usize>) {
    if allowed.len() < 2 {
        return (allowed.to_vec(), allowed.to_vec());
    }
    let (server, client) = allowed.split_at(allowed.len() / 2);
    (server.to_vec(), client.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpus("0,2-4"), Some(vec![0, 2, 3, 4]));
        assert!(["", "x", "3-1", "0-4000"].iter().all(|text| cpus(text).is_none()));
        assert!(!allowed().is_empty());
    }

    #[test]
    fn of_two_cpus_one_serves_and_one_feeds() {
        assert_eq!(share_out(&[0, 1]), (vec![0], vec![1]));
        assert_eq!(share_out(&[3]), (vec![3], vec![3]));
        assert_eq!(share_out(&[0, 1, 2, 3, 4]), (vec![0, 1], vec![2, 3, 4]));
    }
}
