//! What the global tier counts of itself, and its text for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::batch::Applied;
use crate::edges::{EdgeState, TroubleKind};
use crate::room::Room;
use crate::snapshot::Snapshot;
use crate::tables::StoreError;
use crate::window::Grain;

/// Counted by the consumer, shown by the admin port.
#[derive(Default)]
pub struct Meter {
    transactions: AtomicU64,
    partials: AtomicU64,
    clicks: AtomicU64,
    commits: AtomicU64,
    foreign_records: AtomicU64,
    held_back: AtomicU64,
    away: Mutex<Option<Away>>,
    /// Everything that was committed when it was looked at was counted, once since the start.
    caught_up: AtomicBool,
    lag: Mutex<BTreeMap<i32, u64>>,
}

/// Kafka does not answer, or has not what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    pub since_ms: i64,
    pub why: String,
}

impl Meter {
    pub fn applied(&self, applied: &Applied) {
        self.transactions.fetch_add(applied.transactions, Ordering::Relaxed);
        self.partials.fetch_add(applied.partials, Ordering::Relaxed);
        self.clicks.fetch_add(applied.clicks, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub fn foreign_record(&self) {
        self.foreign_records.fetch_add(1, Ordering::Relaxed);
    }

    pub fn held_back(&self, partitions: usize) {
        self.held_back.fetch_add(partitions as u64, Ordering::Relaxed);
    }

    pub fn lag(&self, partition: i32, records: u64) {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, records);
    }

    pub fn set_away(&self, away: Option<Away>) {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = away;
    }

    pub fn away(&self) -> Option<Away> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_caught_up(&self) {
        self.caught_up.store(true, Ordering::Relaxed);
    }

    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Relaxed)
    }

    /// Records that are not read; None where that is not known: nobody looked yet, or Kafka is away.
    pub fn records_left(&self) -> Option<u64> {
        let lag = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        (self.away().is_none() && !lag.is_empty()).then(|| lag.values().sum())
    }

    /// Everything in Prometheus' text format.
    pub fn text(&self, snapshot: &Snapshot, room: &Room, now_ms: i64) -> Result<String, StoreError> {
        let mut text = Text::default();
        let version = env!("CARGO_PKG_VERSION");
        text.family("tollgate_global_build_info", "gauge", "Which version runs.");
        text.line(&format!("{{version=\"{version}\"}}"), 1.0);
        for (name, about, value) in [
            ("transactions", "Transactions of edges that were counted since the start.", &self.transactions),
            ("partials", "Partials that were counted since the start.", &self.partials),
            ("clicks", "Clicks that were counted since the start, of all classes.", &self.clicks),
            ("commits", "Commits of the store by the consumer since the start.", &self.commits),
            (
                "foreign_records",
                "Records of the topic that are neither a partial nor an end record.",
                &self.foreign_records,
            ),
            (
                "partitions_held_back",
                "Partitions that had to wait until another had ended the transactions that it had begun: there was no memory for all.",
                &self.held_back,
            ),
        ] {
            text.family(&format!("tollgate_global_{name}_total"), "counter", about);
            text.line("", value.load(Ordering::Relaxed) as f64);
        }
        text.family("tollgate_global_kafka_answers", "gauge", "1: Kafka answers. 0: nothing is consumed.");
        let away = self.away().is_some();
        text.line("", f64::from(u8::from(!away)));
        text.family(
            "tollgate_global_consumer_lag_records",
            "gauge",
            "Records of a partition that are not read, control records included; absent while Kafka does not answer.",
        );
        let lag = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, records) in lag.iter().filter(|_| !away) {
            text.line(&format!("{{partition=\"{partition}\"}}"), *records as f64);
        }
        text.store(snapshot, room)?;
        text.edges(&snapshot.edges(now_ms)?, now_ms);
        Ok(text.text)
    }
}

#[derive(Default)]
pub struct Text {
    text: String,
    name: String,
}

impl Text {
    pub fn into_text(self) -> String {
        self.text
    }

    pub fn family(&mut self, name: &str, kind: &str, about: &str) {
        name.clone_into(&mut self.name);
        writeln!(self.text, "# HELP {name} {about}\n# TYPE {name} {kind}").expect("a String takes it");
    }

    pub fn line(&mut self, labels: &str, value: f64) {
        writeln!(self.text, "{}{labels} {value}", self.name).expect("a String takes it");
    }

    /// Of a time in milliseconds; nothing where there is none.
    fn seconds(&mut self, name: &str, about: &str, time_ms: Option<i64>) {
        self.family(name, "gauge", about);
        if let Some(time_ms) = time_ms.filter(|time_ms| *time_ms > 0) {
            self.line("", time_ms as f64 / 1e3);
        }
    }

    fn store(&mut self, snapshot: &Snapshot, room: &Room) -> Result<(), StoreError> {
        let as_of = snapshot.as_of();
        self.seconds(
            "tollgate_global_watermark_timestamp_seconds",
            "Up to here live edges expect no more clicks.",
            as_of.watermark_ms,
        );
        self.seconds(
            "tollgate_global_closed_timestamp_seconds",
            "Windows that end before this are closed.",
            Some(as_of.marks.closed_before_ms),
        );
        self.seconds(
            "tollgate_global_final_timestamp_seconds",
            "Windows that end before this are final.",
            Some(as_of.marks.final_before_ms),
        );
        self.seconds(
            "tollgate_global_committed_timestamp_seconds",
            "When something was counted last.",
            as_of.committed_ms,
        );
        self.file(snapshot, room)
    }

    /// Of its file, whoever fills it.
    pub fn file(&mut self, snapshot: &Snapshot, room: &Room) -> Result<(), StoreError> {
        self.family("tollgate_global_rows", "gauge", "Rows in the store, by grain.");
        for grain in Grain::ALL {
            self.line(&format!("{{grain=\"{}\"}}", grain.name()), snapshot.rows(grain)? as f64);
        }
        self.family("tollgate_global_open_bytes", "gauge", "Counts of open panes in memory.");
        self.line("", snapshot.open_bytes() as f64);
        self.family("tollgate_global_store_bytes", "gauge", "Size of the store's file.");
        self.line("", room.store_bytes as f64);
        self.family("tollgate_global_disk_free_bytes", "gauge", "What is free of the store's disk.");
        self.line("", room.free_bytes as f64);
        self.family(
            "tollgate_global_store_full_hours",
            "gauge",
            "Until the disk is full at the growth of the last hour; absent where it does not grow.",
        );
        if let Some(hours) = room.hours_to_full {
            self.line("", hours);
        }
        Ok(())
    }

    fn edges(&mut self, edges: &[EdgeState], now_ms: i64) {
        self.family("tollgate_global_edges", "gauge", "Edges, by presence.");
        for presence in crate::edges::Presence::ALL {
            let count = edges.iter().filter(|edge| edge.presence == presence).count();
            self.line(&format!("{{presence=\"{}\"}}", presence.name()), count as f64);
        }
        let label = |edge: &EdgeState| format!("{{edge=\"{}\"}}", escaped(&edge.edge_id));
        self.family("tollgate_global_edge_silent_seconds", "gauge", "Since an edge's last transaction was counted.");
        for edge in edges {
            if let Some(seen_ms) = edge.seen_ms {
                self.line(&label(edge), now_ms.saturating_sub(seen_ms).max(0) as f64 / 1e3);
            }
        }
        self.family(
            "tollgate_global_edge_watermark_timestamp_seconds",
            "gauge",
            "What an edge claims to be complete up to.",
        );
        for edge in edges {
            if let Some(watermark_ms) = edge.watermark_ms {
                self.line(&label(edge), watermark_ms as f64 / 1e3);
            }
        }
        self.family("tollgate_global_edge_clicks_total", "counter", "Clicks counted of an edge, ever.");
        for edge in edges {
            self.line(&label(edge), edge.clicks as f64);
        }
        self.family(
            "tollgate_global_edge_clicks_missing_total",
            "counter",
            "Clicks of an edge that are known to be missing.",
        );
        for edge in edges {
            self.line(&label(edge), edge.clicks_missing as f64);
        }
        self.family(
            "tollgate_global_edge_troubles_total",
            "counter",
            "Transactions of an edge that were not as the contract says.",
        );
        for edge in edges {
            for (kind, seen) in TroubleKind::ALL.into_iter().zip(edge.troubles_seen) {
                self.line(&format!("{{edge=\"{}\",kind=\"{}\"}}", escaped(&edge.edge_id), kind.name()), seen as f64);
            }
        }
        self.family("tollgate_global_edges_held", "gauge", "Edges whose troubles keep windows from being final.");
        self.line("", edges.iter().filter(|edge| edge.held_at_ms.is_some()).count() as f64);
    }
}

/// An edge's name as a label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
