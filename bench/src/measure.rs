//! One measurement: a server under load for a while, what a click cost the server's process and the whole machine.

use crate::server::Server;
use serde_json::{Value, json};
use std::time::Duration;
use tollgate_loadgen::cpu;
use tollgate_loadgen::plan::{Plan, Rate};
use tollgate_loadgen::run::run;

/// A way to send clicks.
#[derive(Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    pub connections: usize,
    pub pipeline: usize,
    pub batch: u32,
}

pub const SHAPES: [Shape; 4] = [
    Shape { name: "one at a time, 64", connections: 64, pipeline: 1, batch: 1 },
    Shape { name: "one at a time, 256", connections: 256, pipeline: 1, batch: 1 },
    Shape { name: "32 pipelined, 64", connections: 64, pipeline: 32, batch: 1 },
    Shape { name: "NDJSON of 100, 64", connections: 64, pipeline: 1, batch: 100 },
];

/// How a shape is run.
pub struct Load {
    pub client_cpu: usize,
    pub duration: Duration,
    pub ads: u32,
    pub seed: u64,
    pub rate: Rate,
    /// So that the server is not charged with waking the client; not where both share a CPU.
    pub busy_poll: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub clicks_per_s: f64,
    /// CPU of the server's process, ns a click.
    pub process_ns: f64,
    /// CPU of the machine without the client's, ns a click: kernel workers are charged to nobody else.
    pub machine_ns: f64,
    pub client_ns: f64,
    /// Share of one CPU that the server's process used: near 1 it is saturated.
    pub process_busy: f64,
    pub p99_ms: f64,
}

impl Figures {
    /// The better of each figure: noise only ever adds.
    pub fn best(self, other: Figures) -> Figures {
        Figures {
            clicks_per_s: self.clicks_per_s.max(other.clicks_per_s),
            process_ns: self.process_ns.min(other.process_ns),
            machine_ns: self.machine_ns.min(other.machine_ns),
            client_ns: self.client_ns.min(other.client_ns),
            process_busy: self.process_busy.max(other.process_busy),
            p99_ms: self.p99_ms.min(other.p99_ms),
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "clicks_per_s": self.clicks_per_s,
            "process_ns_per_click": self.process_ns,
            "machine_less_client_ns_per_click": self.machine_ns,
            "client_ns_per_click": self.client_ns,
            "process_busy": self.process_busy,
            "p99_ms": self.p99_ms,
        })
    }
}

/// The plan of a shape against a server.
pub fn plan(shape: Shape, load: &Load, server: &Server) -> Plan {
    Plan {
        targets: vec![server.clicks],
        connections: shape.connections,
        pipeline: shape.pipeline,
        batch: shape.batch,
        rate: load.rate,
        duration: load.duration,
        ads: load.ads,
        seed: load.seed,
        cpus: vec![load.client_cpu],
        busy_poll: load.busy_poll,
        ..Plan::default()
    }
}

pub fn measure(shape: Shape, load: &Load, server: &Server) -> Result<Figures, String> {
    let text = |error: std::io::Error| format!("reading CPU times of {}: {error}", server.name);
    let before = (cpu::of_process_ns(server.pid()).map_err(text)?, cpu::of_machine_ns().map_err(text)?);
    let outcome = run(&plan(shape, load, server), |_| {}).map_err(|error| error.to_string())?;
    let process_ns = cpu::of_process_ns(server.pid()).map_err(text)?.saturating_sub(before.0) as f64;
    let machine_ns = cpu::of_machine_ns().map_err(text)?.saturating_sub(before.1) as f64;
    if outcome.totals.wrong > 0 {
        return Err(format!(
            "{} gave {} wrong replies: {:?}",
            server.name, outcome.totals.wrong, outcome.totals.examples
        ));
    }
    let clicks = outcome.totals.acknowledged() as f64;
    if clicks == 0.0 {
        let shed = outcome.totals.shed;
        return Err(format!(
            "{} acknowledged nothing and shed {shed} clicks: a table that is full within --dedup-window-min sheds; give it \
             more memory or a shorter minimum by --tollgate-flag",
            server.name
        ));
    }
    let client_ns = outcome.cpu_s * 1e9;
    Ok(Figures {
        clicks_per_s: clicks / outcome.elapsed_s,
        process_ns: process_ns / clicks,
        machine_ns: (machine_ns - client_ns) / clicks,
        client_ns: client_ns / clicks,
        process_busy: process_ns / 1e9 / outcome.elapsed_s,
        p99_ms: outcome.latency.value_at_quantile(0.99) as f64 / 1e6,
    })
}
