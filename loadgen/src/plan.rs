//! Pure. What a run sends, for how long, and how patient it is.

use crate::ads::ADS_MAX;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Seeds are 60 bits, a half of what is free in a UUID.
pub const SEED_MAX: u64 = (1 << 60) - 1;

/// How fast clicks are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Closed loop: a connection sends its next `pipeline` requests as soon as the last ones are answered.
    Max,
    /// Open loop: this many clicks a second, on a schedule that does not wait for the server.
    ClicksPerSecond(f64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The hosts. Each click goes to its home among them, by a hash of its id: a duplicate meets its first.
    pub targets: Vec<SocketAddr>,
    pub connections: usize,
    /// Requests of one connection under way at once.
    pub pipeline: usize,
    /// Clicks of a request: 1 is a JSON object, more is NDJSON.
    pub batch: u32,
    pub rate: Rate,
    pub duration: Duration,
    /// Stop after about this many clicks (whole requests, the same number on each core), if that comes first.
    pub clicks_max: Option<u64>,
    pub ads: u32,
    pub zipf: f64,
    pub users: u32,
    /// Fraction of the requests sent twice, the second time on another connection.
    pub duplicates: f64,
    /// Fraction of the clicks whose event time lies up to 30 s back.
    pub late: f64,
    /// Fraction of the clicks that are broken and must be rejected.
    pub invalid: f64,
    pub seed: u64,
    /// One thread pinned on each. Empty: one thread, not pinned.
    pub cpus: Vec<usize>,
    /// Look for replies without ever sleeping: a server on the same machine is not charged with waking this process.
    pub busy_poll: bool,
    /// A request unanswered for so long is sent again on a new connection.
    pub timeout: Duration,
    /// How long after the end replies and retries are waited for.
    pub drain: Duration,
    /// How often a request is sent until its outcome is given up as unknown.
    pub attempts_max: u32,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            targets: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))],
            connections: 64,
            pipeline: 1,
            batch: 1,
            rate: Rate::Max,
            duration: Duration::from_secs(10),
            clicks_max: None,
            ads: 1_000,
            zipf: 1.1,
            users: 1_000_000,
            duplicates: 0.0,
            late: 0.0,
            invalid: 0.0,
            seed: 1,
            cpus: Vec::new(),
            busy_poll: false,
            timeout: Duration::from_secs(5),
            drain: Duration::from_secs(30),
            attempts_max: 20,
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{name} is {value}, but must be {bounds}")]
pub struct PlanError {
    pub name: &'static str,
    pub value: String,
    pub bounds: String,
}

impl Plan {
    pub fn check(&self) -> Result<(), PlanError> {
        let threads = self.threads();
        whole("target", self.targets.len() as u64, 1, 1_000)?;
        // Every thread has a connection to every host.
        whole("connections", self.connections as u64, (threads * self.targets.len()) as u64, 10_000)?;
        whole("pipeline", self.pipeline as u64, 1, 10_000)?;
        whole("batch", u64::from(self.batch), 1, 100_000)?;
        whole("ads", u64::from(self.ads), 1, u64::from(ADS_MAX))?;
        whole("users", u64::from(self.users), 1, 100_000_000)?;
        // An id has room for so many bits of seed: two seeds never share an id.
        whole("seed", self.seed, 0, SEED_MAX)?;
        whole("cpus", threads as u64, 1, 1024)?;
        let fractions = [("duplicates", self.duplicates), ("late", self.late), ("invalid", self.invalid)];
        for (name, value) in fractions {
            real(name, value, 0.0, 1.0)?;
        }
        real("zipf", self.zipf, 0.0, 10.0)?;
        real("duration", self.duration.as_secs_f64(), 0.001, 604_800.0)?;
        if let Rate::ClicksPerSecond(rate) = self.rate {
            real("rate", rate, 0.001, 1e9)?;
        }
        Ok(())
    }

    pub fn threads(&self) -> usize {
        self.cpus.len().max(1)
    }

    /// Requests that one thread sends at most; the schedule of an open loop is exactly so long.
    pub fn requests_of_a_thread(&self) -> u64 {
        let share = (u64::from(self.batch) * self.threads() as u64) as f64;
        let by_clicks = self.clicks_max.map_or(u64::MAX, |clicks| (clicks as f64 / share).ceil() as u64);
        match self.rate {
            Rate::Max => by_clicks,
            Rate::ClicksPerSecond(rate) => by_clicks.min((rate * self.duration.as_secs_f64() / share).ceil() as u64),
        }
    }

    /// Nanoseconds between two requests of one thread in an open loop.
    pub fn interval_ns(&self) -> Option<f64> {
        match self.rate {
            Rate::Max => None,
            Rate::ClicksPerSecond(rate) => Some(1e9 * f64::from(self.batch) * self.threads() as f64 / rate),
        }
    }
}

fn whole(name: &'static str, value: u64, least: u64, most: u64) -> Result<(), PlanError> {
    let fits = (least..=most).contains(&value);
    fits.then_some(()).ok_or_else(|| PlanError {
        name,
        value: value.to_string(),
        bounds: format!("from {least} to {most}"),
    })
}

fn real(name: &'static str, value: f64, least: f64, most: f64) -> Result<(), PlanError> {
    let fits = value >= least && value <= most;
    fits.then_some(()).ok_or_else(|| PlanError {
        name,
        value: value.to_string(),
        bounds: format!("from {least} to {most}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_named() {
        assert_eq!(Plan::default().check(), Ok(()));
        let wrong = [
            ("connections", Plan { connections: 0, ..Plan::default() }),
            ("target", Plan { targets: Vec::new(), ..Plan::default() }),
            ("connections", Plan { connections: 1, cpus: vec![0, 1], ..Plan::default() }),
            ("pipeline", Plan { pipeline: 0, ..Plan::default() }),
            ("batch", Plan { batch: 0, ..Plan::default() }),
            ("ads", Plan { ads: ADS_MAX + 1, ..Plan::default() }),
            ("seed", Plan { seed: SEED_MAX + 1, ..Plan::default() }),
            ("users", Plan { users: 0, ..Plan::default() }),
            ("duplicates", Plan { duplicates: 1.5, ..Plan::default() }),
            ("late", Plan { late: f64::NAN, ..Plan::default() }),
            ("invalid", Plan { invalid: -0.1, ..Plan::default() }),
            ("rate", Plan { rate: Rate::ClicksPerSecond(0.0), ..Plan::default() }),
        ];
        for (name, plan) in wrong {
            assert_eq!(plan.check().unwrap_err().name, name);
        }
    }

    #[test]
    fn an_open_loop_plans_rate_times_duration() {
        let plan = Plan {
            rate: Rate::ClicksPerSecond(1_000.0),
            batch: 10,
            cpus: vec![0, 1],
            duration: Duration::from_secs(4),
            ..Plan::default()
        };
        assert_eq!((plan.requests_of_a_thread(), plan.interval_ns()), (200, Some(2e7)));
    }
}
