//! Pure. How far apart cuts are. Each cut costs the exporter something for every row, whatever the clicks in it; where that is
//! much beside what the worker does, cuts are made rarer, up to ten times, and denser again when it no longer is.

/// Cuts become rarer while the exporter uses more than one part in so many, 5 %, of the workers' CPU, and of the time that
/// passed: where the workers have time to spare, counts are not shown later to save a little of it.
const SHARE: u64 = 20;
/// They become denser again below half of that: a denser cut may cost twice as much.
const BACK: u64 = 2;

const INTERVAL_MS_MAX: u64 = 10_000;
/// Less is not judged: a transaction or two may be an exception.
const JUDGED_INTERVALS: u64 = 2;

/// CPU and time since the interval was judged last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    pub export_cpu_ns: u64,
    pub worker_cpu_ns: u64,
    pub elapsed_ns: u64,
}

/// The interval to go on with. `base_ms` is `--export-interval`.
pub fn next_interval_ms(interval_ms: u64, base_ms: u64, spent: Spent) -> u64 {
    let Spent { export_cpu_ns, worker_cpu_ns, elapsed_ns } = spent;
    let above = |cpu_ns: u64| cpu_ns * SHARE > worker_cpu_ns.max(elapsed_ns);
    let most_ms = (base_ms * 10).min(INTERVAL_MS_MAX).max(base_ms);
    if above(export_cpu_ns) {
        (interval_ms * 2).min(most_ms)
    } else if above(export_cpu_ns * BACK) {
        interval_ms
    } else {
        (interval_ms / 2).max(base_ms)
    }
}

/// Follows the two counters of CPU time.
#[derive(Clone, Copy, Debug)]
pub struct Pacing {
    base_ms: u64,
    interval_ms: u64,
    judged: Spent,
}

impl Pacing {
    pub fn new(base_ms: u64) -> Pacing {
        Pacing { base_ms, interval_ms: base_ms, judged: Spent { export_cpu_ns: 0, worker_cpu_ns: 0, elapsed_ns: 0 } }
    }

    /// After a transaction: what both threads have used so far, and the time. The interval, where it changes.
    pub fn measured(&mut self, export_cpu_ns: u64, worker_cpu_ns: u64, mono_ns: u64) -> Option<u64> {
        let last = self.judged;
        let spent = Spent {
            export_cpu_ns: export_cpu_ns.saturating_sub(last.export_cpu_ns),
            worker_cpu_ns: worker_cpu_ns.saturating_sub(last.worker_cpu_ns),
            elapsed_ns: mono_ns.saturating_sub(last.elapsed_ns),
        };
        if spent.elapsed_ns < JUDGED_INTERVALS * self.interval_ms * 1_000_000 {
            return None;
        }
        self.judged = Spent { export_cpu_ns, worker_cpu_ns, elapsed_ns: mono_ns };
        let next_ms = next_interval_ms(self.interval_ms, self.base_ms, spent);
        (std::mem::replace(&mut self.interval_ms, next_ms) != next_ms).then_some(next_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn cuts_become_rarer_over_five_percent_of_the_worker_and_denser_below_half_of_it() {
        // CPU of exporter and worker in percent of the time, interval before and after.
        for (export, worker, before, after) in [
            (6, 100, 1_000, 2_000),
            (6, 100, 8_000, 10_000),
            (6, 100, 10_000, 10_000),
            (5, 100, 2_000, 2_000),
            (3, 100, 2_000, 2_000),
            (2, 100, 8_000, 4_000),
            (2, 100, 1_500, 1_000),
            (0, 0, 1_000, 1_000),
            (6, 50, 1_000, 2_000),
            // Much beside workers that have time to spare, and little all the same.
            (4, 20, 1_000, 1_000),
            (2, 1, 4_000, 2_000),
            // Several workers.
            (9, 200, 1_000, 1_000),
            (11, 200, 1_000, 2_000),
        ] {
            let percent = |of: u64| of * SECOND / 100;
            let spent = Spent { export_cpu_ns: percent(export), worker_cpu_ns: percent(worker), elapsed_ns: SECOND };
            assert_eq!(next_interval_ms(before, 1_000, spent), after, "{export} % beside {worker} % at {before} ms");
        }
    }

    #[test]
    fn the_interval_stays_between_its_base_and_ten_times_that_or_ten_seconds() {
        let much = Spent { export_cpu_ns: SECOND, worker_cpu_ns: SECOND, elapsed_ns: SECOND };
        for (base_ms, most_ms) in [(100, 1_000), (1_000, 10_000), (5_000, 10_000), (60_000, 60_000)] {
            let mut interval_ms = base_ms;
            (0..20).for_each(|_| interval_ms = next_interval_ms(interval_ms, base_ms, much));
            assert_eq!(interval_ms, most_ms);
            let none = Spent { export_cpu_ns: 0, ..much };
            (0..20).for_each(|_| interval_ms = next_interval_ms(interval_ms, base_ms, none));
            assert_eq!(interval_ms, base_ms);
        }
    }

    #[test]
    fn a_change_is_told_once_and_judged_over_whole_intervals() {
        let mut pacing = Pacing::new(1_000);
        assert_eq!(pacing.measured(SECOND, SECOND, SECOND), None, "too soon");
        assert_eq!(pacing.measured(SECOND, 2 * SECOND, 2 * SECOND), Some(2_000));
        assert_eq!(pacing.measured(SECOND, 4 * SECOND, 4 * SECOND), None);
        assert_eq!(pacing.measured(SECOND, 6 * SECOND, 6 * SECOND), Some(1_000));
        assert_eq!(pacing.measured(SECOND, 8 * SECOND, 8 * SECOND), None);
    }
}
