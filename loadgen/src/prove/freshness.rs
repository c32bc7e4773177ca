//! How long a click takes from its acknowledgement to the first answer of the query API that shows it. Single clicks for an ad
//! of their own are sent at odd moments; the ad's count is asked for all the time.

use super::system::Addresses;
use crate::client::Client;
use crate::text::{hex16, mix};
use crate::verify::{Query, Span, VerifyError, ad_path};
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two markers, on average: the export's rhythm and this one must not keep step.
const EVERY: Duration = Duration::from_millis(80);
/// Between two looks at the count: how exact a time is.
const POLL: Duration = Duration::from_millis(10);
/// A token that may ask less often would be measured with its waits.
pub const ASKS_A_SECOND_MAX: u64 = 100;
/// How long after the last marker it is still looked for.
const PATIENCE: Duration = Duration::from_secs(30);
const TRIES: u32 = 10;
const RETRY: Duration = Duration::from_millis(500);

/// What one thread of markers found.
pub struct Freshness {
    pub histogram: Histogram<u64>,
    /// Markers acknowledged, and those whose outcome is unknown.
    pub acknowledged: u64,
    pub unknown: u64,
    /// Markers that never showed.
    pub unseen: u64,
}

/// Sends markers for ad `ad` until `stop`, then waits until all of them show.
pub fn watch(
    addresses: &Addresses,
    ad: usize,
    seed: u64,
    span: Span,
    stop: &AtomicBool,
) -> Result<Freshness, VerifyError> {
    let url = addresses.clicks[0].to_string();
    let mut clicks = Client::new(&url).ok_or(VerifyError::Url(url))?;
    let mut queries = Query::all(&addresses.queries, addresses.token.as_ref())?;
    let mut found = Freshness { histogram: histogram(), acknowledged: 0, unknown: 0, unseen: 0 };
    // Acknowledged and not yet shown, in the order of their acknowledgements: the count says how many of them show.
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let before = shown(&mut queries, ad, span)?;
    let (mut next, mut draws, mut stopped) = (Instant::now(), 0u64, None);
    loop {
        if stopped.is_none() && stop.load(Ordering::Relaxed) {
            stopped = Some(Instant::now());
        }
        if stopped.is_some_and(|at: Instant| waiting.is_empty() || at.elapsed() > PATIENCE) {
            found.unseen = waiting.len() as u64;
            return Ok(found);
        }
        if stopped.is_none() && Instant::now() >= next {
            draws += 1;
            next = Instant::now() + EVERY.mul_f64(0.5 + (mix(seed ^ draws) % 1_000) as f64 / 1e3);
            match send(&mut clicks, ad, mix(seed), draws) {
                true => {
                    found.acknowledged += 1;
                    waiting.push_back(Instant::now());
                }
                false => found.unknown += 1,
            }
        }
        let shown = shown(&mut queries, ad, span)?.saturating_sub(before);
        while found.acknowledged - (waiting.len() as u64) < shown
            && let Some(acknowledged) = waiting.pop_front()
        {
            found.histogram.saturating_record(acknowledged.elapsed().as_nanos() as u64);
        }
        std::thread::sleep(POLL);
    }
}

fn shown(queries: &mut [Query], ad: usize, span: Span) -> Result<u64, VerifyError> {
    queries.iter_mut().map(|query| Ok(query.answer(&ad_path(ad), span)?.gross)).sum()
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 3_600_000_000_000, 3).expect("these bounds are valid")
}

/// Whether the marker was acknowledged; sent again, with the same id, where it was not.
fn send(clicks: &mut Client, ad: usize, seed: u64, number: u64) -> bool {
    let id = [hex16(mix(seed ^ 1)), hex16(mix(number))].concat();
    let id = String::from_utf8_lossy(&id);
    let click =
        format!(r#"{{"request_id":"freshness-{id}","ad_id":"ad_{ad:06}","timestamp":{}}}"#, crate::run::wall_ms());
    for _ in 0..TRIES {
        let reply = clicks.post("/v1/clicks", "application/json", click.as_bytes());
        if reply.is_ok_and(|reply| reply.status == 202) {
            return true;
        }
        std::thread::sleep(RETRY);
    }
    false
}
