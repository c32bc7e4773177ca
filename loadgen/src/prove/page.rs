//! Pure. A proof as one HTML page: everything it needs is in it.

use super::measured::{Sample, ms};
use super::plot::{Bars, Plot, Series, bars, escape};
use super::proof::{Proof, rate};
use hdrhistogram::Histogram;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");

/// Quantiles that a latency plot has, by their share of slower requests.
const STEPS: [f64; 16] =
    [1.0, 0.75, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.01, 0.005, 0.003, 0.001, 0.000_5, 0.000_3, 0.000_1, 0.000_01];

pub fn page(proof: &Proof) -> String {
    let passed = proof.failures().is_empty();
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>tollgate: a proof</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body><main>\
         <h1><span class=\"{}\">{}</span> {}</h1>",
        if passed { "pass" } else { "fail" },
        if passed { "pass" } else { "fail" },
        escape(&proof.headline())
    );
    for reason in proof.failures() {
        let _ = write!(out, "<p class=\"failed\">{}</p>", escape(&reason));
    }
    for reason in proof.invalid() {
        let _ = write!(out, "<p class=\"invalid\">Invalid: {}</p>", escape(&reason));
    }
    out += &table(proof);
    section(
        &mut out,
        "Clicks acknowledged a second",
        &over_time(proof, "clicks/s", |sample| Some(sample.clicks_per_s)),
    );
    section(&mut out, "CPUs in use", &cpus(proof));
    if proof.timeline.iter().any(|sample| sample.remembered_s.is_some()) {
        section(&mut out, "Span of ids remembered", &over_time(proof, "seconds", |sample| sample.remembered_s));
    }
    section(&mut out, "Acknowledgement in an open loop, from the planned time of a request", &latencies(proof));
    if !proof.freshness.is_empty() {
        let series = vec![curve("freshness", 0, &proof.freshness)];
        section(&mut out, "From a click's acknowledgement to the answer that shows it", &quantile_plot(series));
    }
    let costs = costs(proof);
    if !costs.is_empty() {
        let _ = write!(out, "<section><h2>CPU a click at top rate</h2>{}</section>", bars(&costs, "ns"));
    }
    out += "<section><h2>Conditions</h2><dl>";
    for (name, value) in proof.lines() {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escape(&name), escape(&value));
    }
    out + "</dl></section></main></body></html>\n"
}

fn section(out: &mut String, title: &str, plot: &Plot) {
    let _ = write!(out, "<section><h2>{}</h2>{}{}</section>", escape(title), plot.legend(), plot.svg());
}

fn table(proof: &Proof) -> String {
    let mut out = String::from(
        "<table><tr><th>requests of</th><th>clicks/s on disk</th><th>server's CPU a click</th><th>machine's, less client</th>\
         <th>null server's</th><th>share of null</th><th>p50 in an open loop</th><th>p99</th></tr>",
    );
    let ns = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |ns| format!("{ns:.0} ns"));
    for figures in &proof.shapes {
        let (cost, null, open_loop) = (figures.cost, figures.null, figures.open_loop.as_ref());
        let latency =
            |of_one| open_loop.map_or_else(|| "–".to_owned(), |one| format!("{:.2} ms", ms(&one.latency, of_one)));
        let cells = [
            escape(figures.shape.name),
            rate(figures.acknowledged_per_s()),
            ns(cost.and_then(|cost| cost.server_ns)),
            ns(cost.and_then(|cost| cost.machine_ns)),
            ns(null.and_then(|null| null.server_ns)),
            figures.share_of_null().map_or_else(|| "–".to_owned(), |share| format!("{share:.2}")),
            latency(0.5),
            latency(0.99),
        ];
        let _ = write!(out, "<tr><td>{}</td></tr>", cells.join("</td><td>"));
    }
    out + "</table>"
}

/// A colour for each shape; what belongs to none has the last.
fn colour(proof: &Proof, phase: &str) -> (usize, String) {
    let shapes = proof.shapes.iter().enumerate();
    let found = shapes.filter(|(_, figures)| phase.starts_with(figures.shape.name)).map(|(at, _)| at).next();
    found.map_or((5, phase.to_owned()), |at| (at, proof.shapes[at].shape.name.to_owned()))
}

/// One line a measurement, so that the time between two of them is a gap.
fn over_time(proof: &Proof, y_name: &'static str, value: impl Fn(&Sample) -> Option<f64>) -> Plot {
    let mut series: Vec<Series> = Vec::new();
    let mut last: Option<&Sample> = None;
    for sample in &proof.timeline {
        let goes_on = last.is_some_and(|last| last.phase == sample.phase && sample.at_s - last.at_s < 2.0);
        let (colour, name) = colour(proof, &sample.phase);
        if !goes_on {
            series.push(Series { name, colour, points: Vec::new() });
        }
        if let (Some(series), Some(value)) = (series.last_mut(), value(sample)) {
            series.points.push((sample.at_s, value));
        }
        last = Some(sample);
    }
    timed(proof, y_name, series)
}

fn cpus(proof: &Proof) -> Plot {
    let mut series = over_time(proof, "CPUs", |sample| Some(sample.machine_cpus)).series;
    for line in &mut series {
        (line.name, line.colour) = ("the whole machine, with the client".to_owned(), 3);
    }
    if !proof.server_cpus.is_empty() {
        for mut line in over_time(proof, "CPUs", |sample| Some(sample.server_cpus)).series {
            (line.name, line.colour) = ("the server's process".to_owned(), 4);
            series.push(line);
        }
    }
    timed(proof, "CPUs", series)
}

fn timed(proof: &Proof, y_name: &'static str, series: Vec<Series>) -> Plot {
    let marks = proof.kills.iter().map(|kill| (kill.at_s, "kill")).collect();
    Plot { x_name: "seconds", y_name, series, marks, x_ticks: None, logarithmic: false }
}

fn latencies(proof: &Proof) -> Plot {
    let shapes = proof.shapes.iter().enumerate();
    let curves =
        shapes.filter_map(|(at, figures)| Some(curve(figures.shape.name, at, &figures.open_loop.as_ref()?.latency)));
    quantile_plot(curves.collect())
}

/// A histogram by its quantiles, as far as it has values for them.
fn curve(name: &str, colour: usize, histogram: &Histogram<u64>) -> Series {
    let known = STEPS.iter().filter(|slower| **slower * histogram.len() as f64 >= 1.0);
    let points = known.map(|slower| (-slower.log10(), ms(histogram, 1.0 - slower))).collect();
    Series { name: name.to_owned(), colour, points }
}

fn quantile_plot(series: Vec<Series>) -> Plot {
    let furthest = series.iter().flat_map(|series| &series.points).map(|(x, _)| *x).fold(0.0, f64::max);
    let names = ["0 %", "p90", "p99", "p99.9", "p99.99", "p99.999"];
    let ticks = names.iter().enumerate().map(|(at, name)| (at as f64, (*name).to_owned()));
    let ticks = ticks.chain([(2f64.log10(), "p50".to_owned())]).filter(|(x, _)| *x <= furthest + 1e-9);
    Plot {
        x_name: "share of faster ones",
        y_name: "ms",
        x_ticks: Some(ticks.collect()),
        series,
        marks: Vec::new(),
        logarithmic: true,
    }
}

fn costs(proof: &Proof) -> Vec<Bars> {
    let mut groups = Vec::new();
    for figures in &proof.shapes {
        let (cost, null) = (figures.cost, figures.null);
        let rows = [
            ("null server", 5, null.and_then(|null| null.server_ns)),
            ("server", 4, cost.and_then(|cost| cost.server_ns)),
            ("machine, less client", 3, cost.and_then(|cost| cost.machine_ns)),
            ("client", 1, cost.map(|cost| cost.client_ns)),
        ];
        let rows: Vec<_> = rows.into_iter().filter_map(|(name, colour, ns)| Some((name, colour, ns?))).collect();
        if !rows.is_empty() {
            groups.push((figures.shape.name.to_owned(), rows));
        }
    }
    groups
}
