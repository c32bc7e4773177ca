//! Kills the server again and again while it is fed, and starts it again.

use super::system::Edge;
use crate::text::mix;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// One kill: when, and how long the server was away.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    pub at_s: f64,
    pub away_s: f64,
}

/// Kills each so often, at odd moments, until the sender of `stop` is gone; `pid` follows the process.
pub fn kill_every(
    mut edge: Edge,
    every: Duration,
    began: Instant,
    pid: &AtomicU32,
    stop: Receiver<()>,
) -> io::Result<(Edge, Vec<Kill>)> {
    let mut kills = Vec::new();
    loop {
        let odd = 0.75 + (mix(began.elapsed().as_nanos() as u64) % 500) as f64 / 1e3;
        if stop.recv_timeout(every.mul_f64(odd)) != Err(RecvTimeoutError::Timeout) {
            return Ok((edge, kills));
        }
        let at = Instant::now();
        edge.kill_and_restart()?;
        pid.store(edge.pid(), Ordering::Relaxed);
        kills.push(Kill { at_s: (at - began).as_secs_f64(), away_s: at.elapsed().as_secs_f64() });
    }
}
