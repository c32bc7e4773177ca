//! Pure. What a proof found: headline, figures, verdict, as text and as JSON. `page.rs` draws it.

use super::freshness::histogram;
use super::killer::Kill;
use super::measured::{Sample, ShapeFigures, quantiles_ms, quantiles_text};
use super::{Settings, Subject};
use crate::ledger::Ledger;
use crate::report::Totals;
use crate::shapes::ONE;
use crate::verify::Difference;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// A table of ids that is fuller works under the conditions of every day.
const FULL: f64 = 0.75;
const NUMBERS: [&str; 9] = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight"];

pub struct Proof {
    pub machine: String,
    /// CPUs of a server that was started; of others it is not known.
    pub server_cpus: Vec<usize>,
    pub server_flags: Vec<String>,
    pub hosts: usize,
    pub client_cpus: Vec<usize>,
    pub ads: u32,
    pub seconds: f64,
    pub seed: u64,
    pub wants_null: bool,
    pub wants_freshness: bool,
    pub wants_kills: bool,
    pub shapes: Vec<ShapeFigures>,
    pub timeline: Vec<Sample>,
    pub kills: Vec<Kill>,
    pub freshness: Histogram<u64>,
    /// Markers of freshness that no answer ever showed.
    pub unseen: u64,
    /// Share of the table of ids that was taken when it was last asked for.
    pub table_full: Option<f64>,
    pub totals: Totals,
    pub ledger: Ledger,
    /// Clicks of unknown outcome that no kill and no horizon excuses.
    pub unanswered: u64,
    pub differences: Vec<Difference>,
    /// How the server ended, if it did so by itself.
    pub ended: Option<String>,
    /// Where the data directory was left to be looked at.
    pub kept: Option<PathBuf>,
}

impl Proof {
    pub fn new(settings: &Settings, ads: usize) -> Proof {
        let (server_cpus, server_flags, hosts) = match &settings.subject {
            Subject::Start(edge) => (edge.cpus.clone(), edge.flags.clone(), 1),
            Subject::There(addresses) => (Vec::new(), Vec::new(), addresses.clicks.len()),
        };
        Proof {
            machine: super::machine::describe(),
            server_cpus,
            server_flags,
            hosts,
            client_cpus: settings.client_cpus.clone(),
            ads: settings.ads,
            seconds: settings.seconds,
            seed: settings.seed,
            wants_null: settings.null.is_some(),
            wants_freshness: settings.freshness,
            wants_kills: settings.kill_every.is_some(),
            shapes: settings.shapes.iter().map(|shape| ShapeFigures::new(*shape)).collect(),
            timeline: Vec::new(),
            kills: Vec::new(),
            freshness: histogram(),
            unseen: 0,
            table_full: None,
            totals: Totals::default(),
            ledger: Ledger::new(ads),
            unanswered: 0,
            differences: Vec::new(),
            ended: None,
            kept: None,
        }
    }

    /// Why it is no proof; empty if it is one.
    pub fn failures(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut fails = |fails: bool, text: String| found.extend(fails.then_some(text));
        let totals = &self.totals;
        if let Some(how) = &self.ended {
            fails(true, format!("the server ended by itself: {how}"));
        }
        fails(totals.wrong > 0, format!("{} wrong replies, such as {:?}", totals.wrong, totals.examples));
        for difference in &self.differences {
            fails(true, difference.to_string());
        }
        let unanswered = self.unanswered;
        fails(
            unanswered > 0,
            format!("{unanswered} clicks were given up without an answer, though nothing was killed"),
        );
        let acknowledged = *self.ledger.total().start();
        fails(acknowledged == 0, "no click was acknowledged".to_owned());
        fails(self.unseen > 0, format!("{} markers of freshness never showed in an answer", self.unseen));
        let unkilled = self.wants_kills && self.kills.is_empty();
        fails(unkilled, "nothing was killed: --seconds is shorter than --kill-every".to_owned());
        found
    }

    /// Why figures of it say nothing, though nothing is wrong.
    pub fn invalid(&self) -> Vec<String> {
        let loops = self.shapes.iter().filter_map(|figures| Some((figures.shape.name, figures.open_loop.as_ref()?)));
        loops.filter_map(|(name, one)| Some(format!("{name} in an open loop: {}", one.invalid.as_ref()?))).collect()
    }

    /// The span of ids that was remembered while the first shape was sent at top rate: what the metrics say, but not more than
    /// had been sent by then. A table that was empty at the start has forgotten nothing and proved little.
    pub fn remembered_s(&self) -> Option<f64> {
        let phase = format!("{}, top rate", self.shapes.first()?.shape.name);
        let samples = || self.timeline.iter().filter(|sample| sample.phase == phase);
        let least_s = samples().filter_map(|sample| sample.remembered_s).min_by(f64::total_cmp)?;
        Some(least_s.min(samples().next_back()?.at_s))
    }

    /// The proof in a sentence.
    pub fn headline(&self) -> String {
        let Some(first) = self.shapes.first() else { return String::new() };
        let fed = if self.has_top_rate() { "" } else { ", as they were fed," };
        let per_s_now = rate(first.acknowledged_per_s());
        let mut text = format!("{}: {per_s_now} clicks/s{fed} acknowledged after sync", self.served_by());
        if let Some(seconds) = self.remembered_s() {
            let _ = write!(text, ", {seconds:.0} seconds of ids remembered exactly meanwhile");
        }
        let verdict = if self.failures().is_empty() { "every ad's count verified" } else { "NOT PROVED" };
        let _ = write!(text, ", {verdict}");
        for figures in &self.shapes[1..] {
            let name = if figures.shape == ONE { "one-click requests" } else { figures.shape.name };
            let _ = write!(text, "; {name}: {}", per_s(figures.acknowledged_per_s()));
            if !self.has_top_rate() {
                continue;
            }
            if self.server_cpus.len() > 1 {
                let _ =
                    write!(text, ", {} a core", per_s(figures.acknowledged_per_s() / self.server_cpus.len() as f64));
            } else if self.server_cpus.len() == 1 {
                text += " a core";
            }
        }
        text + "."
    }

    /// Of the first shape, so of all: else what was fed says nothing of what a core can do.
    fn has_top_rate(&self) -> bool {
        self.shapes.first().is_some_and(|figures| !figures.rounds.is_empty())
    }

    fn served_by(&self) -> String {
        let (count, what) = match self.server_cpus.len() {
            0 => (self.hosts, "host"),
            cores => (cores, "core"),
        };
        let number = NUMBERS.get(count).map_or_else(|| count.to_string(), |word| (*word).to_owned());
        format!("{number} {what}{}", if count == 1 { "" } else { "s" })
    }

    /// Everything, for a person.
    pub fn summary(&self) -> String {
        let mut text = format!("{}\n\n", self.headline());
        let header = ["clicks/s", "server ns", "machine ns", "client ns", "null ns", "of null"];
        let _ = write!(text, "{:<16}", "shape");
        for name in header {
            let _ = write!(text, "{name:>12}");
        }
        text.push('\n');
        for figures in &self.shapes {
            let (cost, null) = (figures.cost, figures.null);
            let cells = [
                Some(format!("{:.0}", figures.acknowledged_per_s())),
                cost.and_then(|cost| cost.server_ns).map(|ns| format!("{ns:.0}")),
                cost.and_then(|cost| cost.machine_ns).map(|ns| format!("{ns:.0}")),
                cost.map(|cost| format!("{:.0}", cost.client_ns)),
                null.and_then(|null| null.server_ns).map(|ns| format!("{ns:.0}")),
                figures.share_of_null().map(|share| format!("{share:.2}")),
            ];
            let _ = write!(text, "{:<16}", figures.shape.name);
            for cell in cells {
                let _ = write!(text, "{:>12}", cell.unwrap_or_else(|| "-".to_owned()));
            }
            text.push('\n');
        }
        text.push('\n');
        for (name, value) in self.lines() {
            let _ = writeln!(text, "{name:<22}{value}");
        }
        text
    }

    /// What is to be said beside the table.
    pub fn lines(&self) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
        for figures in &self.shapes {
            let Some(open_loop) = &figures.open_loop else { continue };
            let rate = format!("at {} clicks/s: {}", rate(open_loop.clicks_per_s), quantiles_text(&open_loop.latency));
            line("open loop, ms", format!("{} {rate}", figures.shape.name));
        }
        if !self.freshness.is_empty() {
            let count = self.freshness.len();
            line("freshness, ms", format!("{} ({count} clicks)", quantiles_text(&self.freshness)));
        }
        if let Some(longest_s) = self.kills.iter().map(|kill| kill.away_s).max_by(f64::total_cmp) {
            line("kills", format!("{}, ready again after {longest_s:.2} s at most", self.kills.len()));
        }
        if let Some(full) = self.table_full {
            let more = if full < FULL { ": --prefill 0.8 shows how long a span lasts at such a rate" } else { "" };
            line("table of ids", format!("{full:.2} full at the end{more}"));
        }
        if !self.wants_null && self.has_top_rate() {
            line("share of null", "not measured: --null names no tollgate-bench".to_owned());
        }
        let (acknowledged, unknown) = (*self.ledger.total().start(), self.ledger.unknown());
        line(
            "clicks",
            format!(
                "{acknowledged} acknowledged, {unknown} of unknown outcome, counted at most once ({} refused as too old when sent again)",
                self.totals.too_old
            ),
        );
        let totals = &self.totals;
        let (repeats, retries, shed) = (totals.repeats, totals.retries, totals.shed);
        line(
            "sent again",
            format!(
                "{repeats} clicks on purpose, {retries} requests after 503, reset or time-out ({shed} clicks shed)"
            ),
        );
        line("machine", self.machine.clone());
        line("server", self.server());
        line(
            "client",
            format!(
                "CPUs {:?}, {} ads, {} s a measurement, seed {}",
                self.client_cpus, self.ads, self.seconds, self.seed
            ),
        );
        for reason in self.invalid() {
            line("INVALID", reason);
        }
        for reason in self.failures() {
            line("FAILED", reason);
        }
        if let Some(path) = &self.kept {
            line("kept", format!("{}: data directory and log of the server", path.display()));
        }
        line("verdict", if self.failures().is_empty() { "pass".to_owned() } else { "fail".to_owned() });
        lines
    }

    fn server(&self) -> String {
        match self.server_cpus.as_slice() {
            [] => format!("{} hosts, not started here", self.hosts),
            cpus => format!("CPUs {cpus:?} {}", self.server_flags.join(" ")).trim_end().to_owned(),
        }
    }

    pub fn json(&self) -> Value {
        let (failures, total) = (self.failures(), self.ledger.total());
        let freshness = self.wants_freshness.then(
            || json!({"ms": quantiles_ms(&self.freshness), "clicks": self.freshness.len(), "unseen": self.unseen}),
        );
        let kill = |kill: &Kill| json!({"at_s": kill.at_s, "away_s": kill.away_s});
        json!({
            "headline": self.headline(),
            "verdict": if failures.is_empty() { "pass" } else { "fail" },
            "failures": failures,
            "invalid": self.invalid(),
            "remembered_s": self.remembered_s(),
            "table_full": self.table_full,
            "shapes": self.shapes.iter().map(ShapeFigures::json).collect::<Vec<_>>(),
            "freshness": freshness,
            "kills": self.kills.iter().map(kill).collect::<Vec<_>>(),
            "acknowledged": total.start(),
            "unknown": self.ledger.unknown(),
            "too_old": self.totals.too_old,
            "unanswered": self.unanswered,
            "repeats": self.totals.repeats,
            "duplicates": self.totals.duplicates,
            "retries": self.totals.retries,
            "shed": self.totals.shed,
            "wrong": self.totals.wrong,
            "machine": self.machine,
            "server_cpus": self.server_cpus,
            "server_flags": self.server_flags,
            "hosts": self.hosts,
            "client_cpus": self.client_cpus,
            "ads": self.ads,
            "seconds": self.seconds,
            "seed": self.seed,
            "timeline": self.timeline.iter().map(Sample::json).collect::<Vec<_>>(),
        })
    }
}

/// In millions where that can be read.
pub fn rate(clicks_per_s: f64) -> String {
    match clicks_per_s / 1e6 {
        millions if millions >= 0.1 => format!("{millions:.2} M"),
        millions if millions >= 0.01 => format!("{millions:.3} M"),
        _ => format!("{clicks_per_s:.0}"),
    }
}

fn per_s(clicks_per_s: f64) -> String {
    format!("{}/s", rate(clicks_per_s))
}
