//! Pure. Line plots and bars as SVG. Colours are classes `c0` to `c5` of the page's style sheet.

use std::fmt::Write;

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 42.0;
/// Around this many ticks.
const TICKS: f64 = 7.0;

pub struct Series {
    pub name: String,
    pub colour: usize,
    pub points: Vec<(f64, f64)>,
}

pub struct Plot {
    pub x_name: &'static str,
    pub y_name: &'static str,
    pub series: Vec<Series>,
    /// Vertical lines with what they are called.
    pub marks: Vec<(f64, &'static str)>,
    /// Ticks of the x axis where they are not numbers; then `x` is a position.
    pub x_ticks: Option<Vec<(f64, String)>>,
    /// `y` is drawn as its logarithm.
    pub logarithmic: bool,
}

/// Text for between tags and in quotes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Plot {
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.points.iter().copied());
        let y_of = |y: f64| if self.logarithmic { y.max(1e-3).log10() } else { y };
        let (x_low, x_high) = bounds(points().map(|(x, _)| x).chain(self.marks.iter().map(|(x, _)| *x)));
        let (mut y_low, mut y_high) = bounds(points().map(|(_, y)| y_of(y)));
        if self.logarithmic {
            (y_low, y_high) = (y_low.floor(), y_high.ceil().max(y_low.floor() + 1.0));
        } else {
            (y_low, y_high) = (0.0, y_high.max(1e-9) * 1.05);
        }
        let x_at = |x: f64| LEFT + (x - x_low) / (x_high - x_low).max(1e-9) * (WIDTH - LEFT - RIGHT);
        let y_at = |y: f64| HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
        let mut out =
            format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#, escape(self.y_name));
        let y_ticks = if self.logarithmic { decades(y_low, y_high) } else { numbers(y_low, y_high) };
        for (y, text) in y_ticks {
            let at = y_at(y);
            let _ = write!(out, r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{at:.1}" y2="{at:.1}"/>"#, WIDTH - RIGHT);
            let _ = write!(out, r#"<text class="y" x="{}" y="{:.1}">{text}</text>"#, LEFT - 8.0, at + 4.0);
        }
        let x_ticks = self.x_ticks.clone().unwrap_or_else(|| numbers(x_low, x_high));
        for (x, text) in x_ticks {
            let _ = write!(
                out,
                r#"<text class="x" x="{:.1}" y="{}">{}</text>"#,
                x_at(x),
                HEIGHT - BOTTOM + 18.0,
                escape(&text)
            );
        }
        let _ = write!(
            out,
            r#"<text class="x" x="{}" y="{}">{}</text>"#,
            (WIDTH + LEFT) / 2.0,
            HEIGHT - 6.0,
            escape(self.x_name)
        );
        for (x, name) in &self.marks {
            let at = x_at(*x);
            let _ = write!(
                out,
                r#"<line class="mark" x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{}"><title>{name} at {x:.1} s</title></line>"#,
                HEIGHT - BOTTOM
            );
        }
        for series in &self.series {
            let text = series.points.iter().map(|(x, y)| format!("{:.1},{:.1}", x_at(*x), y_at(y_of(*y))));
            let text = text.collect::<Vec<_>>().join(" ");
            let _ = write!(
                out,
                r#"<polyline class="c{}" points="{text}"><title>{}</title></polyline>"#,
                series.colour,
                escape(&series.name)
            );
        }
        out + "</svg>"
    }

    /// The names of its series with their colours, each once.
    pub fn legend(&self) -> String {
        let mut seen = Vec::new();
        let mut out = String::from(r#"<p class="legend">"#);
        for series in &self.series {
            if !seen.contains(&&series.name) {
                let _ = write!(out, r#"<span><i class="c{}"></i>{}</span>"#, series.colour, escape(&series.name));
                seen.push(&series.name);
            }
        }
        if let Some((_, name)) = self.marks.first() {
            let _ = write!(out, r#"<span><i class="mark"></i>{name}</span>"#);
        }
        out + "</p>"
    }
}

/// A group of bars: its name, and each bar's name, colour and value.
pub type Bars = (String, Vec<(&'static str, usize, f64)>);

/// Horizontal bars, each group on its own scale: what shapes cost lies orders apart.
pub fn bars(groups: &[Bars], unit: &str) -> String {
    const ROW: f64 = 22.0;
    let rows: usize = groups.iter().map(|(_, bars)| bars.len() + 1).sum();
    let height = rows as f64 * ROW + 8.0;
    let mut out = format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}">"#, escape(unit));
    let mut y = 4.0;
    for (name, bars) in groups {
        let _ = write!(out, r#"<text class="group" x="0" y="{:.1}">{}</text>"#, y + 16.0, escape(name));
        y += ROW;
        let most = bars.iter().map(|(_, _, value)| *value).fold(1e-9, f64::max);
        for (name, colour, value) in bars {
            let width = (value / most * (WIDTH - 330.0)).max(1.0);
            let _ = write!(out, r#"<text class="y" x="180" y="{:.1}">{}</text>"#, y + 15.0, escape(name));
            let _ = write!(
                out,
                r#"<rect class="c{colour}" x="190" y="{:.1}" width="{width:.1}" height="14" rx="2"/>"#,
                y + 4.0
            );
            let _ = write!(
                out,
                r#"<text class="v" x="{:.1}" y="{:.1}">{value:.0} {}</text>"#,
                198.0 + width,
                y + 15.0,
                escape(unit)
            );
            y += ROW;
        }
    }
    out + "</svg>"
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low > high { (0.0, 1.0) } else { (low, high) }
}

/// Round numbers between two.
fn numbers(low: f64, high: f64) -> Vec<(f64, String)> {
    let rough = ((high - low) / TICKS).max(1e-9);
    let size = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * size).find(|step| *step >= rough).unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|at| (at as f64 * step, number(at as f64 * step))).collect()
}

/// Powers of ten between two exponents.
fn decades(low: f64, high: f64) -> Vec<(f64, String)> {
    (low as i32..=high as i32).map(|at| (f64::from(at), number(10f64.powi(at)))).collect()
}

fn number(value: f64) -> String {
    match value.abs() {
        millions if millions >= 1e6 => format!("{} M", trimmed(value / 1e6)),
        thousands if thousands >= 1e4 => format!("{} k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_bounds() {
        let text = |low, high| numbers(low, high).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(text(0.0, 3_400_000.0), ["0", "500 k", "1 M", "1.5 M", "2 M", "2.5 M", "3 M"]);
        assert_eq!(text(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(text(7.0, 19.0), ["8", "10", "12", "14", "16", "18"]);
    }

    #[test]
    fn points_lie_within_the_plot_whatever_they_are() {
        for points in [vec![], vec![(0.0, 0.0)], vec![(1.0, 1e9), (2.0, 0.0)], vec![(5.0, 5.0), (5.0, 5.0)]] {
            for logarithmic in [false, true] {
                let series = Series { name: "a<b".to_owned(), colour: 0, points: points.clone() };
                let plot =
                    Plot { x_name: "s", y_name: "ms", series: vec![series], marks: vec![], x_ticks: None, logarithmic };
                let svg = plot.svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("a<b"), "{points:?}: {svg}");
                let line = svg.split("<polyline class=\"c0\" points=\"").nth(1).unwrap().split('"').next().unwrap();
                for point in line.split_ascii_whitespace() {
                    let (x, y) = point.split_once(',').unwrap();
                    assert!((0.0..=WIDTH).contains(&x.parse::<f64>().unwrap()), "{point}");
                    assert!((0.0..=HEIGHT).contains(&y.parse::<f64>().unwrap()), "{point}");
                }
            }
        }
    }
}
