//! Drives. `tollgate global`, and what an operator says to a running one: `edges`, `backup`; and `restore`, where none runs.

use std::io::Write;
use std::path::Path;
use std::sync::mpsc;

use serde_json::Value;
use tollgate_global::{STORE_FILE, ServiceConfig, ServiceError};

use super::status::{ask, resolve};
use super::wal::CommandError;
use crate::exit::Exit;
use crate::say;
use crate::units::utc;

/// Serves until a signal, or until it cannot go on.
pub fn run(config: &ServiceConfig) -> Result<Exit, CommandError> {
    let (told, stop) = mpsc::channel();
    let signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT]);
    let mut signals = signals.map_err(|error| halted(Exit::Unavailable, format!("signal handlers: {error}")))?;
    let waiting = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        signals.forever().next();
        // The service may have ended first.
        let _ = told.send(());
    });
    waiting.map_err(|error| halted(Exit::Unavailable, format!("a thread: {error}")))?;
    let ready = |at: tollgate_global::Addresses| {
        say::out(format_args!("ready query={} admin={}\n", at.query, at.admin));
    };
    let ended = tollgate_global::run(config, stop, ready);
    ended.map(|()| Exit::Clean).map_err(|error| {
        let exit = match error {
            ServiceError::Listen { .. } | ServiceError::Thread(_) => Exit::Unavailable,
            ServiceError::DataDir(_) => Exit::DataDir,
            ServiceError::QuerySide(ref error) => super::query_side_exit(error),
            ServiceError::Store(_) => Exit::Store,
            ServiceError::Kafka(_) => Exit::Kafka,
        };
        halted(exit, error.to_string())
    })
}

/// Every edge that the global tier at `admin` knows; exit status 1 where something needs a person.
pub fn list(admin: &str, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let answer = asked(admin, "GET", "/edges")?;
    show(&answer, json, out)
}

fn show(answer: &Value, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let edges = answer["edges"].as_array().cloned().unwrap_or_default();
    // Nothing waits for a silent one that holds nothing: no transaction of it was ever counted.
    let is_missed = |edge: &Value| edge["presence"] == "silent" && edge["holds_final_at_ms"].is_number();
    let needs = |edge: &Value| edge["held_at_ms"].is_number() || is_missed(edge);
    let away = answer["away"].as_str();
    let exit = if away.is_some() || edges.iter().any(needs) { Exit::Difference } else { Exit::Clean };
    if json {
        writeln!(out, "{answer:#}")?;
        return Ok(exit);
    }
    if let Some(away) = away {
        writeln!(out, "KAFKA: {away}. Nobody can be heard, and windows wait")?;
    }
    if edges.is_empty() {
        writeln!(out, "no edge has sent anything")?;
    }
    let first_held_ms = edges.iter().filter_map(|edge| edge["holds_final_at_ms"].as_i64()).min();
    for edge in &edges {
        let text = |name: &str| edge[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| edge[name].as_i64().unwrap_or_default();
        let silent = edge["silent_ms"].as_i64();
        writeln!(
            out,
            "{:<24} {:<8} transaction {}, {} clicks, {}",
            text("edge_id"),
            text("presence"),
            number("txn_seq"),
            number("clicks"),
            silent
                .map_or("no whole transaction yet".to_owned(), |ms| format!("last heard {:.1} s ago", ms as f64 / 1e3)),
        )?;
        if edge["held_at_ms"].is_number() {
            let missing = number("clicks_missing");
            writeln!(
                out,
                "    LACKS CLICKS: {missing} are known to be missing, and nothing later is final. Find out why; then"
            )?;
            writeln!(out, "    `tollgate edges accept {}` lets windows become final without them", text("edge_id"))?;
        }
        if let Some(at_ms) = edge["holds_final_at_ms"].as_i64() {
            let away = ["silent", "stopped"].contains(&text("presence").as_str());
            if away || Some(at_ms) == first_held_ms {
                let name = text("edge_id");
                let why =
                    format!(", for it may come back with older clicks; if it will not, `tollgate edges retire {name}`");
                writeln!(out, "    {}{}", held_final(at_ms), if away { &why } else { "" })?;
            }
        }
        for trouble in edge["troubles"].as_array().into_iter().flatten() {
            let (kind, why) = (trouble["kind"].as_str().unwrap_or("?"), trouble["text"].as_str().unwrap_or_default());
            writeln!(out, "    {kind}: {why}")?;
        }
    }
    Ok(exit)
}

fn held_final(at_ms: i64) -> String {
    // It has claimed no horizon yet; or nothing of it was ever counted, and it lacks clicks.
    if at_ms <= 0 {
        return "no further window becomes final".to_owned();
    }
    format!("no window that ends after {} becomes final", utc(at_ms))
}

pub fn retire(admin: &str, edge_id: &str, out: &mut dyn Write) -> Result<Exit, CommandError> {
    asked(admin, "POST", &format!("/edges/{}/retire", encoded(edge_id)))?;
    writeln!(out, "{edge_id} is retired: no window waits for it. It is back as soon as it sends something")?;
    Ok(Exit::Clean)
}

pub fn accept(admin: &str, edge_id: &str, out: &mut dyn Write) -> Result<Exit, CommandError> {
    asked(admin, "POST", &format!("/edges/{}/accept", encoded(edge_id)))?;
    writeln!(out, "the troubles of {edge_id} are accepted: windows become final without what is missing")?;
    Ok(Exit::Clean)
}

pub fn backup(admin: &str, to: &Path, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let absolute = std::path::absolute(to)?;
    let named = absolute.to_str().ok_or_else(|| CommandError::Refused("--to is no UTF-8; name another".to_owned()))?;
    let answer = asked(admin, "POST", &format!("/backup?to={}", encoded(named)))?;
    writeln!(out, "{named}: {} bytes, of one moment", answer["bytes"])?;
    Ok(Exit::Clean)
}

pub fn restore(from: &Path, data_dir: &Path, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let bytes = tollgate_global::restore(from, data_dir).map_err(|error| CommandError::Refused(error.to_string()))?;
    let to = data_dir.join(STORE_FILE);
    writeln!(out, "{}: {bytes} bytes; `tollgate global` reads on from where it was copied", to.display())?;
    Ok(Exit::Clean)
}

/// The JSON of an answer; what the other side refuses is its own words.
fn asked(admin: &str, method: &str, path: &str) -> Result<Value, CommandError> {
    let address = resolve(admin)?;
    let unreachable = |error: &dyn std::fmt::Display| {
        halted(
            Exit::Unavailable,
            format!("no `tollgate global` answers at {admin}: {error}; name its --admin-listen with --admin"),
        )
    };
    let (status, body) = ask(address, method, path).map_err(|error| unreachable(&error))?;
    let answer: Value = serde_json::from_str(&body).map_err(|_| {
        unreachable(&format!("status {status}, and no answer of it (an edge has none of these: its own store is copied while it is stopped)"))
    })?;
    match (status, answer["error"].as_str()) {
        (_, Some(error)) => Err(CommandError::Refused(error.to_owned())),
        (200, None) => Ok(answer),
        (_, None) => Err(unreachable(&format!("status {status}"))),
    }
}

/// As a part of a path or a query: all but what needs no thought.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn halted(exit: Exit, text: String) -> CommandError {
    CommandError::Halted(exit, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Whoever waits for windows to become final finds whom they wait for, and what to do.
    #[test]
    fn the_list_says_what_holds_final() {
        let edge = |name: &str, presence: &str, held: Option<i64>, holds: Option<i64>| json!({ "edge_id": name, "presence": presence, "held_at_ms": held, "holds_final_at_ms": holds });
        let shown = |edges: &[Value]| {
            let mut out = Vec::new();
            let exit = show(&json!({ "edges": edges }), false, &mut out).expect("shown");
            let text = String::from_utf8(out).expect("UTF-8");
            (exit, text.lines().filter(|line| line.starts_with("    ")).map(str::to_owned).collect::<Vec<_>>())
        };
        let live = [edge("a", "live", None, Some(2_000)), edge("b", "live", None, Some(1_000))];
        let at_one = "    no window that ends after 1970-01-01T00:00:01.000Z becomes final".to_owned();
        assert_eq!(shown(&live), (Exit::Clean, vec![at_one.clone()]), "the least of them");
        let stopped = [edge("a", "live", None, Some(500)), edge("b", "stopped", None, Some(1_000))];
        let (exit, lines) = shown(&stopped);
        assert!(exit == Exit::Clean && lines.len() == 2, "{lines:?}");
        assert!(lines[1].starts_with(&at_one) && lines[1].contains("retire b`"), "{lines:?}");
        let torn = [edge("a", "live", None, Some(1_000)), edge("x", "silent", Some(0), Some(0))];
        let (exit, lines) = shown(&torn);
        assert_eq!((exit, lines.len()), (Exit::Difference, 3), "{lines:?}");
        assert!(lines[0].contains("LACKS CLICKS") && lines[1].contains("accept x"), "{lines:?}");
        assert!(lines[2].contains("no further window becomes final") && lines[2].contains("retire x`"), "{lines:?}");
        let accepted = [edge("a", "live", None, Some(1_000)), edge("x", "silent", None, None)];
        assert_eq!(shown(&accepted), (Exit::Clean, vec![at_one]), "nothing waits for it");
    }

    #[test]
    fn names_and_paths_survive_a_url() {
        assert_eq!(encoded("fra-1"), "fra-1");
        assert_eq!(encoded("/a b/ü?"), "%2Fa%20b%2F%C3%BC%3F");
    }
}
