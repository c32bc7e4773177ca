//! Pure. From two looks at an edge to what is said of it. The limits beyond which a person is needed are those of
//! `deploy/prometheus/alerts.yml`.

use serde::Serialize;

use super::scrape::Scrape;
use crate::config::{DEDUP_BYTES_PER_KEY, DEDUP_SLOT_BYTES};
use crate::metrics::Shed;
use crate::units::about_seconds;

/// An export that lags so long, or a sink that is away or takes nothing for so long, needs a person.
const LATE_SECONDS: f64 = 60.0;
/// So does a log that is full within this time.
const FULL_HOURS: f64 = 4.0;
/// An export that lags less keeps up: it comes in steps of an interval, and of a transaction.
const KEEPS_UP_SECONDS: f64 = 10.0;

/// The edge's age by its wall clock and the time that its sink is away by the other differ by less.
const CLOCKS_PART_SECONDS: f64 = 1.5;

/// What an edge showed at one moment.
#[derive(Debug, Default)]
pub struct Look {
    readyz: serde_json::Value,
    metrics: Scrape,
    /// Why /metrics had no numbers of the worker.
    silent: Option<String>,
}

impl Look {
    /// `status`: of /metrics.
    pub fn read(readyz: &str, status: u16, metrics: &str) -> Result<Look, &'static str> {
        const FOREIGN: &str = "what answers there is no admin port of tollgate";
        let readyz: serde_json::Value = serde_json::from_str(readyz).map_err(|_| FOREIGN)?;
        if readyz["reason"].as_str().is_none() {
            return Err(FOREIGN);
        }
        let silent = (status != 200).then(|| metrics.trim().to_owned());
        let metrics = if silent.is_some() { Scrape::default() } else { Scrape::read(metrics) };
        if silent.is_none() && metrics.is_empty() {
            return Err(FOREIGN);
        }
        if metrics.sum("tollgate_global_build_info").is_some() && metrics.sum("tollgate_build_info").is_none() {
            return Err(
                "that is the admin port of a global tier, and this command looks at edges; `tollgate edges list --admin` with the \
                        same address says how it is",
            );
        }
        Ok(Look { readyz, metrics, silent })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Starting,
    TakingMemory,
    Recovering,
    Ready,
    Shedding,
    Draining,
    /// `--until-exported`: takes no clicks, ends when all is exported.
    Exporting,
    /// Another version's.
    Unknown,
}

/// Everything that `tollgate status` says; field by field, what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    pub admin: String,
    pub state: State,
    /// As /readyz has it.
    pub reason: String,
    pub note: Option<String>,
    /// What needs a person; empty: nothing does.
    pub needs: Vec<String>,
    pub version: Option<String>,
    pub uptime_seconds: Option<f64>,
    pub memory: Option<TakingMemory>,
    pub recovery: Option<Recovery>,
    /// Until the log is read back, there are none of these.
    pub clicks: Option<Clicks>,
    pub log: Option<LogRoom>,
    pub export: Option<Export>,
    pub ids: Option<Ids>,
}

/// For remembered ids.
#[derive(Debug, Serialize)]
pub struct TakingMemory {
    pub touched_bytes: f64,
    pub total_bytes: f64,
    pub seconds_left: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct Recovery {
    pub read_bytes: f64,
    pub total_bytes: f64,
    pub seconds_left: Option<f64>,
}

/// A second, between the two looks.
#[derive(Debug, Serialize)]
pub struct Clicks {
    pub accepted_per_second: f64,
    pub duplicate_per_second: f64,
    pub rejected_per_second: f64,
    pub shed_per_second: f64,
}

#[derive(Debug, Serialize)]
pub struct LogRoom {
    pub disk_bytes: f64,
    pub limit_bytes: f64,
    pub room_bytes: f64,
    pub disk_free_bytes: f64,
    pub written_bytes_per_second: f64,
    /// Until clicks are shed, if nothing were exported from now on; none where nothing is written.
    pub hours_to_full_without_export: Option<f64>,
    /// The same as it is now; none where the log is not filling, 0 where it is full.
    pub hours_to_full: Option<f64>,
    /// Clicks are shed for want of room.
    pub full: bool,
}

#[derive(Debug, Serialize)]
pub struct Export {
    pub sink: String,
    pub answers: bool,
    /// Since its last answer, or since the start before the first.
    pub away_seconds: f64,
    /// It has not answered since the start.
    pub never_answered: bool,
    /// Since the process started; and how long ago the last one was, or the start where there was none.
    pub commits: f64,
    pub commit_age_seconds: f64,
    /// Since the process started.
    pub doubts: f64,
    pub clicks_behind: f64,
    pub lag_seconds: f64,
}

#[derive(Debug, Serialize)]
pub struct Ids {
    pub window_seconds: f64,
    pub horizon_timestamp_seconds: f64,
    pub watermark_timestamp_seconds: f64,
    /// From the watermark to the edge's clock.
    pub watermark_age_seconds: f64,
    pub keys: f64,
    /// That can be held for long; `tollgate check` says the same.
    pub keys_max: f64,
    /// More than `keys_max`: a table needs free ones.
    pub slots: f64,
    pub load_ratio: f64,
}

impl Report {
    /// Two looks at the edge at `admin`, so many seconds apart.
    pub fn new(admin: &str, first: &Look, last: &Look, seconds: f64) -> Report {
        let text = |key: &str| last.readyz[key].as_str().map(str::to_owned);
        let (metrics, reason) = (&last.metrics, text("reason").unwrap_or_default());
        let rate = |name: &str| (metrics.value(name) - first.metrics.value(name)).max(0.0) / seconds.max(1e-3);
        let running = metrics.sum("tollgate_clicks_received_total").is_some();
        let age = |started: f64| edge_clock(metrics).map(|now| (now - started).max(0.0));
        let clicks = running.then(|| Clicks {
            accepted_per_second: rate("tollgate_clicks_accepted_total"),
            duplicate_per_second: rate("tollgate_clicks_duplicate_total"),
            rejected_per_second: rate("tollgate_clicks_rejected_total"),
            shed_per_second: rate("tollgate_clicks_shed_total"),
        });
        let state = state(&reason);
        let mut report = Report {
            admin: admin.to_owned(),
            state,
            reason,
            note: text("note"),
            needs: Vec::new(),
            version: metrics.by_label("tollgate_build_info", "version").next().map(|(version, _)| version.to_owned()),
            uptime_seconds: metrics.sum("process_start_time_seconds").and_then(age),
            memory: (state == State::TakingMemory).then(|| TakingMemory {
                touched_bytes: last.readyz["bytes_done"].as_f64().unwrap_or(0.0),
                total_bytes: last.readyz["bytes_total"].as_f64().unwrap_or(0.0),
                seconds_left: last.readyz["seconds_left"].as_f64(),
            }),
            recovery: (state == State::Recovering).then(|| Recovery {
                read_bytes: metrics.value("tollgate_recovery_read_bytes"),
                total_bytes: metrics.value("tollgate_recovery_total_bytes"),
                seconds_left: last.readyz["seconds_left"].as_f64(),
            }),
            clicks,
            log: running.then(|| log_room(first, last, seconds)),
            export: running.then(|| export(metrics, metrics.sum("process_start_time_seconds").and_then(age))),
            ids: running.then(|| ids(metrics)),
        };
        report.needs = needs(&report, first, last);
        report
    }
}

fn state(reason: &str) -> State {
    match reason {
        "starting" => State::Starting,
        "taking memory" => State::TakingMemory,
        "recovering" => State::Recovering,
        "ready" => State::Ready,
        "draining" => State::Draining,
        "exporting" => State::Exporting,
        reason if reason.starts_with("shedding") => State::Shedding,
        _ => State::Unknown,
    }
}

/// The edge's own clock: the window goes from the horizon to it.
fn edge_clock(metrics: &Scrape) -> Option<f64> {
    Some(metrics.sum("tollgate_dedup_horizon_timestamp_seconds")? + metrics.sum("tollgate_dedup_window_seconds")?)
}

fn log_room(first: &Look, last: &Look, seconds: f64) -> LogRoom {
    let (was, metrics) = (&first.metrics, &last.metrics);
    let rate = |name: &str| (metrics.value(name) - was.value(name)) / seconds.max(1e-3);
    let written = rate("tollgate_log_written_bytes_total").max(0.0);
    let room_bytes = metrics.value("tollgate_log_room_bytes");
    let accepted = rate("tollgate_clicks_accepted_total");
    // What is not exported stays: the log grows by that, whatever else comes and goes in it.
    let behind = rate("tollgate_export_clicks_behind").max(0.0);
    let interval = metrics.value("tollgate_export_interval_seconds");
    let keeps_up = metrics.value("tollgate_export_lag_seconds") < KEEPS_UP_SECONDS.max(3.0 * interval);
    let growth = if keeps_up || accepted <= 0.0 { 0.0 } else { written * (behind / accepted).min(1.0) };
    let hours = |bytes_per_second: f64| (bytes_per_second > 0.0).then(|| room_bytes / bytes_per_second / 3600.0);
    let full = is_full(first, last);
    LogRoom {
        disk_bytes: metrics.value("tollgate_log_disk_bytes"),
        limit_bytes: metrics.value("tollgate_log_disk_limit_bytes"),
        room_bytes,
        disk_free_bytes: metrics.value("tollgate_disk_free_bytes"),
        written_bytes_per_second: written,
        hours_to_full_without_export: hours(written).filter(|_| accepted > 0.0),
        hours_to_full: if full { Some(0.0) } else { hours(growth) },
        full,
    }
}

/// It sheds for want of room, until some segments are free again; or it is about to, where no click comes.
fn is_full(first: &Look, last: &Look) -> bool {
    let shed = |look: &Look| {
        let of = look.metrics.by_label("tollgate_clicks_shed_total", "reason");
        of.filter(|(reason, _)| *reason == Shed::DiskFull.name()).map(|(_, shed)| shed).sum::<f64>()
    };
    let known = last.metrics.sum("tollgate_log_room_bytes");
    last.readyz["reason"] == Shed::DiskFull.advice()
        || shed(last) > shed(first)
        || known.is_some_and(|room| room <= 0.0)
}

fn export(metrics: &Scrape, uptime_seconds: Option<f64>) -> Export {
    let said = metrics.by_label("tollgate_export_sink_answers", "sink").next();
    let (answers, away_seconds) =
        (said.is_some_and(|(_, answers)| answers > 0.0), metrics.value("tollgate_export_sink_away_seconds"));
    Export {
        sink: said.map_or("", |(sink, _)| sink).to_owned(),
        answers,
        away_seconds,
        never_answered: !answers && uptime_seconds.is_some_and(|up| away_seconds > up - CLOCKS_PART_SECONDS),
        commits: metrics.value("tollgate_export_transactions_total"),
        commit_age_seconds: metrics.value("tollgate_export_commit_age_seconds"),
        doubts: metrics.value("tollgate_export_doubts_total"),
        clicks_behind: metrics.value("tollgate_export_clicks_behind"),
        lag_seconds: metrics.value("tollgate_export_lag_seconds"),
    }
}

fn ids(metrics: &Scrape) -> Ids {
    let watermark = metrics.value("tollgate_watermark_timestamp_seconds");
    let slots = metrics.value("tollgate_dedup_slots");
    Ids {
        window_seconds: metrics.value("tollgate_dedup_window_seconds"),
        horizon_timestamp_seconds: metrics.value("tollgate_dedup_horizon_timestamp_seconds"),
        watermark_timestamp_seconds: watermark,
        watermark_age_seconds: edge_clock(metrics).map_or(0.0, |now| now - watermark),
        keys: metrics.value("tollgate_dedup_keys"),
        keys_max: (slots * DEDUP_SLOT_BYTES as f64 / DEDUP_BYTES_PER_KEY as f64).floor(),
        slots,
        load_ratio: metrics.value("tollgate_dedup_load_ratio"),
    }
}

/// Each with what to do.
fn needs(report: &Report, first: &Look, last: &Look) -> Vec<String> {
    let mut needs = Vec::new();
    if let Some(why) = &last.silent {
        needs.push(format!("/metrics has no numbers: {why}; look at the disk and at the machine's load"));
    }
    if report.state == State::Shedding {
        needs.push(report.reason.clone());
    } else if report.clicks.as_ref().is_some_and(|clicks| clicks.shed_per_second > 0.0) {
        let name = "tollgate_clicks_shed_total";
        let before = |reason: &str| first.metrics.by_label(name, "reason").find(|(of, _)| *of == reason);
        let rose = |(reason, now): &(&str, f64)| before(reason).is_some_and(|(_, before)| *now > before);
        let reasons: Vec<&str> = last.metrics.by_label(name, "reason").filter(rose).map(|(reason, _)| reason).collect();
        needs.push(format!("clicks are shed ({}): see \"What to watch\" in OPERATING.md", reasons.join(", ")));
    }
    if let Some(export) = &report.export {
        let sink = &export.sink;
        if export.away_seconds > LATE_SECONDS || export.away_seconds > 0.0 && export.lag_seconds > LATE_SECONDS {
            let since = if export.never_answered { "since the start, " } else { "for " };
            let away = about_seconds(export.away_seconds);
            needs.push(format!("{sink} has not answered {since}{away}: counts wait in the log; bring it back"));
        } else if export.commit_age_seconds > LATE_SECONDS {
            let seconds = export.commit_age_seconds;
            needs.push(format!("nothing was committed for {seconds:.0} s: standard error says what {sink} refuses"));
        } else if export.lag_seconds > LATE_SECONDS && export.commits == 0.0 {
            let lag = about_seconds(export.lag_seconds);
            needs.push(format!(
                "the export lags by {lag}, and nothing was committed since the start: look again in a minute, then at {sink}"
            ));
        } else if export.lag_seconds > LATE_SECONDS {
            let seconds = export.lag_seconds;
            needs.push(format!("the export lags by {seconds:.0} s: it takes less than what comes in; look at {sink}"));
        }
    }
    let filling = report.log.as_ref().filter(|log| !log.full);
    if let Some(hours) = filling.and_then(|log| log.hours_to_full).filter(|hours| *hours < FULL_HOURS) {
        needs.push(format!(
            "the log is full in {hours:.1} h at this growth, and clicks are shed then: mend the export, or raise --wal-bytes-max"
        ));
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: &[(&str, f64)] = &[
        ("tollgate_build_info{version=\"1.2.3\"}", 1.0),
        ("process_start_time_seconds", 900.0),
        ("tollgate_clicks_received_total", 100.0),
        ("tollgate_clicks_accepted_total", 100.0),
        ("tollgate_clicks_shed_total{reason=\"memory\"}", 3.0),
        ("tollgate_log_written_bytes_total", 10_000.0),
        ("tollgate_log_room_bytes", 36_000_000.0),
        ("tollgate_export_interval_seconds", 1.0),
        ("tollgate_export_sink_answers{sink=\"kafka\"}", 1.0),
        ("tollgate_export_commit_age_seconds", 2.0),
        ("tollgate_export_transactions_total", 7.0),
        ("tollgate_dedup_horizon_timestamp_seconds", 400.0),
        ("tollgate_dedup_window_seconds", 600.0),
        ("tollgate_dedup_slots", 16_777_216.0),
        ("tollgate_watermark_timestamp_seconds", 995.0),
    ];

    fn look(reason: &str, changes: &[(&str, f64)]) -> Look {
        let mut samples: Vec<(&str, f64)> = HEALTHY.to_vec();
        samples.retain(|(name, _)| changes.iter().all(|(changed, _)| name != changed));
        samples.extend(changes);
        let text: Vec<String> = samples.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
        let readyz = serde_json::json!({ "ready": reason == "ready", "reason": reason });
        Look::read(&readyz.to_string(), 200, &text.concat()).expect("it is tollgate's")
    }

    /// Two seconds apart: 200 clicks of 100 bytes each.
    fn report(reason: &str, changes: &[(&str, f64)]) -> Report {
        let moved = [("tollgate_clicks_accepted_total", 300.0), ("tollgate_log_written_bytes_total", 30_000.0)];
        let changes: Vec<(&str, f64)> = moved.iter().chain(changes).copied().collect();
        Report::new("here", &look("ready", &[]), &look(reason, &changes), 2.0)
    }

    #[test]
    fn a_healthy_edge_needs_nobody() {
        let report = report("ready", &[]);
        assert_eq!((report.state, &report.needs), (State::Ready, &Vec::new()));
        assert_eq!((report.version.as_deref(), report.uptime_seconds), (Some("1.2.3"), Some(100.0)));
        assert_eq!(report.clicks.expect("it runs").accepted_per_second, 100.0);
        let log = report.log.expect("it runs");
        assert_eq!((log.hours_to_full_without_export, log.hours_to_full), (Some(1.0), None));
        let ids = report.ids.expect("it runs");
        assert_eq!(ids.watermark_age_seconds, 5.0);
        // As `tollgate check` has it for 256 MiB.
        assert_eq!((ids.slots, ids.keys_max), (16_777_216.0, 14_128_181.0));
        assert_eq!(report.export.expect("it runs").sink, "kafka");
    }

    #[test]
    fn what_needs_a_person_is_said_with_what_to_do() {
        let away = ("tollgate_export_sink_away_seconds", 61.0);
        let lag = ("tollgate_export_lag_seconds", 61.0);
        for (reason, changes, names) in [
            ("shedding: the log is at --wal-bytes-max", &[][..], "at --wal-bytes-max"),
            ("ready", &[("tollgate_clicks_shed_total{reason=\"memory\"}", 4.0)], "shed (memory)"),
            ("exporting", &[away], "kafka has not answered for 61 s"),
            ("ready", &[("tollgate_export_commit_age_seconds", 61.0)], "nothing was committed for 61 s"),
            ("ready", &[lag], "lags by 61 s: it takes less"),
            ("ready", &[lag, ("tollgate_export_transactions_total", 0.0)], "nothing was committed since the start"),
            // Up for 100 s: it never answered.
            (
                "ready",
                &[
                    ("tollgate_export_sink_answers{sink=\"kafka\"}", 0.0),
                    ("tollgate_export_sink_away_seconds", 100.0),
                    lag,
                ],
                "kafka has not answered since the start, 100 s",
            ),
        ] {
            let report = report(reason, changes);
            assert!(report.needs.len() == 1 && report.needs[0].contains(names), "{:?}", report.needs);
        }
        // Half of what comes in stays: full in two hours.
        let report = report("ready", &[lag, ("tollgate_export_clicks_behind", 100.0)]);
        assert!(report.needs.iter().any(|need| need.contains("full in 2.0 h")), "{:?}", report.needs);
    }

    #[test]
    fn a_log_that_is_full_is_not_called_not_filling() {
        let shed = ("tollgate_clicks_shed_total{reason=\"disk_full\"}", 1.0);
        let none = ("tollgate_clicks_accepted_total", 100.0);
        for (reason, changes) in [
            (Shed::DiskFull.advice(), &[none][..]),
            ("ready", &[none, shed]),
            ("ready", &[none, ("tollgate_log_room_bytes", 0.0)]),
        ] {
            let log = report(reason, changes).log.expect("it runs");
            assert_eq!((log.full, log.hours_to_full), (true, Some(0.0)), "{reason}");
        }
        assert!(!report(Shed::Clock.advice(), &[none]).log.expect("it runs").full);
    }

    #[test]
    fn a_start_and_a_stop_need_nobody() {
        let reason = |reason: &str| format!("{{\"ready\":false,\"reason\":\"{reason}\",\"seconds_left\":7.5}}");
        let before = "tollgate_recovery_read_bytes 5\ntollgate_recovery_total_bytes 10\n";
        let look = || Look::read(&reason("recovering"), 200, before).expect("it is tollgate's");
        let recovering = Report::new("here", &look(), &look(), 1.0);
        assert!(recovering.state == State::Recovering && recovering.needs.is_empty() && recovering.clicks.is_none());
        assert_eq!(recovering.recovery.expect("it reads").seconds_left, Some(7.5));
        let taking =
            "{\"ready\":false,\"reason\":\"taking memory\",\"bytes_done\":2,\"bytes_total\":8,\"seconds_left\":1.5}";
        let look = || Look::read(taking, 200, before).expect("it is tollgate's");
        let taking = Report::new("here", &look(), &look(), 1.0);
        assert!(taking.state == State::TakingMemory && taking.needs.is_empty() && taking.recovery.is_none());
        let memory = taking.memory.expect("it takes memory");
        assert_eq!((memory.touched_bytes, memory.total_bytes, memory.seconds_left), (2.0, 8.0, Some(1.5)));
        assert!(report("draining", &[]).needs.is_empty());
    }

    #[test]
    fn a_worker_that_does_not_answer_needs_a_person_and_a_stranger_is_none() {
        let stuck =
            || Look::read("{\"ready\":true,\"reason\":\"ready\"}", 503, "the worker did not answer\n").expect("ours");
        let report = Report::new("here", &stuck(), &stuck(), 1.0);
        assert!(report.needs[0].contains("the worker did not answer"), "{:?}", report.needs);
        for (readyz, metrics) in [("<html>", "a 1\n"), ("{}", "a 1\n"), ("{\"reason\":\"ready\"}", "<html>")] {
            assert!(Look::read(readyz, 200, metrics).is_err(), "{readyz} {metrics}");
        }
        let global = "tollgate_global_build_info{version=\"1.2.3\"} 1\n";
        let read = |metrics: &str| Look::read("{\"ready\":true,\"reason\":\"ready\"}", 200, metrics).map(|_| ());
        assert!(read(global).is_err_and(|why| why.contains("edges list")));
        assert!(read(&format!("{global}tollgate_build_info{{version=\"1.2.3\"}} 1\n")).is_ok());
    }
}
