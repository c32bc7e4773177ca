//! A server of clicks and counts on plain threads, which remembers every id, and misbehaves on purpose.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is wrong with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Honest,
    /// Honest, but answers some requests 503, having taken the first half of their clicks.
    Sheds,
    /// Answers everything 503, having taken nothing.
    Overloaded,
    /// Honest, but closes some connections having taken the request and not answered it.
    Resets,
    /// Honest, but leaves some requests without any answer.
    Mute,
    /// Answers nothing that it takes: every outcome stays unknown.
    Silent,
    /// Acknowledges a click now and then that it does not count.
    LosesAClick,
    /// Answers a known id as a duplicate, but counts it again.
    CountsDuplicates,
    /// Counts rightly, but calls duplicates accepted.
    LiesAboutDuplicates,
    /// Counts broken clicks as good ones.
    TakesBrokenClicks,
    /// Counts a click for another ad now and then: the sum is right.
    MixesUpAds,
    /// Counts a click again with the export after the one that completed the counts.
    CountsAgainLater,
    /// Counts rightly, but exports nothing more once it has told its watermark.
    StandsStill,
}

/// Between two exports: each moves the watermark.
const EXPORT_INTERVAL: Duration = Duration::from_millis(50);

struct State {
    requests: u64,
    ids: BTreeSet<String>,
    /// Ad and event time of each click counted.
    counted: Vec<(String, i64)>,
    began: Instant,
    /// Exports until the sum was first asked for after the last click.
    asked_at: Option<u128>,
}

pub struct Server {
    pub clicks: SocketAddr,
    pub query: SocketAddr,
}

/// Serves until the test process ends.
pub fn start(manner: Manner) -> Server {
    let (ids, counted) = (BTreeSet::new(), Vec::new());
    let state = State { requests: 0, ids, counted, began: Instant::now(), asked_at: None };
    let state = Arc::new(Mutex::new(state));
    let query_state = state.clone();
    Server {
        clicks: listen(move |stream| clicks(stream, manner, &state)),
        query: listen(move |stream| query(stream, manner, &query_state)),
    }
}

fn listen(serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), serve.clone());
            std::thread::spawn(move || {
                let _ = serve(stream);
            });
        }
    });
    address
}

/// Request line and body, or `None` at the end of the connection.
fn request(input: &mut BufReader<TcpStream>) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut first = String::new();
    if input.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some((first, body)))
}

fn reply(output: &mut TcpStream, status: &str, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    output.write_all((head + &body).as_bytes())
}

fn clicks(stream: TcpStream, manner: Manner, state: &Mutex<State>) -> std::io::Result<()> {
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    while let Some((first, body)) = request(&mut input)? {
        assert!(first.starts_with("POST /v1/clicks "), "{first}");
        let mut state = state.lock().unwrap();
        state.requests += 1;
        let mishap = state.requests.is_multiple_of(23);
        let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').collect();
        if manner == Manner::Sheds && mishap {
            state.take(&lines[..lines.len() / 2], manner);
            drop(state);
            output.write_all(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        if manner == Manner::Overloaded {
            output.write_all(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        let [accepted, duplicates, rejected] = state.take(&lines, manner);
        drop(state);
        match manner {
            Manner::Resets if mishap => return Ok(()),
            // Until the client gives up.
            Manner::Mute if mishap => return std::io::copy(&mut input, &mut std::io::sink()).map(drop),
            Manner::Silent => continue,
            _ => {}
        }
        let status = if accepted + duplicates == 0 { "422 Unprocessable Content" } else { "202 Accepted" };
        reply(&mut output, status, &json!({"accepted": accepted, "duplicates": duplicates, "rejected": rejected}))?;
    }
    Ok(())
}

impl State {
    fn take(&mut self, lines: &[&[u8]], manner: Manner) -> [u32; 3] {
        let [mut accepted, mut duplicates, mut rejected] = [0; 3];
        self.asked_at = None;
        for line in lines {
            let click: Value = serde_json::from_slice(line).unwrap_or_default();
            let good = click["ad_id"].is_string() && click["timestamp"].is_i64();
            if !good && manner != Manner::TakesBrokenClicks {
                rejected += 1;
                continue;
            }
            let mut ad = click["ad_id"].as_str().unwrap_or("ad_000000").to_owned();
            let id = click["request_id"].as_str().map_or_else(|| format!("{line:?}"), str::to_owned);
            let at_ms = click["timestamp"].as_i64().unwrap_or(0);
            let fresh = self.ids.insert(id);
            let nth = self.ids.len();
            match (fresh, manner) {
                (false, Manner::CountsDuplicates) => self.counted.push((ad, at_ms)),
                (false, Manner::LiesAboutDuplicates) => {
                    accepted += 1;
                    continue;
                }
                (true, Manner::LosesAClick) if nth == 100 => {}
                (true, Manner::MixesUpAds) if nth == 100 => {
                    ad = if ad == "ad_000000" { "ad_000001" } else { "ad_000000" }.to_owned();
                    self.counted.push((ad, at_ms));
                }
                (true, _) => self.counted.push((ad, at_ms)),
                (false, _) => {}
            }
            accepted += u32::from(fresh);
            duplicates += u32::from(!fresh);
        }
        [accepted, duplicates, rejected]
    }
}

fn query(stream: TcpStream, manner: Manner, state: &Mutex<State>) -> std::io::Result<()> {
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    while let Some((first, _)) = request(&mut input)? {
        let path = first.split(' ').nth(1).unwrap();
        let (path, arguments) = path.split_once('?').unwrap();
        let argument = |name: &str| -> i64 {
            let mut pairs = arguments.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).unwrap().1.parse().unwrap()
        };
        let (from, to) = (argument("from"), argument("to"));
        let ad = path.strip_prefix("/v1/ads/").and_then(|rest| rest.strip_suffix("/aggregated_count"));
        assert!(ad.is_some() || path == "/v1/totals", "{path}");
        let mut state = state.lock().unwrap();
        let mine = |(name, at): &&(String, i64)| ad.is_none_or(|ad| ad == name) && (from..to).contains(at);
        let mut gross = state.counted.iter().filter(mine).count();
        let exports = state.began.elapsed().as_millis() / EXPORT_INTERVAL.as_millis();
        if ad.is_none() && gross > 0 {
            state.asked_at.get_or_insert(exports);
        }
        let again = state.asked_at.is_some_and(|at| exports > at);
        gross += usize::from(manner == Manner::CountsAgainLater && gross > 0 && again);
        let watermark = if manner == Manner::StandsStill { 0 } else { exports };
        drop(state);
        reply(
            &mut output,
            "200 OK",
            &json!({"click_count": gross, "gross": gross, "net": gross, "watermark": format!("export {watermark}")}),
        )?;
    }
    Ok(())
}
