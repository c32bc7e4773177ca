//! Pure. The counters as Prometheus reads them (text format 0.0.4), each family with its help and type.

use std::fmt::{Display, Write as _};

use crate::click::Reason;
use crate::metrics::{BUCKETS, ExportMetrics, Histogram, STATUSES, Shed, Snapshot};

/// What the admin side reads of the process itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    /// Since 1970.
    pub started_seconds: f64,
    pub ready: bool,
    /// Bytes of the log read back and to read in all; equal once recovered.
    pub recovered_bytes: u64,
    pub to_recover_bytes: u64,
}

/// All of it; before the first worker runs there is no snapshot yet.
pub fn render(snapshot: Option<&Snapshot>, process: &Process) -> String {
    let mut text = Text { out: String::with_capacity(16 * 1024) };
    render_process(&mut text, process);
    if let Some(snapshot) = snapshot {
        render_ledger(&mut text, snapshot);
        render_log(&mut text, snapshot);
        render_export(&mut text, &snapshot.export);
        render_dedup(&mut text, snapshot);
        render_connections(&mut text, snapshot);
    }
    text.out
}

fn render_process(text: &mut Text, process: &Process) {
    text.family("tollgate_build_info", "gauge", "Which tollgate this is; the value is always 1.");
    text.sample("tollgate_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.gauge("tollgate_ready", "Whether /readyz answers 200.", u8::from(process.ready));
    text.gauge("tollgate_recovery_read_bytes", "Bytes of the log read back at this start.", process.recovered_bytes);
    text.gauge(
        "tollgate_recovery_total_bytes",
        "Bytes of the log to read back at this start.",
        process.to_recover_bytes,
    );
    text.counter("process_cpu_seconds_total", "CPU time of the process, kernel's included.", process.cpu_seconds);
    let name = "process_start_time_seconds";
    text.gauge(name, "When the process began, since 1970.", process.started_seconds);
    text.gauge("process_resident_memory_bytes", "Memory of the process that is in RAM.", process.resident_bytes);
}

fn render_ledger(text: &mut Text, snapshot: &Snapshot) {
    let ledger = &snapshot.ledger;
    text.counter("tollgate_clicks_received_total", "Clicks of requests that were wholly received.", ledger.received);
    text.counter(
        "tollgate_clicks_accepted_total",
        "Clicks taken: in the log and counted, acknowledged once on disk.",
        ledger.accepted,
    );
    text.counter("tollgate_clicks_duplicate_total", "Clicks whose id was remembered.", ledger.duplicate);
    let name = "tollgate_clicks_rejected_total";
    text.family(name, "counter", "Clicks refused, by reason; kept as dead letters.");
    for (reason, count) in Reason::ALL.iter().zip(ledger.rejected) {
        text.sample(name, &[("reason", reason.name())], count);
    }
    let name = "tollgate_clicks_shed_total";
    text.family(
        name,
        "counter",
        "Clicks of which nothing was taken, by reason; the client was told to send them again.",
    );
    for (shed, count) in Shed::ALL.iter().zip(ledger.shed) {
        text.sample(name, &[("reason", shed.name())], count);
    }
    text.gauge("tollgate_clicks_in_flight", "Clicks received that have no verdict yet.", ledger.in_flight);
    let name = "tollgate_clicks_duplicate_other_payload_total";
    text.counter(name, "Duplicates whose payload differed from the first one's.", ledger.duplicate_other_payload);
    let name = "tollgate_dead_letters_total";
    text.family(name, "counter", "Refused clicks, by whether their bytes were kept within the hourly budget.");
    text.sample(name, &[("kept", "true")], ledger.dead_letters_kept);
    text.sample(name, &[("kept", "false")], ledger.dead_letters_unkept);
}

fn render_log(text: &mut Text, snapshot: &Snapshot) {
    let log = &snapshot.log;
    text.gauge("tollgate_log_durable_lsn", "End of the gap-free prefix of the log on disk.", log.durable_lsn);
    text.gauge("tollgate_log_end_lsn", "Last record that was given a place in the log.", log.end_lsn);
    text.counter("tollgate_log_commits_total", "Frames written and synced.", log.commits);
    text.counter("tollgate_log_seal_frames_total", "Of those, frames that hold no record.", log.seal_frames);
    text.counter("tollgate_log_written_bytes_total", "Bytes written to the log.", log.bytes_written);
    let accepted = snapshot.ledger.accepted;
    let a_click = if accepted == 0 { 0.0 } else { log.bytes_written as f64 / accepted as f64 };
    text.gauge("tollgate_log_written_bytes_per_click", "Bytes written to the log a click accepted.", a_click);
    text.gauge("tollgate_log_segments", "Files of the log.", log.segments);
    let name = "tollgate_log_segments_freed_early_total";
    let help = "Segments deleted before --retention or --dedup-window was over, because the log's room was short.";
    text.counter(name, help, log.freed_early);
    text.gauge("tollgate_log_disk_bytes", "Disk that the log takes; --wal-bytes-max bounds it.", log.log_disk_bytes);
    text.gauge(
        "tollgate_store_disk_bytes",
        "Disk that the store takes; only the disk bounds it.",
        log.store_disk_bytes,
    );
    let name = "tollgate_log_disk_limit_bytes";
    text.gauge(name, "--wal-bytes-max: what log and reserve may take of the disk.", log.disk_limit_bytes);
    let name = "tollgate_log_room_bytes";
    text.gauge(name, "What the log may grow by before clicks are shed: its limit and the disk's.", log.room_bytes);
    text.gauge("tollgate_disk_free_bytes", "Free of the log's disk, for this process's user.", log.disk_free_bytes);
    text.histogram("tollgate_log_commit_seconds", "From the start of a frame's write to its sync.", &log.commit);
    let name = "tollgate_acknowledgement_seconds";
    text.histogram(name, "From a request's last byte to its reply, a click at a time.", &snapshot.acknowledgement);
}

fn render_export(text: &mut Text, export: &ExportMetrics) {
    let interval = export.interval_ms as f64 / 1e3;
    text.gauge("tollgate_export_lsn", "Records up to here have left the host exactly once.", export.exported_lsn);
    text.counter("tollgate_export_transactions_total", "Transactions committed to the sink.", export.transactions);
    text.counter("tollgate_export_partials_total", "Partials in committed transactions.", export.partials);
    text.gauge("tollgate_export_pending_ranges", "Ranges that are cut and not yet exported.", export.pending_ranges);
    let name = "tollgate_export_interval_seconds";
    text.gauge(name, "Time between two cuts; more than --export-interval while they cost much.", interval);
    let name = "tollgate_export_cpu_seconds_total";
    text.counter(name, "CPU time of the exporter's thread.", export.cpu_ns as f64 / 1e9);
    let name = "tollgate_export_clicks_behind";
    text.gauge(name, "Clicks in the log that are not known to be exported.", export.clicks_behind);
    let name = "tollgate_export_lag_seconds";
    text.gauge(name, "Age of the oldest click that is not known to be exported.", seconds(export.lag_ms()));
    let name = "tollgate_export_commit_age_seconds";
    text.gauge(name, "Since the last commit; since the start before the first.", export.commit_age_ns as f64 / 1e9);
    let name = "tollgate_export_doubts_total";
    text.counter(name, "Commits whose outcome was in doubt and had to be read.", export.doubts);
    let name = "tollgate_export_sink_answers";
    text.family(name, "gauge", "Whether the sink answered when it was last asked.");
    text.sample(name, &[("sink", export.sink)], u8::from(export.sink_answers));
    let name = "tollgate_export_sink_away_seconds";
    text.gauge(
        name,
        "Since the sink's last answer, or the start before the first, while it does not answer.",
        export.sink_away_ns as f64 / 1e9,
    );
}

fn render_dedup(text: &mut Text, snapshot: &Snapshot) {
    let dedup = &snapshot.dedup;
    text.gauge("tollgate_table_rows", "Rows of the open table of partials.", snapshot.table_rows);
    text.gauge("tollgate_dedup_keys", "Ids remembered.", dedup.keys);
    text.gauge(
        "tollgate_dedup_slots",
        "Slots of 16 B in the memory for ids. Fewer ids can be held for long, 16 for each 19 slots: one takes 19 B with its share of free slots.",
        dedup.slots,
    );
    let load = if dedup.slots == 0 { 0.0 } else { dedup.keys as f64 / dedup.slots as f64 };
    text.gauge(
        "tollgate_dedup_load_ratio",
        "Share of the slots that are taken; above 0.9 the oldest ids are forgotten.",
        load,
    );
    let name = "tollgate_dedup_horizon_timestamp_seconds";
    text.gauge(name, "Clicks older than this are refused: their ids may be forgotten.", seconds(dedup.horizon_ms));
    text.gauge("tollgate_dedup_window_seconds", "How far back ids are remembered now.", seconds(dedup.window_held_ms));
    let name = "tollgate_dedup_generations_dropped_early_total";
    text.counter(
        name,
        "Times that ids were forgotten early because memory was short.",
        dedup.generations_dropped_early,
    );
    let name = "tollgate_watermark_timestamp_seconds";
    text.gauge(name, "No click of an earlier event time is expected.", seconds(dedup.watermark_ms));
    let name = "tollgate_clock_leapt";
    text.gauge(
        name,
        "Whether the wall clock leapt by more than --clock-skew and is not believed.",
        u8::from(snapshot.clock_leapt),
    );
}

fn render_connections(text: &mut Text, snapshot: &Snapshot) {
    let connections = &snapshot.connections;
    text.counter("tollgate_ring_enters_total", "Times that the workers entered the kernel.", snapshot.ring_enters);
    text.gauge("tollgate_cores", "Workers that take clicks.", snapshot.cores);
    let name = "tollgate_clicks_forwarded_total";
    text.counter(name, "Clicks received by one core whose home is another.", snapshot.forwarded);
    text.gauge("tollgate_connections_open", "Connections open now.", connections.open);
    text.counter("tollgate_connections_accepted_total", "Connections taken.", connections.accepted);
    text.counter("tollgate_connections_refused_total", "Connections beyond --connections-max.", connections.refused);
    text.counter("tollgate_connections_timed_out_total", "Connections cut off at a deadline.", connections.timed_out);
    let name = "tollgate_receive_buffers_starved_total";
    text.counter(name, "Times that a receive found no free buffer.", connections.receive_buffers_starved);
    text.family("tollgate_replies_total", "counter", "Replies, by status.");
    for (status, count) in STATUSES.iter().zip(snapshot.replies.by_status) {
        text.sample("tollgate_replies_total", &[("status", &status.to_string())], count);
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1e3
}

/// The text as it grows.
struct Text {
    out: String,
}

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// Label values are ours: names and numbers, nothing to escape.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect::<Vec<_>>().join(",");
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let mut count = 0;
        for index in 0..BUCKETS {
            count += histogram.buckets[index];
            let bound = Histogram::bound_ns(index).map_or("+Inf".to_owned(), |ns| (ns as f64 / 1e9).to_string());
            self.sample(&format!("{name}_bucket"), &[("le", &bound)], count);
        }
        self.sample(&format!("{name}_sum"), &[], histogram.sum_ns as f64 / 1e9);
        self.sample(&format!("{name}_count"), &[], count);
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.out, "{text}").expect("writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Reads the text as strictly as the format allows, independently of how it is written; sample to value.
    fn read(text: &str) -> BTreeMap<String, f64> {
        let mut samples = BTreeMap::new();
        let (mut family, mut kind, mut seen) = (String::new(), String::new(), BTreeSet::new());
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(seen.insert(name.to_owned()), "family {name} twice");
                assert!(help.ends_with('.'), "{help}");
                (family, kind) = (name.to_owned(), String::new());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, of) = rest.split_once(' ').unwrap();
                assert_eq!(name, family);
                kind = of.to_owned();
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                let name = sample.split('{').next().unwrap();
                check_name(name, &family, &kind);
                let labels = sample.strip_prefix(name).unwrap();
                assert!(labels.is_empty() || labels.starts_with('{') && labels.ends_with("\"}"), "{line}");
                assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{sample} twice");
            }
        }
        samples
    }

    fn check_name(name: &str, family: &str, kind: &str) {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        match kind {
            "counter" => assert!(name == family && name.ends_with("_total"), "{name}"),
            "gauge" => assert!(name == family && !name.ends_with("_total"), "{name}"),
            "histogram" => {
                assert!(family.ends_with("_seconds"));
                assert!(["_bucket", "_sum", "_count"].iter().any(|end| name == format!("{family}{end}")), "{name}");
            }
            other => panic!("{name} has the type {other:?}"),
        }
    }

    #[test]
    fn the_text_is_what_prometheus_reads_and_the_ledger_in_it_balances() {
        let mut snapshot = Snapshot::default();
        let ledger = &mut snapshot.ledger;
        (ledger.received, ledger.accepted, ledger.duplicate, ledger.in_flight) = (21, 10, 4, 1);
        ledger.rejected[Reason::TooOld as usize - 1] = 3;
        ledger.shed[Shed::DiskFull as usize] = 3;
        snapshot.log.bytes_written = 4096;
        let samples = read(&render(Some(&snapshot), &Process::default()));
        let sum =
            |prefix: &str| samples.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, v)| v).sum::<f64>();
        let ends = ["accepted_total", "duplicate_total", "rejected_total", "shed_total", "in_flight"];
        assert_eq!(ends.iter().map(|end| sum(&format!("tollgate_clicks_{end}"))).sum::<f64>(), 21.0);
        assert_eq!(samples["tollgate_clicks_rejected_total{reason=\"too_old\"}"], 3.0);
        assert_eq!(samples["tollgate_clicks_shed_total{reason=\"disk_full\"}"], 3.0);
        assert_eq!(samples["tollgate_log_written_bytes_per_click"], 409.6);
        assert_eq!(samples[&format!("tollgate_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);
    }

    #[test]
    fn a_histogram_accumulates_to_its_count() {
        let mut snapshot = Snapshot::default();
        for ns in [1_000, 100_000, 100_000, 60_000_000_000] {
            snapshot.log.commit.record(ns);
        }
        let samples = read(&render(Some(&snapshot), &Process::default()));
        let at = |le: &str| samples[&format!("tollgate_log_commit_seconds_bucket{{le=\"{le}\"}}")];
        assert_eq!((at("0.000008192"), at("0.000131072"), at("17.179869184"), at("+Inf")), (1.0, 3.0, 3.0, 4.0));
        assert_eq!(samples["tollgate_log_commit_seconds_count"], 4.0);
        assert!((samples["tollgate_log_commit_seconds_sum"] - 60.000201).abs() < 1e-9);
    }

    #[test]
    fn before_the_first_worker_runs_the_process_shows_itself() {
        let process = Process { to_recover_bytes: 7, ..Process::default() };
        assert_eq!(read(&render(None, &process))["tollgate_recovery_total_bytes"], 7.0);
    }
}
