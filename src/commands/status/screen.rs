//! Pure. The report as one screen for a person.

use std::fmt::Write as _;

use super::report::{Report, State};
use crate::units::{about_bytes, about_seconds};

/// One screen; the last lines say whether anybody is needed.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        writeln!(out, "{name:<8} {text}").expect("writing to a string does not fail");
    };
    line("edge", &headline(report));
    if let Some(memory) = &report.memory {
        let left = memory.seconds_left.map_or("".to_owned(), |left| format!(", {} left", about_seconds(left)));
        let [touched, total] = [memory.touched_bytes, memory.total_bytes].map(bytes);
        line("memory", &format!("{touched} of {total} touched{left}"));
    }
    if let Some(recovery) = &report.recovery {
        let left = recovery.seconds_left.map_or("".to_owned(), |left| format!(", {} left", about_seconds(left)));
        let [read, total] = [recovery.read_bytes, recovery.total_bytes].map(bytes);
        line("recovery", &format!("{read} of {total} read back{left}"));
    }
    if let Some(clicks) = &report.clicks {
        let [accepted, duplicate, rejected, shed] = [
            clicks.accepted_per_second,
            clicks.duplicate_per_second,
            clicks.rejected_per_second,
            clicks.shed_per_second,
        ]
        .map(|rate| format!("{rate:.0}/s"));
        line("clicks", &format!("accepted {accepted}, duplicate {duplicate}, rejected {rejected}, shed {shed}"));
    }
    if let Some(log) = &report.log {
        let [used, limit, room, free] =
            [log.disk_bytes, log.limit_bytes, log.room_bytes, log.disk_free_bytes].map(bytes);
        line("log", &format!("{used} of {limit}, room for {room}; {free} free on its disk"));
        let without = log.hours_to_full_without_export.map_or("not filling: nothing comes in".to_owned(), full_in);
        let now = log.hours_to_full.map_or("not filling".to_owned(), full_in);
        if log.full {
            line("", "FULL: clicks are shed until some of it is exported and forgotten");
        } else {
            line("", &format!("at present {now}; if nothing were exported: {without}"));
        }
    }
    if let Some(export) = &report.export {
        let (behind, lag) = (export.clicks_behind, about_seconds(export.lag_seconds));
        let oldest = if behind > 0.0 { format!(", the oldest {lag} old") } else { String::new() };
        line("export", &format!("{behind:.0} clicks behind{oldest}"));
        let away = about_seconds(export.away_seconds);
        let answers = match (export.answers, export.never_answered) {
            (true, _) => "answers".to_owned(),
            (false, true) => format!("HAS NOT ANSWERED since the start {away} ago"),
            (false, false) => format!("AWAY for {away}"),
        };
        let (age, doubts) = (about_seconds(export.commit_age_seconds), export.doubts);
        let commit = if export.commits > 0.0 { "last commit" } else { "no commit since the start," };
        line("sink", &format!("{} {answers}; {commit} {age} ago; {doubts:.0} commits in doubt", export.sink));
    }
    if let Some(ids) = &report.ids {
        let (window, watermark) = (about_seconds(ids.window_seconds), about_seconds(ids.watermark_age_seconds));
        line("ids", &format!("remembered {window} back (horizon); watermark {watermark} behind the clock"));
        let (keys, most, slots) = (ids.keys, ids.keys_max, ids.slots);
        let percent = keys / most.max(1.0) * 100.0;
        line("", &format!("{keys:.0} ids of {most:.0} that can be held ({percent:.0} %), in {slots:.0} slots"));
    }
    if let Some(note) = &report.note {
        line("note", note);
    }
    for need in &report.needs {
        line("NEEDS", need);
    }
    if report.needs.is_empty() {
        line("needs", "nothing");
    }
    out
}

fn headline(report: &Report) -> String {
    let version = report.version.as_ref().map_or(String::new(), |version| format!(", version {version}"));
    let up = report.uptime_seconds.map_or(String::new(), |seconds| format!(", up {}", about_seconds(seconds)));
    let state = match report.state {
        State::Starting => "starting",
        State::TakingMemory => "taking memory for remembered ids",
        State::Recovering => "recovering: reads its log back",
        State::Ready => "ready",
        State::Shedding => "SHEDDING",
        State::Draining => "draining: stops",
        State::Exporting => "exporting: takes no clicks, and ends when all is exported",
        State::Unknown => report.reason.as_str(),
    };
    format!("{}: {state}{version}{up}", report.admin)
}

fn bytes(bytes: f64) -> String {
    about_bytes(bytes as u64)
}

fn full_in(hours: f64) -> String {
    format!("full in {}", about_seconds(hours * 3600.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::status::report::Look;

    #[test]
    fn a_sink_that_is_away_stands_out() {
        let metrics = "tollgate_clicks_received_total 0\ntollgate_export_sink_answers{sink=\"kafka\"} 0\n\
                       tollgate_dedup_keys 7064090\ntollgate_dedup_slots 16777216\n\
                       tollgate_export_sink_away_seconds 90\ntollgate_export_clicks_behind 12\ntollgate_export_lag_seconds 95\n";
        let look = || Look::read("{\"ready\":true,\"reason\":\"ready\"}", 200, metrics).expect("it is tollgate's");
        let text = text(&Report::new("here:1", &look(), &look(), 1.0));
        for part in [
            "here:1: ready\n",
            "kafka AWAY for 90 s",
            "12 clicks behind, the oldest 95 s old",
            "no commit since the start,",
            "7064090 ids of 14128181 that can be held (50 %), in 16777216 slots",
            "NEEDS",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
