//! Pure. What came of a run: totals, percentiles, whether it is valid, as text and as JSON.

use crate::ledger::Ledger;
use crate::plan::{Plan, Rate};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write;

/// Wrong replies shown in full; more are only counted.
const EXAMPLES_MAX: usize = 10;

/// A generator that is behind its schedule by less than this is not behind.
const LAG_NS_MAX: u64 = 1_000_000;

#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Distinct clicks sent, and clicks of requests sent a second time on purpose.
    pub clicks: u64,
    pub repeats: u64,
    /// Requests sent, each sending counted; answered 202 or 422.
    pub requests: u64,
    pub answered: u64,
    pub accepted: u64,
    pub duplicates: u64,
    pub rejected: u64,
    /// Clicks answered 503.
    pub shed: u64,
    pub retries: u64,
    /// Clicks of requests that were refused as too old when they were sent again: what the first try did is unknown.
    pub too_old: u64,
    /// Requests whose outcome stayed unknown.
    pub gave_up: u64,
    pub timeouts: u64,
    pub connects: u64,
    pub disconnects: u64,
    /// Open loop: planned requests that never went out.
    pub unsent: u64,
    pub wrong: u64,
    pub examples: Vec<String>,
}

impl Totals {
    /// A reply that contradicts what was sent.
    pub fn wrong(&mut self, text: impl FnOnce() -> String) {
        self.wrong += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }

    /// Clicks known to be taken and counted once: accepted now or before.
    pub fn acknowledged(&self) -> u64 {
        self.accepted + self.duplicates
    }

    pub fn add(&mut self, other: &Totals) {
        self.clicks += other.clicks;
        self.repeats += other.repeats;
        self.requests += other.requests;
        self.answered += other.answered;
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.shed += other.shed;
        self.retries += other.retries;
        self.too_old += other.too_old;
        self.gave_up += other.gave_up;
        self.timeouts += other.timeouts;
        self.connects += other.connects;
        self.disconnects += other.disconnects;
        self.unsent += other.unsent;
        self.wrong += other.wrong;
        self.examples.extend(other.examples.iter().cloned());
        self.examples.truncate(EXAMPLES_MAX);
    }
}

/// A whole run, all threads together.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub plan: Plan,
    pub started_ms: i64,
    /// From the first request to the last reply.
    pub elapsed_s: f64,
    pub totals: Totals,
    pub ledger: Ledger,
    pub latency: Histogram<u64>,
    pub lag: Histogram<u64>,
    /// CPU of the generator's own threads.
    pub cpu_s: f64,
}

impl Outcome {
    /// Why the figures of this run say nothing about the server: an open loop that was not fed as planned.
    pub fn invalid(&self) -> Option<String> {
        if self.plan.rate == Rate::Max {
            return None;
        }
        let (lag_ns, latency_ns) = (self.lag.value_at_quantile(0.99), self.latency.value_at_quantile(0.99));
        if lag_ns > LAG_NS_MAX && lag_ns > latency_ns / 4 {
            let (lag_ms, latency_ms) = (lag_ns as f64 / 1e6, latency_ns as f64 / 1e6);
            return Some(format!(
                "the generator fell behind its schedule (p99 {lag_ms:.1} ms of a latency of {latency_ms:.1} ms): give it \
                 more --cpus, larger batches or a lower --rate"
            ));
        }
        let unsent = self.totals.unsent;
        (unsent > 0).then(|| format!("{unsent} planned requests were never sent: the server does not take --rate"))
    }

    pub fn summary(&self) -> String {
        let (totals, seconds) = (&self.totals, self.elapsed_s);
        let acknowledged = totals.acknowledged();
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "{name:<22}{value}");
        };
        line("seed", self.plan.seed.to_string());
        line("elapsed", format!("{seconds:.2} s"));
        line("acknowledged", format!("{acknowledged} clicks, {:.0} /s", acknowledged as f64 / seconds));
        line("requests answered", format!("{}, {:.0} /s", totals.answered, totals.answered as f64 / seconds));
        let ends = [totals.accepted, totals.duplicates, totals.rejected, totals.shed];
        line("accepted", format!("{} · duplicate {} · rejected {} · shed {}", ends[0], ends[1], ends[2], ends[3]));
        line("sent again", format!("{} clicks on purpose · {} retries", totals.repeats, totals.retries));
        line(
            "connections",
            format!("{} opened · {} lost · {} timed out", totals.connects, totals.disconnects, totals.timeouts),
        );
        line("outcome unknown", format!("{} requests", totals.gave_up));
        let ms = |histogram: &Histogram<u64>, q| histogram.value_at_quantile(q) as f64 / 1e6;
        let percentiles = [0.5, 0.9, 0.99, 0.999, 1.0].map(|q| format!("{:.3}", ms(&self.latency, q)));
        line(
            "latency ms",
            format!(
                "p50 {} · p90 {} · p99 {} · p99.9 {} · max {}",
                percentiles[0], percentiles[1], percentiles[2], percentiles[3], percentiles[4]
            ),
        );
        if self.plan.rate != Rate::Max {
            line("generator lag ms", format!("p50 {:.3} · p99 {:.3}", ms(&self.lag, 0.5), ms(&self.lag, 0.99)));
        }
        let per_click = self.cpu_s * 1e9 / (acknowledged + totals.rejected).max(1) as f64;
        line("client CPU", format!("{:.2} s, {per_click:.0} ns a click", self.cpu_s));
        line("wrong replies", totals.wrong.to_string());
        for example in &totals.examples {
            line("", example.clone());
        }
        text
    }

    pub fn json(&self) -> Value {
        let (totals, seconds) = (&self.totals, self.elapsed_s);
        let quantiles = |histogram: &Histogram<u64>| {
            let at = |q| histogram.value_at_quantile(q);
            json!({"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": at(1.0), "count": histogram.len()})
        };
        json!({
            "seed": self.plan.seed,
            "targets": self.plan.targets.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "connections": self.plan.connections,
            "pipeline": self.plan.pipeline,
            "batch": self.plan.batch,
            "rate": match self.plan.rate { Rate::Max => json!("max"), Rate::ClicksPerSecond(rate) => json!(rate) },
            "started_ms": self.started_ms,
            "elapsed_s": seconds,
            "clicks_per_s": totals.acknowledged() as f64 / seconds,
            "requests_per_s": totals.answered as f64 / seconds,
            "clicks": totals.clicks,
            "repeats": totals.repeats,
            "requests": totals.requests,
            "answered": totals.answered,
            "accepted": totals.accepted,
            "duplicates": totals.duplicates,
            "rejected": totals.rejected,
            "shed": totals.shed,
            "retries": totals.retries,
            "too_old": totals.too_old,
            "unknown_requests": totals.gave_up,
            "unknown_clicks": self.ledger.total().end() - self.ledger.total().start(),
            "timeouts": totals.timeouts,
            "connects": totals.connects,
            "disconnects": totals.disconnects,
            "unsent": totals.unsent,
            "wrong": totals.wrong,
            "wrong_examples": totals.examples,
            "latency_ns": quantiles(&self.latency),
            "lag_ns": quantiles(&self.lag),
            "client_cpu_s": self.cpu_s,
            "invalid": self.invalid(),
        })
    }
}
