//! `tollgate check`: what a configuration comes to, without starting anything. Every value in force and where it is from,
//! the memory they add up to, what the dedup window can hold and what limits it, seconds to ready after a kill.

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::{Config, DEDUP_BYTES_PER_KEY, RECORD_BYTES_TYPICAL, RECOVERY_CLICKS_PER_SECOND};
use crate::exit::Exit;
use crate::flags::{Loaded, Role};
use crate::machine::Machine;
use crate::memory;
use crate::say;
use crate::units::about_bytes;

/// Click rates that the report says how long ids are remembered at.
const RATES: [u64; 6] = [1_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];

/// Memory for remembered keys that a start touches in a second. A guest whose host has to find it first was seen at that, and at half
/// of it beside others that kept both CPUs busy; a host with free memory of its own is some times as fast.
const MEMORY_TOUCHED_BYTES_PER_SECOND: u64 = 200 << 20;

/// What a start takes at most, memory and log aside.
const START_SECONDS: f64 = 1.0;

/// What ends the span of remembered ids at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitedBy {
    /// `--dedup-window`: as long as was asked for.
    Window,
    /// `--dedup-memory-bytes`: the oldest ids are forgotten early.
    Memory,
    /// `--wal-bytes-max`: what is deleted from the log cannot be remembered over a restart.
    Log,
}

/// The ids that fit, and the rate at which the whole window does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Capacity {
    /// Ids that `--dedup-memory-bytes` holds.
    pub keys_in_memory: u64,
    /// Typical click records that `--wal-bytes-max` holds beside the next segment and the two that are its reserve.
    pub clicks_in_log: u64,
    /// Up to this many clicks a second every id is remembered for all of `--dedup-window`.
    pub clicks_per_second_for_window: u64,
    /// Up to this many for `--dedup-window-min`; beyond it clicks are shed.
    pub clicks_per_second_for_window_min: u64,
    /// What limits beyond the first of these rates.
    pub limited_by: LimitedBy,
    /// After a kill at any rate that is not shed: the sum of the two below and of what a start takes anyway.
    pub seconds_to_ready: f64,
    /// Touching the memory for remembered ids.
    pub seconds_to_take_memory: f64,
    /// Reading back the clicks that window and retention keep in the log.
    pub seconds_to_read_back: f64,
}

/// How long ids are remembered at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Held {
    pub clicks_per_second: u64,
    pub seconds: u64,
    pub limited_by: LimitedBy,
    /// Below `--dedup-window-min`: the edge sheds the clicks above its rate.
    pub sheds: bool,
}

#[derive(Serialize)]
struct Value {
    name: &'static str,
    value: String,
    source: &'static str,
}

#[derive(Serialize)]
struct Memory {
    name: &'static str,
    bytes: u64,
    sum: String,
}

#[derive(Serialize)]
struct Report {
    command: &'static str,
    values: Vec<Value>,
    memory: Vec<Memory>,
    memory_bytes: u64,
    machine_memory_bytes: u64,
    machine_cpus: Vec<usize>,
    machine_cpu_quota: Option<f64>,
    dedup: Capacity,
    held: Vec<Held>,
}

/// Prints the report to standard output.
pub fn run(loaded: &Loaded, role: Role, machine: &Machine, json: bool) -> Exit {
    let report = Report::new(loaded, role, machine);
    let text = if json {
        serde_json::to_string_pretty(&report).expect("the report holds nothing that JSON cannot say") + "\n"
    } else {
        report.text()
    };
    say::out(text);
    Exit::Clean
}

impl Capacity {
    pub fn of(config: &Config) -> Capacity {
        let keys_in_memory = config.dedup.memory_bytes / DEDUP_BYTES_PER_KEY;
        let clicks_in_log = (config.log.wal_bytes_max - 3 * config.log.segment_bytes) / RECORD_BYTES_TYPICAL;
        let clicks = keys_in_memory.min(clicks_in_log);
        let a_second = |window_ms: i64| clicks.saturating_mul(1000) / window_ms.unsigned_abs();
        let retained =
            a_second(config.dedup.window_min_ms).saturating_mul(config.log.retention_ms.unsigned_abs()) / 1000;
        let read_back = clicks.max(retained.min(clicks_in_log));
        let memory_bytes = config.dedup_mapping_bytes_a_core() * u64::from(config.cores());
        let seconds_to_take_memory = memory_bytes as f64 / MEMORY_TOUCHED_BYTES_PER_SECOND as f64;
        let seconds_to_read_back = read_back as f64 / RECOVERY_CLICKS_PER_SECOND as f64;
        Capacity {
            keys_in_memory,
            clicks_in_log,
            clicks_per_second_for_window: a_second(config.dedup.window_ms),
            clicks_per_second_for_window_min: a_second(config.dedup.window_min_ms),
            limited_by: if keys_in_memory <= clicks_in_log { LimitedBy::Memory } else { LimitedBy::Log },
            seconds_to_ready: START_SECONDS + seconds_to_take_memory + seconds_to_read_back,
            seconds_to_take_memory,
            seconds_to_read_back,
        }
    }

    pub fn held(&self, config: &Config, clicks_per_second: u64) -> Held {
        let window = config.dedup.window_ms.unsigned_abs() / 1000;
        let (memory, log) = (self.keys_in_memory / clicks_per_second, self.clicks_in_log / clicks_per_second);
        let seconds = window.min(memory).min(log);
        let limited_by = match seconds {
            _ if seconds == window => LimitedBy::Window,
            _ if seconds == memory => LimitedBy::Memory,
            _ => LimitedBy::Log,
        };
        let sheds = clicks_per_second > self.clicks_per_second_for_window_min;
        Held { clicks_per_second, seconds, limited_by, sheds }
    }
}

impl Report {
    fn new(loaded: &Loaded, role: Role, machine: &Machine) -> Report {
        let config = &loaded.config;
        let value = |(setting, source): &(&'static crate::settings::Setting, crate::flags::Source)| Value {
            name: setting.name,
            value: setting.show(config),
            source: source.name(),
        };
        let dedup = Capacity::of(config);
        let memory = memory::lines(config);
        let memory_bytes = memory::sum_bytes(&memory);
        let memory = memory.into_iter();
        Report {
            command: match role {
                Role::Up | Role::Demo => "up",
                Role::Serve => "serve",
            },
            values: loaded.sources.iter().map(value).collect(),
            memory: memory.map(|line| Memory { name: line.name, bytes: line.bytes, sum: line.sum }).collect(),
            memory_bytes,
            machine_memory_bytes: machine.memory_bytes,
            machine_cpus: machine.cpus.clone(),
            machine_cpu_quota: machine.cpu_quota,
            dedup,
            held: RATES.iter().map(|rate| dedup.held(config, *rate)).collect(),
        }
    }

    fn text(&self) -> String {
        let mut out = format!("configuration for `tollgate {}`: good\n\nvalues in force\n", self.command);
        for Value { name, value, source } in &self.values {
            let value = if value.is_empty() { "-" } else { value };
            line(&mut out, format_args!("  {name:<24} {value:<28} {source}"));
        }
        out.push_str("\nmemory\n");
        for Memory { name, bytes, sum } in &self.memory {
            line(&mut out, format_args!("  {name:<24} {:>10}   {sum}", about_bytes(*bytes)));
        }
        let (sum, granted) = (about_bytes(self.memory_bytes), about_bytes(self.machine_memory_bytes));
        line(&mut out, format_args!("  {:<24} {sum:>10}   of {granted} that this machine grants", "sum"));
        self.write_dedup(&mut out);
        self.write_ready(&mut out);
        out
    }

    fn write_ready(&self, out: &mut String) {
        let Capacity { seconds_to_ready, seconds_to_take_memory, seconds_to_read_back, .. } = self.dedup;
        let (pace, clicks) = (about_bytes(MEMORY_TOUCHED_BYTES_PER_SECOND), grouped(RECOVERY_CLICKS_PER_SECOND));
        line(out, format_args!("\nready after a kill: within {seconds_to_ready:.1} s"));
        line(out, format_args!("  {START_SECONDS:>6.1} s   the start itself"));
        line(
            out,
            format_args!(
                "  {seconds_to_take_memory:>6.1} s   memory for ids is touched, where the host gives {pace} a second"
            ),
        );
        line(
            out,
            format_args!(
                "  {seconds_to_read_back:>6.1} s   the log is read back, at {clicks} clicks a second at least"
            ),
        );
    }

    fn write_dedup(&self, out: &mut String) {
        let dedup = &self.dedup;
        let (what, flag) = match dedup.limited_by {
            LimitedBy::Memory => ("memory limits", "--dedup-memory-bytes"),
            LimitedBy::Log => ("the log's bytes limit", "--wal-bytes-max"),
            LimitedBy::Window => ("the window limits", "--dedup-window"),
        };
        out.push_str("\ndedup window\n");
        let (keys, clicks) = (grouped(dedup.keys_in_memory), grouped(dedup.clicks_in_log));
        line(out, format_args!("  memory holds {keys} ids of {DEDUP_BYTES_PER_KEY} B"));
        line(out, format_args!("  the log holds {clicks} clicks of {RECORD_BYTES_TYPICAL} B, as is typical"));
        let (whole, least) =
            (grouped(dedup.clicks_per_second_for_window), grouped(dedup.clicks_per_second_for_window_min));
        line(out, format_args!("  the whole window is held up to {whole} clicks/s; beyond, {what} it ({flag})"));
        line(out, format_args!("  clicks are shed beyond {least} clicks/s, where --dedup-window-min no longer fits"));
        for held in &self.held {
            let by = match held.limited_by {
                LimitedBy::Window => "the whole window",
                LimitedBy::Memory => "limited by memory",
                LimitedBy::Log => "limited by the log's bytes",
            };
            let sheds = if held.sheds { "; sheds" } else { "" };
            let rate = grouped(held.clicks_per_second);
            line(out, format_args!("  at {rate:>9} clicks/s: {:>6} s, {by}{sheds}", held.seconds));
        }
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string does not fail");
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Said, load};
    use crate::settings::SETTINGS;

    fn machine() -> Machine {
        Machine { cpus: vec![0], cpu_quota: None, memory_bytes: 8 << 30 }
    }

    fn report() -> Report {
        Report::new(&load(Role::Up, &Said::default(), &machine()).unwrap(), Role::Up, &machine())
    }

    #[test]
    fn the_window_is_held_by_what_is_short() {
        let mut config = Config::default();
        config.dedup.memory_bytes = 19 * 600_000;
        let capacity = Capacity::of(&config);
        assert_eq!(capacity.clicks_per_second_for_window, 1000);
        assert_eq!(capacity.limited_by, LimitedBy::Memory);
        let held = |rate| (capacity.held(&config, rate).seconds, capacity.held(&config, rate).limited_by);
        assert_eq!(held(1000), (600, LimitedBy::Window));
        assert_eq!(held(2000), (300, LimitedBy::Memory));
        assert!(!capacity.held(&config, 10_000).sheds && capacity.held(&config, 10_001).sheds);
    }

    #[test]
    fn what_retention_keeps_is_read_back_too() {
        let mut config = Config::default();
        config.dedup.memory_bytes = 19 * 600_000;
        assert_eq!(Capacity::of(&config).seconds_to_read_back, 0.2);
        // 10,000 a second are the most that are not shed.
        config.log.retention_ms = 300_000;
        assert_eq!(Capacity::of(&config).seconds_to_read_back, 1.0);
        config.log.retention_ms = i64::MAX;
        let capacity = Capacity::of(&config);
        assert_eq!(capacity.seconds_to_read_back, capacity.clicks_in_log as f64 / 3e6, "the log's bytes bound it");
    }

    /// The rule of `docs/OPERATING.md`.
    #[test]
    fn a_start_takes_memory_and_reads_the_log_back() {
        let mut config = Config::default();
        config.dedup.memory_bytes = 1000 << 20;
        let capacity = Capacity::of(&config);
        assert_eq!(capacity.seconds_to_take_memory, 5.0);
        assert_eq!(capacity.seconds_to_ready, 1.0 + 5.0 + capacity.seconds_to_read_back);
    }

    #[test]
    fn a_small_log_limits_too() {
        let mut config = Config::default();
        config.log.wal_bytes_max = 4 * config.log.segment_bytes;
        let capacity = Capacity::of(&config);
        assert_eq!(capacity.limited_by, LimitedBy::Log);
        let mut text = String::new();
        Report { dedup: capacity, ..report() }.write_dedup(&mut text);
        assert!(text.contains("beyond, the log's bytes limit it (--wal-bytes-max)"), "{text}");
        assert_eq!(capacity.held(&config, 100_000).limited_by, LimitedBy::Log);
    }

    #[test]
    fn the_text_shows_every_value_and_the_sum_of_memory() {
        let text = report().text();
        for setting in SETTINGS {
            assert!(text.contains(&format!("  {} ", setting.name)), "{}", setting.name);
        }
        assert!(text.contains("  sum  ") && text.contains("ready after a kill"));
    }

    #[test]
    fn the_json_says_the_same() {
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report()).unwrap()).unwrap();
        assert_eq!(json["values"].as_array().unwrap().len(), SETTINGS.len());
        let lines = json["memory"].as_array().unwrap();
        assert_eq!(lines.iter().map(|line| line["bytes"].as_u64().unwrap()).sum::<u64>(), json["memory_bytes"]);
        assert_eq!(json["dedup"]["limited_by"], "memory");
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
