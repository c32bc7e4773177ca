//! Pure. What the values of a [`Config`] must satisfy together. Each value alone is bounded in `settings.rs`; here are the
//! sums over several, each with the failure that it prevents.

use crate::config::{Config, DEDUP_MEMORY_BYTES_MIN, GENERATIONS, KafkaConfig, KeepConfig, NapiMode, SinkKind};
use crate::machine::Machine;
use crate::memory;
use crate::units::{about_bytes, format_bytes, format_duration_us};

/// How far ahead of the clock event times may be, in dedup windows.
const WINDOWS_AHEAD_MAX: i64 = 6;

/// A relation between values that does not hold; the text names flags, values, the limit and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LimitError(String);

/// Checks the values against each other and against the machine.
pub fn check(config: &Config, machine: &Machine) -> Result<(), LimitError> {
    let rules: [fn(&Config, &Machine) -> Option<String>; 13] = [
        cores,
        housekeeping,
        polling,
        topics,
        addresses,
        body,
        assembly,
        segment,
        budget,
        window,
        skew,
        keep,
        memory_sum,
    ];
    rules.iter().find_map(|rule| rule(config, machine)).map_or(Ok(()), |why| Err(LimitError(why)))
}

fn cores(config: &Config, machine: &Machine) -> Option<String> {
    let cpus = &config.cpus;
    if let Some(cpu) = cpus.iter().find(|cpu| !machine.cpus.contains(cpu)) {
        return Some(format!(
            "--cpus: CPU {cpu} is not among those this process may use, {:?}; see taskset",
            machine.cpus
        ));
    }
    let least = u64::from(config.cores()) * DEDUP_MEMORY_BYTES_MIN;
    (config.dedup.memory_bytes < least).then(|| {
        format!(
            "--dedup-memory-bytes {} is below {} for each of {} cores, {}; raise it, or take fewer cores",
            format_bytes(config.dedup.memory_bytes),
            format_bytes(DEDUP_MEMORY_BYTES_MIN),
            config.cores(),
            format_bytes(least),
        )
    })
}

/// A worker that shares its CPU waits for the rest of another thread's time slice.
fn housekeeping(config: &Config, machine: &Machine) -> Option<String> {
    let cpus = &config.tuning.housekeeping_cpus;
    if !cpus.is_empty() && config.cpus.is_empty() {
        return Some(
            "--housekeeping-cpus keeps other threads off the workers' CPUs: say --cpus or --cores too".to_owned(),
        );
    }
    if let Some(cpu) = cpus.iter().find(|cpu| config.cpus.contains(cpu)) {
        return Some(format!(
            "--housekeeping-cpus: CPU {cpu} is a worker's ({:?}); name others, or leave it out",
            config.cpus
        ));
    }
    cpus.iter().find(|cpu| !machine.cpus.contains(cpu)).map(|cpu| {
        format!(
            "--housekeeping-cpus: CPU {cpu} is not among those this process may use, {:?}; see taskset",
            machine.cpus
        )
    })
}

fn polling(config: &Config, _: &Machine) -> Option<String> {
    let (napi, busy_poll_us) = (config.ring.napi, config.ring.busy_poll_us);
    (napi != NapiMode::Off && busy_poll_us == 0)
        .then(|| format!("--napi {}: say how long with --busy-poll-us, such as 50", napi.name()))
}

fn keep(config: &Config, _: &Machine) -> Option<String> {
    coarser_is_kept_as_long(&config.keep)
}

/// What is pruned is asked of the next coarser grain.
pub fn coarser_is_kept_as_long(keep: &KeepConfig) -> Option<String> {
    let shown = |ms: i64| format_duration_us(ms.unsigned_abs() * 1_000);
    let named = [
        ("--keep-panes", keep.panes_ms, "--keep-minutes", keep.minutes_ms),
        ("--keep-minutes", keep.minutes_ms, "--keep-hours", keep.hours_ms),
    ];
    named.into_iter().find(|(_, finer_ms, _, coarser_ms)| finer_ms > coarser_ms).map(|(finer, ms, coarser, coarser_ms)| {
        format!(
            "{coarser} {} is below {finer} {}: the coarser must be kept as long as the finer; raise it, or lower {finer}",
            shown(coarser_ms),
            shown(ms)
        )
    })
}

/// With the embedded store they name nothing.
fn topics(config: &Config, _: &Machine) -> Option<String> {
    match config.export.sink {
        SinkKind::Kafka => one_topic_each(&config.export.kafka),
        SinkKind::Embedded => None,
    }
}

/// Checkpoints are compacted and partials must not be; a reader of either knows no raw clicks.
pub fn one_topic_each(kafka: &KafkaConfig) -> Option<String> {
    let named = [
        ("--kafka-topic-partials", &kafka.topic_partials),
        ("--kafka-topic-checkpoints", &kafka.topic_checkpoints),
        ("--raw-topic", &kafka.topic_raw),
    ];
    let twice = |(at, (_, topic)): &(usize, &(&str, &String))| {
        !topic.is_empty() && named[..*at].iter().any(|(_, other)| other == topic)
    };
    let (at, (flag, topic)) = named.iter().enumerate().find(twice)?;
    let (other, _) = named[..at].iter().find(|(_, other)| other == topic)?;
    Some(format!("{flag} {topic:?}: {other} has the same topic; give each its own"))
}

/// Port 0 asks for any free port, so two of those never collide.
fn addresses(config: &Config, _: &Machine) -> Option<String> {
    let named =
        [("--listen", config.listen), ("--query-listen", config.query_listen), ("--admin-listen", config.admin_listen)];
    for (at, (name, address)) in named.iter().enumerate() {
        if let Some((other, _)) = named[..at].iter().find(|(_, earlier)| earlier == address && address.port() != 0) {
            return Some(format!("{name} {address}: {other} has the same address; give each its own port"));
        }
    }
    None
}

fn body(config: &Config, _: &Machine) -> Option<String> {
    let http = &config.http;
    (u64::from(http.head_bytes_max) > u64::from(http.body_bytes_max)).then(|| {
        format!(
            "--head-bytes-max {} is above --body-bytes-max {}; one buffer serves both, so raise the latter",
            format_bytes(http.head_bytes_max.into()),
            format_bytes(http.body_bytes_max.into()),
        )
    })
}

/// Else one request could never be put together.
fn assembly(config: &Config, _: &Machine) -> Option<String> {
    let http = &config.http;
    let request = u64::from(http.body_bytes_max) + u64::from(http.head_bytes_max);
    (http.assembly_bytes_max < 2 * request).then(|| {
        format!(
            "--assembly-bytes-max {} is below two requests of --body-bytes-max and --head-bytes-max, {}; raise it",
            format_bytes(http.assembly_bytes_max),
            format_bytes(2 * request),
        )
    })
}

fn segment(config: &Config, _: &Machine) -> Option<String> {
    let least = 4 * u64::from(config.log.frame_bytes);
    (config.log.segment_bytes < least).then(|| {
        format!(
            "--segment-bytes {} is below four frames of --frame-bytes {}, {}; raise it",
            format_bytes(config.log.segment_bytes),
            format_bytes(config.log.frame_bytes.into()),
            format_bytes(least),
        )
    })
}

/// One segment open, one prepared, one being exported, one for the reserve; of each core.
fn budget(config: &Config, _: &Machine) -> Option<String> {
    let cores = config.cores();
    let least = config.log.segment_bytes.saturating_mul(4 * u64::from(cores));
    (config.log.wal_bytes_max < least).then(|| {
        format!(
            "--wal-bytes-max {} is below four segments of --segment-bytes {} for each of {cores} cores, {}; raise it",
            format_bytes(config.log.wal_bytes_max),
            format_bytes(config.log.segment_bytes),
            format_bytes(least),
        )
    })
}

/// Ids are forgotten at the window's end at the latest, and no watermark may wait for clicks that are refused anyway.
fn window(config: &Config, _: &Machine) -> Option<String> {
    let (window, least) = (config.dedup.window_ms, config.dedup.window_min_ms);
    let shown = |ms: i64| format_duration_us(ms.unsigned_abs() * 1000);
    if window < least {
        return Some(format!(
            "--dedup-window {} is below --dedup-window-min {}; raise it",
            shown(window),
            shown(least)
        ));
    }
    let generation_ms = window / GENERATIONS;
    (config.export.watermark_delay_ms > window).then(|| {
        format!(
            "--watermark-delay {} is above --dedup-window {} (generations of {}): clicks older than the window are refused",
            shown(config.export.watermark_delay_ms),
            shown(window),
            shown(generation_ms),
        )
    })
}

/// Ids can be told apart in 128 generations, 8 windows: one for what is behind the clock, and some to spare. What is further
/// ahead could not be remembered, and would be shed for ever.
fn skew(config: &Config, _: &Machine) -> Option<String> {
    let (skew, window) = (config.click.clock_skew_ms, config.dedup.window_ms);
    let shown = |ms: i64| format_duration_us(ms.unsigned_abs() * 1000);
    (skew > WINDOWS_AHEAD_MAX * window).then(|| {
        format!(
            "--clock-skew {} is above {WINDOWS_AHEAD_MAX} times --dedup-window {}; lower the first or raise the second",
            shown(skew),
            shown(window)
        )
    })
}

fn memory_sum(config: &Config, machine: &Machine) -> Option<String> {
    let lines = memory::lines(config);
    let sum = memory::sum_bytes(&lines);
    (sum > machine.memory_bytes).then(|| {
        let largest = lines.into_iter().max_by_key(|line| line.bytes).map_or("", |line| line.name);
        format!(
            "the values add up to {} of memory, this machine (or cgroup) grants {}; most goes to: {largest}. `tollgate check` \
             shows the sum",
            about_bytes(sum),
            about_bytes(machine.memory_bytes),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine { cpus: vec![0, 1], cpu_quota: None, memory_bytes: 2 << 30 }
    }

    /// Changes one thing of a good configuration and says what the refusal must name.
    fn refused(change: fn(&mut Config), names: &[&str]) {
        let mut config = Config::default();
        assert_eq!(check(&config, &machine()), Ok(()));
        change(&mut config);
        let text = check(&config, &machine()).expect_err("refused").to_string();
        assert!(names.iter().all(|name| text.contains(name)), "{names:?} not all in: {text}");
        assert!(!text.contains('\n'));
    }

    #[test]
    fn each_relation_is_held() {
        refused(
            |c| (c.cpus, c.dedup.memory_bytes) = (vec![0, 1], 12 << 20),
            &["--dedup-memory-bytes 12MiB", "2 cores", "16MiB"],
        );
        refused(
            |c| (c.cpus, c.log.wal_bytes_max) = (vec![0, 1], 640 << 20),
            &["--wal-bytes-max 640MiB", "2 cores", "1GiB"],
        );
        refused(|c| c.cpus = vec![7], &["CPU 7", "[0, 1]"]);
        refused(|c| c.query_listen = c.listen, &["--query-listen", "--listen", "8080"]);
        refused(|c| c.http.body_bytes_max = 4096, &["--head-bytes-max 8KiB", "4KiB"]);
        refused(|c| c.http.assembly_bytes_max = 1 << 20, &["--assembly-bytes-max 1MiB"]);
        refused(|c| c.log.segment_bytes = 512 << 10, &["--segment-bytes 512KiB", "1MiB"]);
        refused(|c| c.log.wal_bytes_max = 256 << 20, &["--wal-bytes-max 256MiB", "512MiB"]);
        refused(|c| c.dedup.window_ms = 30_000, &["--dedup-window 30s", "1m"]);
        refused(|c| c.keep.panes_ms = 7_776_000_001, &["--keep-minutes 90d", "--keep-panes", "as long as"]);
        refused(|c| c.keep.minutes_ms = 86_400_000, &["--keep-minutes 1d", "--keep-panes 2d"]);
        refused(|c| c.keep.hours_ms = 86_400_000, &["--keep-hours 1d", "--keep-minutes 90d"]);
        refused(|c| c.export.watermark_delay_ms = 700_000, &["--watermark-delay 700s", "10m"]);
        refused(|c| c.click.clock_skew_ms = 3_600_001, &["--clock-skew", "6 times", "--dedup-window 10m"]);
        refused(|c| c.dedup.memory_bytes = 3 << 30, &["4.", "2.0 GiB", "dedup table"]);
    }

    #[test]
    fn port_zero_never_collides() {
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config { listen: any, query_listen: any, admin_listen: any, ..Config::default() };
        assert_eq!(check(&config, &machine()), Ok(()));
    }
}
