//! Compares what was acknowledged with what the query API counts, per ad and in sum. What was counted before the run is
//! read first and subtracted.

use crate::clicks::LATE_MS_MAX;
use crate::client::Client;
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::token::{Token, VARIABLE};
use serde_json::Value;
use std::io;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// The grain of event time on the query side: ranges are widened to it.
const PANE_MS: i64 = 10_000;

/// Between two looks at the counts or the watermark.
const POLL: Duration = Duration::from_millis(50);

/// A query API that lets a token ask only so often is waited for, so many times in a row.
const WAITS_MAX: u32 = 30;

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{0:?} is no address of a query API: write it like http://127.0.0.1:8090")]
    Url(String),
    #[error("asking {url}{path}: {error}")]
    Query { url: String, path: String, error: io::Error },
    #[error(
        "{url} answered {status} without a token: name a file that holds one with --token-file, or set {VARIABLE}; an operator makes \
         one with `tollgate token create --all`"
    )]
    NoToken { url: String, status: u16 },
    #[error(
        "{url} answered {status} to the token of {from}, as to one that was revoked or is another data directory's: name the file of \
         one that holds there with --token-file, or set {VARIABLE}"
    )]
    BadToken { url: String, status: u16, from: String },
    #[error(
        "the token of {from} sees some campaigns and advertisers of {url}, so that all other clicks would look lost: name the file of \
         one that sees everything (`tollgate token create --all`) with --token-file, or set {VARIABLE}"
    )]
    Scoped { url: String, from: String },
    #[error("{url}{path} answered {answer:?}, but a JSON object with a number `gross` was expected")]
    Answer { url: String, path: String, answer: String },
    #[error(
        "every click is counted, but the watermark of {url} stood at {at} for {patience:?}: without another export, a click counted twice may not show yet"
    )]
    StandsStill { url: String, at: String, patience: Duration },
}

impl VerifyError {
    /// Whether the command line, or the token that it names, is what is wrong.
    pub fn is_usage(&self) -> bool {
        match self {
            VerifyError::NoToken { .. } | VerifyError::BadToken { .. } | VerifyError::Scoped { .. } => true,
            VerifyError::Url(_)
            | VerifyError::Query { .. }
            | VerifyError::Answer { .. }
            | VerifyError::StandsStill { .. } => false,
        }
    }
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

/// A span of event time, in whole panes.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub from_ms: i64,
    pub to_ms: i64,
}

impl Span {
    /// From the latest of late clicks of one who begins now to well beyond so much time.
    pub fn new(now_ms: i64, lasts: Duration) -> Span {
        let end_ms = now_ms + lasts.as_millis() as i64;
        Span {
            from_ms: (now_ms - LATE_MS_MAX).div_euclid(PANE_MS) * PANE_MS,
            to_ms: (end_ms.div_euclid(PANE_MS) + 2) * PANE_MS,
        }
    }

    pub fn of_a_run(plan: &Plan, now_ms: i64) -> Span {
        Span::new(now_ms, plan.duration + plan.drain)
    }
}

/// What was counted of the span before anything was sent.
pub struct Baseline {
    queries: Vec<Query>,
    span: Span,
    total: u64,
    per_ad: Vec<u64>,
}

impl Baseline {
    /// Reads the counts of ads 0 to `ads - 1`. What several query APIs count is added.
    pub fn read(urls: &[String], token: Option<&Token>, ads: usize, span: Span) -> Result<Baseline, VerifyError> {
        let mut queries = Query::all(urls, token)?;
        queries.iter_mut().try_for_each(Query::introduce)?;
        let mut baseline = Baseline { queries, span, total: 0, per_ad: vec![0; ads] };
        let total = baseline.gross("/v1/totals")?;
        if total > 0 {
            for ad in 0..ads {
                baseline.per_ad[ad] = baseline.gross(&ad_path(ad))?;
            }
        }
        Ok(Baseline { total, ..baseline })
    }

    /// Requests a second that every query API lets its token ask; none: as many as one likes.
    pub fn rate_per_s(&self) -> Option<u64> {
        self.queries.iter().filter_map(|query| query.rate_per_s).min()
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
        let (span, deadline) = (self.span, Instant::now() + patience);
        for query in &mut self.queries {
            let before = query.answer("/v1/totals", span)?.watermark;
            while query.answer("/v1/totals", span)?.watermark == before {
                if Instant::now() >= deadline {
                    let at = before.unwrap_or_else(|| "none".to_owned());
                    return Err(VerifyError::StandsStill { url: query.url(), at, patience });
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }

    fn gross(&mut self, path: &str) -> Result<u64, VerifyError> {
        let span = self.span;
        self.queries.iter_mut().map(|query| Ok(query.answer(path, span)?.gross)).sum()
    }

    fn total(&mut self) -> Result<i64, VerifyError> {
        Ok(self.gross("/v1/totals")? as i64 - self.total as i64)
    }

    fn differences(&mut self, ledger: &Ledger) -> Result<Vec<Difference>, VerifyError> {
        let mut found = Vec::new();
        for ad in 0..ledger.ads() {
            let expected = ledger.bounds(ad);
            // Ads that no click was sent for are covered by the sum.
            if *expected.end() == 0 {
                continue;
            }
            let counted = self.gross(&ad_path(ad))? as i64 - self.per_ad[ad] as i64;
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

pub fn ad_path(ad: usize) -> String {
    format!("/v1/ads/ad_{ad:06}/aggregated_count")
}

/// What is read of an answer.
pub struct Answer {
    pub gross: u64,
    watermark: Option<String>,
}

fn parse(body: &[u8]) -> Option<Answer> {
    let json: Value = serde_json::from_slice(body).ok()?;
    Some(Answer { gross: json["gross"].as_u64()?, watermark: json["watermark"].as_str().map(str::to_owned) })
}

/// The query API of one host, or of the global tier.
pub struct Query {
    client: Client,
    /// Where its token comes from, if it has one.
    token_from: Option<String>,
    /// How often that may ask, where it is bounded.
    rate_per_s: Option<u64>,
}

impl Query {
    pub fn all(urls: &[String], token: Option<&Token>) -> Result<Vec<Query>, VerifyError> {
        let one = |url: &String| {
            let client = Client::new(url).ok_or_else(|| VerifyError::Url(url.clone()))?;
            Ok(Query {
                client: client.with_token(token.cloned()),
                token_from: token.map(|token| token.from().to_owned()),
                rate_per_s: None,
            })
        };
        urls.iter().map(one).collect()
    }

    /// Learns what its token may. One of some campaigns is refused: it is told of its own clicks alone, with the same answers.
    fn introduce(&mut self) -> Result<(), VerifyError> {
        let Some(from) = self.token_from.clone() else { return Ok(()) };
        let told: Value = serde_json::from_slice(&self.body("/v1/session")?).unwrap_or_default();
        self.rate_per_s = told["token"]["rate_per_s"].as_u64();
        if told["access"] == "scoped" { Err(VerifyError::Scoped { url: self.url(), from }) } else { Ok(()) }
    }

    fn url(&self) -> String {
        format!("http://{}", self.client.host)
    }

    pub fn answer(&mut self, path: &str, span: Span) -> Result<Answer, VerifyError> {
        let path = format!("{path}?from={}&to={}", span.from_ms, span.to_ms);
        let body = self.body(&path)?;
        let text = || String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        parse(&body).ok_or_else(|| VerifyError::Answer { url: self.url(), path, answer: text() })
    }

    /// Of a 200. An API that is asked faster than the token may is asked again when it says.
    fn body(&mut self, path: &str) -> Result<Vec<u8>, VerifyError> {
        let mut waits = 0;
        loop {
            let failed = |url, error| VerifyError::Query { url, path: path.to_owned(), error };
            let reply = self.client.reply_to(path).map_err(|error| failed(self.url(), error))?;
            let url = self.url();
            match (reply.status, self.token_from.clone()) {
                (429, Some(_)) if waits < WAITS_MAX => {
                    waits += 1;
                    std::thread::sleep(Duration::from_secs(reply.retry_after_s.unwrap_or(1).clamp(1, 60)));
                }
                (status @ (401 | 403), None) => return Err(VerifyError::NoToken { url, status }),
                (status @ (401 | 403), Some(from)) => return Err(VerifyError::BadToken { url, status, from }),
                _ => return reply.body_of_200().map_err(|error| failed(url, error)),
            }
        }
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
