//! Compares what was acknowledged with what the query API counts, per ad and in sum. What was counted before the run is
//! read first and subtracted.

use crate::clicks::LATE_MS_MAX;
use crate::ledger::Ledger;
use crate::plan::Plan;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// The grain of event time on the query side: ranges are widened to it.
const PANE_MS: i64 = 10_000;

/// Between two looks at the counts or the watermark.
const POLL: Duration = Duration::from_millis(50);
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("--verify {0:?} is no address of a query API: write it like http://127.0.0.1:8090")]
    Url(String),
    #[error("asking {url}{path}: {error}")]
    Query { url: String, path: String, error: io::Error },
    #[error("{url}{path} answered {answer:?}, but a JSON object with a number `gross` was expected")]
    Answer { url: String, path: String, answer: String },
    #[error(
        "every click is counted, but the watermark of {url} stood at {at} for {patience:?}: without another export, a click counted twice may not show yet"
    )]
    StandsStill { url: String, at: String, patience: Duration },
}

/// A difference between what was acknowledged and what is counted. `ad` is `None` for the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub ad: Option<usize>,
    pub expected: RangeInclusive<u64>,
    pub counted: i64,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (low, high, counted) = (*self.expected.start(), *self.expected.end(), self.counted);
        match self.ad {
            Some(ad) => write!(out, "ad_{ad:06}: ")?,
            None => write!(out, "all ads: ")?,
        }
        let verdict = match counted {
            _ if counted < low as i64 => format!("{} LOST", low as i64 - counted),
            _ => format!("{} COUNTED TWICE OR NEVER SENT", counted - high as i64),
        };
        match low == high {
            true => write!(out, "acknowledged {low}, counted {counted}: {verdict}"),
            false => write!(out, "acknowledged {low} and {} unknown, counted {counted}: {verdict}", high - low),
        }
    }
}

/// What was counted of the run's span of time before the run began.
pub struct Baseline {
    query: Query,
    from_ms: i64,
    to_ms: i64,
    total: u64,
    per_ad: Vec<u64>,
}

impl Baseline {
    /// Reads the counts before `plan` is run. The span reaches from the latest of late clicks to well beyond the end.
    pub fn read(url: &str, plan: &Plan, now_ms: i64) -> Result<Baseline, VerifyError> {
        let from_ms = (now_ms - LATE_MS_MAX).div_euclid(PANE_MS) * PANE_MS;
        let end_ms = now_ms + (plan.duration + plan.drain).as_millis() as i64;
        let to_ms = (end_ms.div_euclid(PANE_MS) + 2) * PANE_MS;
        let mut query = Query::new(url)?;
        let total = query.gross("/v1/totals", from_ms, to_ms)?;
        let mut per_ad = vec![0; plan.ads as usize];
        if total > 0 {
            for (ad, count) in per_ad.iter_mut().enumerate() {
                *count = query.gross(&ad_path(ad), from_ms, to_ms)?;
            }
        }
        Ok(Baseline { query, from_ms, to_ms, total, per_ad })
    }

    /// Waits until what was acknowledged is counted, at most for `patience`; then until another export has moved the
    /// watermark, so that a click that is counted again by it shows. Returns every difference.
    pub fn compare(&mut self, ledger: &Ledger, patience: Duration) -> Result<Vec<Difference>, VerifyError> {
        let deadline = Instant::now() + patience;
        loop {
            let arrived = self.total()? >= *ledger.total().start() as i64;
            if arrived && self.differences(ledger)?.is_empty() {
                self.wait_for_an_export(patience)?;
                return self.differences(ledger);
            }
            if Instant::now() >= deadline {
                return self.differences(ledger);
            }
            std::thread::sleep(POLL);
        }
    }

    /// An edge exports every few seconds, also when nothing comes in, and each time its watermark moves.
    fn wait_for_an_export(&mut self, patience: Duration) -> Result<(), VerifyError> {
        let (from_ms, to_ms) = (self.from_ms, self.to_ms);
        let deadline = Instant::now() + patience;
        let before = self.query.answer("/v1/totals", from_ms, to_ms)?.watermark;
        while self.query.answer("/v1/totals", from_ms, to_ms)?.watermark == before {
            if Instant::now() >= deadline {
                let at = before.unwrap_or_else(|| "none".to_owned());
                return Err(VerifyError::StandsStill { url: self.query.url.clone(), at, patience });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn total(&mut self) -> Result<i64, VerifyError> {
        Ok(self.query.gross("/v1/totals", self.from_ms, self.to_ms)? as i64 - self.total as i64)
    }

    fn differences(&mut self, ledger: &Ledger) -> Result<Vec<Difference>, VerifyError> {
        let mut found = Vec::new();
        for ad in 0..ledger.ads() {
            let expected = ledger.bounds(ad);
            // Ads that no click was sent for are covered by the sum.
            if *expected.end() == 0 {
                continue;
            }
            let counted = self.query.gross(&ad_path(ad), self.from_ms, self.to_ms)? as i64 - self.per_ad[ad] as i64;
            found.extend(difference(Some(ad), expected, counted));
        }
        let counted = self.total()?;
        found.extend(difference(None, ledger.total(), counted));
        Ok(found)
    }
}

fn difference(ad: Option<usize>, expected: RangeInclusive<u64>, counted: i64) -> Option<Difference> {
    let holds = (*expected.start() as i64..=*expected.end() as i64).contains(&counted);
    (!holds).then_some(Difference { ad, expected, counted })
}

fn ad_path(ad: usize) -> String {
    format!("/v1/ads/ad_{ad:06}/aggregated_count")
}

/// What is read of an answer.
struct Answer {
    gross: u64,
    watermark: Option<String>,
}

fn parse(body: &[u8]) -> Option<Answer> {
    let json: Value = serde_json::from_slice(body).ok()?;
    Some(Answer { gross: json["gross"].as_u64()?, watermark: json["watermark"].as_str().map(str::to_owned) })
}

/// A keep-alive client for the query API.
struct Query {
    url: String,
    host: String,
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Query {
    fn new(url: &str) -> Result<Query, VerifyError> {
        let wrong = || VerifyError::Url(url.to_owned());
        let host = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').to_owned();
        let address = host.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)?;
        Ok(Query { url: format!("http://{host}"), host, address, connection: None })
    }

    fn gross(&mut self, path: &str, from_ms: i64, to_ms: i64) -> Result<u64, VerifyError> {
        Ok(self.answer(path, from_ms, to_ms)?.gross)
    }

    fn answer(&mut self, path: &str, from_ms: i64, to_ms: i64) -> Result<Answer, VerifyError> {
        let path = format!("{path}?from={from_ms}&to={to_ms}");
        // A connection that was idle may have been closed by the server: a second try opens a new one.
        let body = self.get(&path).or_else(|_| {
            self.connection = None;
            self.get(&path)
        });
        let body = body.map_err(|error| VerifyError::Query { url: self.url.clone(), path: path.clone(), error })?;
        let text = || String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        parse(&body).ok_or_else(|| VerifyError::Answer { url: self.url.clone(), path, answer: text() })
    }

    fn get(&mut self, path: &str) -> io::Result<Vec<u8>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect_timeout(&self.address, QUERY_TIMEOUT)?;
                stream.set_read_timeout(Some(QUERY_TIMEOUT))?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\n\r\n", self.host);
        connection.get_mut().write_all(request.as_bytes())?;
        let mut status = String::new();
        connection.read_line(&mut status)?;
        let (mut length, mut close) = (None, false);
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line)? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let Some((name, value)) = line.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse::<u64>().ok(),
                "connection" => close = value.trim().eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        let length = length.filter(|length| *length <= BODY_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other(format!("no usable Content-Length after {status:?}")))?;
        let mut body = vec![0; length as usize];
        connection.read_exact(&mut body)?;
        if !status.starts_with("HTTP/1.1 200") {
            let text = String::from_utf8_lossy(&body).into_owned();
            return Err(io::Error::other(format!("{} {text}", status.trim_end())));
        }
        self.connection = (!close).then_some(connection);
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_outside_the_bounds_are_differences() {
        let cases = [(3..=3, 3, true), (3..=5, 3, true), (3..=5, 5, true), (3..=5, 2, false), (3..=3, 4, false)];
        for (expected, counted, holds) in cases {
            assert_eq!(difference(None, expected.clone(), counted).is_none(), holds, "{counted} in {expected:?}");
        }
        let lost = difference(Some(7), 3..=3, 1).unwrap().to_string();
        assert_eq!(lost, "ad_000007: acknowledged 3, counted 1: 2 LOST");
        let twice = difference(None, 3..=4, 6).unwrap().to_string();
        assert_eq!(twice, "all ads: acknowledged 3 and 1 unknown, counted 6: 2 COUNTED TWICE OR NEVER SENT");
    }
}
