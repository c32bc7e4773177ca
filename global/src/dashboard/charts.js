// The two charts. Colours are read from the style sheet when they are drawn, so that both schemes have theirs.

import { clock, short } from "./format.js";

const scheme = matchMedia("(prefers-color-scheme: dark)");
let colours = new Map();
const drawn = new Set();

function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}

scheme.addEventListener("change", () => {
  colours = new Map();
  drawn.forEach((plot) => plot.redraw());
});

/** Of clicks there are whole ones. */
const STEPS = [1, 10, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11].flatMap((step) => [step, 2 * step, 5 * step]);

const iso = (seconds) => new Date(seconds * 1000).toISOString();

function axes(withDates) {
  const common = { stroke: () => colour("muted"), font: "11px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: () => colour("grid"), width: 1 };
  const times = (_, splits) => splits.map((at) => {
    const text = iso(at);
    return withDates && text.slice(11, 16) === "00:00" ? text.slice(5, 10) : clock(text).slice(0, at % 60 ? 8 : 5);
  });
  return [
    { ...common, grid: { show: false }, size: 22, gap: 4, space: 72, values: times },
    { ...common, grid, size: 46, gap: 6, incrs: STEPS, values: (_, splits) => splits.map(short) },
  ];
}

function plot(host, options, data) {
  const size = () => ({ width: host.clientWidth, height: host.clientHeight });
  const chart = new uPlot({
    ...size(),
    legend: { show: false },
    // On the right a half of the last time has room.
    padding: [8, 18, 0, 0],
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    ...options,
  }, data, host);
  drawn.add(chart);
  new ResizeObserver(() => {
    // A hidden page has no width.
    if (host.clientWidth > 0) chart.setSize(size());
  }).observe(host);
  return chart;
}

/** The rates' axis is never shorter. */
const SPAN_S_MIN = 60;

const fromZero = { range: (_, __, most) => [0, Math.max(1, most * 1.18)] };

/** Rates as they come, net below and invalid on top, as far back as they are given. */
export function rates(host) {
  const line = (name) => ({ stroke: () => colour(name), fill: () => colour(name), width: 1, points: { show: false } });
  const chart = plot(host, {
    axes: axes(false),
    scales: { x: { time: true, range: (_, begin, end) => [Math.min(begin, end - SPAN_S_MIN), end] }, y: fromZero },
    series: [{}, line("invalid"), line("net")],
    cursor: { show: false },
  }, [[], [], []]);
  return (samples) => chart.setData([
    samples.map((sample) => sample.at_s),
    samples.map((sample) => (sample.net == null ? null : sample.net + sample.invalid)),
    samples.map((sample) => sample.net),
  ]);
}

/** Windows as bars; `pointed` is told the window under the pointer, or null. */
export function windows(host, pointed) {
  let shown = { rows: [], grain_s: 60, from_s: 0, to_s: 1, closed_s: null, final_s: null };
  /** Where a time is on the canvas, within the plot. */
  const place = (chart, at_s) => {
    const { left, width } = chart.bbox;
    return at_s == null ? left : Math.max(left, Math.min(left + width, chart.valToPos(at_s, "x", true)));
  };
  const shade = (chart) => {
    const { left, width, top, height } = chart.bbox;
    const begin = place(chart, shown.closed_s);
    chart.ctx.fillStyle = colour("open");
    chart.ctx.fillRect(begin, top, left + width - begin, height);
  };
  /** What is final ends here, what is closed there. */
  const states = (chart) => {
    const { ctx, bbox } = chart;
    const [final, closed] = [place(chart, shown.final_s), place(chart, shown.closed_s)];
    ctx.save();
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    ctx.textAlign = "right";
    ctx.textBaseline = "top";
    ctx.fillStyle = ctx.strokeStyle = colour("muted");
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const [name, end, begin] of [["final", final, bbox.left], ["closed", closed, final]]) {
      ctx.beginPath();
      ctx.moveTo(end, bbox.top);
      ctx.lineTo(end, bbox.top + bbox.height);
      ctx.stroke();
      if (end - begin > 44 * devicePixelRatio) ctx.fillText(name, end - 4 * devicePixelRatio, bbox.top);
    }
    ctx.restore();
  };
  /** A ring above each window that was corrected. */
  const corrected = (chart) => {
    const { ctx } = chart;
    const radius = 3 * devicePixelRatio;
    ctx.save();
    [ctx.fillStyle, ctx.strokeStyle, ctx.lineWidth] = [colour("panel"), colour("text"), 1.5 * devicePixelRatio];
    for (const row of shown.rows.filter((row) => row.version > 1)) {
      ctx.beginPath();
      const x = chart.valToPos(row.start_s + shown.grain_s * 0.42, "x", true);
      ctx.arc(x, Math.max(chart.bbox.top, chart.valToPos(row.gross, "y", true)) - radius - 1, radius, 0, 2 * Math.PI);
      ctx.fill();
      ctx.stroke();
    }
    ctx.restore();
  };
  const bars = (name) => ({
    stroke: () => colour(name),
    fill: () => colour(name),
    width: 0,
    paths: uPlot.paths.bars({ size: [0.82, 60], align: 1 }),
    points: { show: false },
  });
  const chart = plot(host, {
    axes: axes(true),
    scales: { x: { time: true, range: () => [shown.from_s, shown.to_s] }, y: fromZero },
    series: [{}, bars("invalid"), bars("net")],
    cursor: { y: false, points: { show: false }, drag: { setScale: false, x: false, y: false } },
    hooks: {
      drawClear: [shade],
      draw: [states, corrected],
      setCursor: [(chart) => {
        const at = chart.cursor.left < 0 ? null : Math.floor(chart.posToVal(chart.cursor.left, "x"));
        const row = at == null ? undefined : shown.rows.findLast((row) => row.start_s <= at);
        pointed(row ?? null);
      }],
    },
  }, [[], [], []]);
  return (next) => {
    shown = next;
    const { rows } = shown;
    chart.setData([
      rows.map((row) => row.start_s),
      rows.map((row) => row.gross),
      rows.map((row) => row.net),
    ]);
  };
}
