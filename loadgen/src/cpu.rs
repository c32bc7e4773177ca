//! CPU time as the kernel counts it, from `/proc`: of one thread, of a whole process, of the machine.

use std::fs;
use std::io;
use std::path::Path;

/// Nanoseconds that the calling thread has run.
pub fn of_this_thread_ns() -> u64 {
    schedstat(Path::new("/proc/thread-self/schedstat")).unwrap_or(0)
}

/// Nanoseconds that all living threads of a process have run.
pub fn of_process_ns(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        sum += schedstat(&thread?.path().join("schedstat")).unwrap_or(0);
    }
    Ok(sum)
}

/// Nanoseconds that the machine's CPUs were busy since boot, in ticks of 10 ms: all but idle, waiting for disks and stolen.
pub fn of_machine_ns() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest times are part of user.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum::<u64>();
    Ok(busy * 10_000_000)
}

fn schedstat(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_in_all_three() {
        let before = (of_this_thread_ns(), of_process_ns(std::process::id()).unwrap(), of_machine_ns().unwrap());
        let mut x = 1u64;
        while of_this_thread_ns() < before.0 + 50_000_000 {
            x = std::hint::black_box(crate::text::mix(x));
        }
        assert!(of_process_ns(std::process::id()).unwrap() >= before.1 + 40_000_000);
        assert!(of_machine_ns().unwrap() >= before.2 + 20_000_000);
    }
}
