//! Pure, but for names of hosts. Values of flags out of their text.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;
use tollgate_loadgen::plan::Rate;
use tollgate_loadgen::prove::machine;

#[derive(Clone, Debug)]
pub struct CpuList(pub Vec<usize>);

pub fn cpus(text: &str) -> Result<CpuList, String> {
    machine::cpus(text).map(CpuList).ok_or_else(|| format!("{text:?} is no list of CPUs like 1 or 0,1 or 2-5"))
}

pub fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let mut found = text.to_socket_addrs().map_err(|error| format!("{error}; write host:port"))?;
    found.next().ok_or_else(|| "no address found".to_owned())
}

pub fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    text.parse().map(Rate::ClicksPerSecond).map_err(|_| "write clicks a second, or max".to_owned())
}

pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| format!("{text:?} is no time like 10s, 500ms or 2m"))?;
    let seconds = match &text[digits.len()..] {
        "ms" => number / 1e3,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        unit => return Err(format!("unit {unit:?} is none of ms, s, m, h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
