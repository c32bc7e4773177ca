//! Pure. What was measured of one shape, and the points of the plots.

use crate::report::Outcome;
use crate::shapes::Shape;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// What a click cost, in nanoseconds of CPU.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The server's process: nothing is known of one elsewhere.
    pub server_ns: Option<f64>,
    /// The whole machine less the client: the kernel's workers are charged to nobody else.
    pub machine_ns: Option<f64>,
    pub client_ns: f64,
}

impl Cost {
    /// Of nanoseconds that the server and the machine were busy; `here` if the server runs on this machine.
    pub fn new(outcome: &Outcome, (server_ns, machine_ns): (u64, u64), here: bool) -> Cost {
        let clicks = outcome.totals.acknowledged().max(1) as f64;
        let client_ns = outcome.cpu_s * 1e9;
        Cost {
            server_ns: here.then_some(server_ns as f64 / clicks),
            machine_ns: here.then_some((machine_ns as f64 - client_ns).max(0.0) / clicks),
            client_ns: client_ns / clicks,
        }
    }

    /// The smaller of each: noise only ever adds.
    fn best(self, other: Cost) -> Cost {
        let least = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a.min(b));
        Cost {
            server_ns: least(self.server_ns, other.server_ns),
            machine_ns: least(self.machine_ns, other.machine_ns),
            client_ns: self.client_ns.min(other.client_ns),
        }
    }

    fn json(&self) -> Value {
        json!({
            "server_ns_per_click": self.server_ns,
            "machine_less_client_ns_per_click": self.machine_ns,
            "client_ns_per_click": self.client_ns,
        })
    }
}

/// An open loop, at half the top rate or at the one that was asked for: latencies from the planned time of a request.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    pub clicks_per_s: f64,
    pub latency: Histogram<u64>,
    /// Why the latencies say nothing about the server, if they do not.
    pub invalid: Option<String>,
}

pub const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

impl OpenLoop {
    pub fn new(outcome: &Outcome) -> OpenLoop {
        OpenLoop {
            clicks_per_s: outcome.totals.acknowledged() as f64 / outcome.elapsed_s,
            latency: outcome.latency.clone(),
            invalid: outcome.invalid(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "clicks_per_s": self.clicks_per_s,
            "latency_ms": quantiles_ms(&self.latency),
            "invalid": self.invalid,
        })
    }
}

/// Quantiles in milliseconds, by name.
pub fn quantiles_ms(histogram: &Histogram<u64>) -> Value {
    QUANTILES.iter().map(|(name, of_one)| ((*name).to_owned(), json!(ms(histogram, *of_one)))).collect()
}

pub fn ms(histogram: &Histogram<u64>, of_one: f64) -> f64 {
    histogram.value_at_quantile(of_one) as f64 / 1e6
}

/// Quantiles in a line for a person.
pub fn quantiles_text(histogram: &Histogram<u64>) -> String {
    let parts = QUANTILES.map(|(name, of_one)| format!("{name} {:.2}", ms(histogram, of_one)));
    parts.join(" · ")
}

/// All rounds of one shape.
#[derive(Clone, Debug)]
pub struct ShapeFigures {
    pub shape: Shape,
    /// Of the best round at top rate; 0 where there was none.
    pub clicks_per_s: f64,
    pub rounds: Vec<f64>,
    pub cost: Option<Cost>,
    pub null: Option<Cost>,
    pub open_loop: Option<OpenLoop>,
}

impl ShapeFigures {
    pub fn new(shape: Shape) -> ShapeFigures {
        ShapeFigures { shape, clicks_per_s: 0.0, rounds: Vec::new(), cost: None, null: None, open_loop: None }
    }

    pub fn add_round(&mut self, outcome: &Outcome, cost: Cost) {
        let clicks_per_s = outcome.totals.acknowledged() as f64 / outcome.elapsed_s;
        self.rounds.push(clicks_per_s);
        self.clicks_per_s = self.clicks_per_s.max(clicks_per_s);
        self.cost = Some(self.cost.map_or(cost, |before| before.best(cost)));
    }

    pub fn add_null(&mut self, cost: Cost) {
        self.null = Some(self.null.map_or(cost, |before| before.best(cost)));
    }

    /// Clicks acknowledged a second: at top rate, or in the open loop where that was all.
    pub fn acknowledged_per_s(&self) -> f64 {
        let paced = self.open_loop.as_ref().map_or(0.0, |open_loop| open_loop.clicks_per_s);
        if self.rounds.is_empty() { paced } else { self.clicks_per_s }
    }

    /// The null server's CPU a click over the server's.
    pub fn share_of_null(&self) -> Option<f64> {
        Some(self.null?.server_ns? / self.cost?.server_ns?)
    }

    pub fn json(&self) -> Value {
        json!({
            "shape": self.shape.key,
            "connections": self.shape.connections,
            "pipeline": self.shape.pipeline,
            "batch": self.shape.batch,
            "clicks_per_s": self.clicks_per_s,
            "rounds_clicks_per_s": self.rounds,
            "cost": self.cost.as_ref().map(Cost::json),
            "null": self.null.as_ref().map(Cost::json),
            "share_of_null": self.share_of_null(),
            "open_loop": self.open_loop.as_ref().map(OpenLoop::json),
        })
    }
}

/// A point of the plots.
#[derive(Clone, Debug)]
pub struct Sample {
    pub phase: String,
    /// Since the proof began.
    pub at_s: f64,
    pub clicks_per_s: f64,
    pub server_cpus: f64,
    pub machine_cpus: f64,
    /// The span of ids remembered, of the host that remembers least.
    pub remembered_s: Option<f64>,
}

impl Sample {
    pub fn json(&self) -> Value {
        json!({
            "phase": self.phase,
            "at_s": self.at_s,
            "clicks_per_s": self.clicks_per_s,
            "server_cpus": self.server_cpus,
            "machine_cpus": self.machine_cpus,
            "remembered_s": self.remembered_s,
        })
    }
}
