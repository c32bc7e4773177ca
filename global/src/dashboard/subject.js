// One ad's page, or the same of all ads: history, groups, corrections.

import { ask, Refused } from "./api.js";
import { windows as windowsChart } from "./charts.js";
import { at, bar, cell, clock, count, fill, head, make, minute, note, put, region, share, signed, words } from "./format.js";

const GRAINS = {
  "1m": { grain_s: 60, windows: 60, about: "the last hour by minute" },
  "5m": { grain_s: 300, windows: 72, about: "the last 6 hours by 5 minutes" },
  "1h": { grain_s: 3600, windows: 48, about: "the last 2 days by hour" },
};
/** Corrections and groups that are shown. */
const ROWS_MAX = 10;
/** An ad is read anew with the commits, but no more often; all ads together are a longer read. */
const PACE_MS = { ad: 2_000, all: 10_000 };
/** Ads whose name no browser sends as it is: in a path it means the folder, or the one above. */
const NAMES_OF_FOLDERS = [".", ".."];
/** Who is busy, or lets a token ask only so often, is asked less and less, and no less than this. */
const PACE_MS_MAX = 30_000;

let draw = null;
let asked = 0;
let read_ms = 0;
let refusals = 0;
/** What was read last, so that an answer that changed nothing changes nothing on the page. */
let shown = "";

/** Corrections go with their minutes, before the hours that the rest of the page is of: it stands without them. */
const not_kept = (error) => {
  if (error instanceof Refused && error.status === 400) return { refused: error.message, corrections: [] };
  throw error;
};

export const grain = () => document.querySelector("#grain :checked").value;

/** Reads what is due. `ad_id`: null for all ads; `now`: of the server. */
export async function refresh(ad_id, now, at_once = false) {
  const age_ms = performance.now() - read_ms;
  const pace_ms = (ad_id == null ? PACE_MS.all : PACE_MS.ad) * 2 ** refusals;
  if (!at_once && age_ms < Math.min(pace_ms, PACE_MS_MAX)) return;
  read_ms = performance.now();
  asked += 1;
  if (NAMES_OF_FOLDERS.includes(ad_id)) {
    at("subject").classList.add("none");
    put(at("subject-note"), `A browser cannot ask for an ad named “${ad_id}”. Its clicks are in all sums, and a row of /v1/totals?group_by=ad.`);
    return;
  }
  const [turn, granularity] = [asked, grain()];
  const { grain_s, windows } = GRAINS[granularity];
  const to_s = Math.floor(Date.parse(now) / 1000 / grain_s + 1) * grain_s;
  const span = { from: to_s - windows * grain_s, to: to_s };
  const base = ad_id == null ? "/v1/totals" : `/v1/ads/${encodeURIComponent(ad_id)}/aggregated_count`;
  try {
    const [counts, regions, devices, history] = await Promise.all([
      ask(base, { ...span, granularity }),
      ask(base, { ...span, group_by: "region" }),
      ask(base, { ...span, group_by: "device" }),
      ad_id == null ? null : ask(`/v1/ads/${encodeURIComponent(ad_id)}/history`, { ...span, limit: 1000 }).catch(not_kept),
    ]);
    // Another ad or span was asked for meanwhile.
    if (turn !== asked) return;
    refusals = 0;
    put(at("subject-error"), "");
    show({ ad_id, granularity, span, counts, regions, devices, history, now });
  } catch (error) {
    if (turn !== asked) return;
    refusals = Math.min(refusals + 1, 4);
    if (shown === "") put(at("subject-note"), "");
    const of = shown === "" ? "" : " What is shown is of before.";
    put(at("subject-error"), `Not read: ${error instanceof Refused ? error.message : "no connection"}. It is asked for again.${of}`);
  }
}

/** Nothing of another ad stays on the page while this one is read. */
export function clear() {
  shown = "";
  // What is under way is another's.
  asked += 1;
  refusals = 0;
  at("subject").classList.remove("none");
  put(at("subject-error"), "");
  put(at("readout"), "");
  for (const id of ["subject-sums", "history-rows", "region-rows", "device-rows", "class-rows", "correction-rows"]) fill(at(id), []);
  draw?.({ rows: [], grain_s: 60, from_s: 0, to_s: 1, closed_s: null, final_s: null });
  put(at("subject-note"), "Reading…");
}

function show(read) {
  const { ad_id, granularity, span, counts, regions, devices, history, now } = read;
  const text = JSON.stringify([ad_id, span, counts, regions, devices, history]);
  if (text === shown) return;
  shown = text;
  const rows = filled(counts.rows, granularity, span, now);
  put(at("subject-note"), note_of(read));
  at("subject").classList.toggle("none", counts.gross === 0);
  sums(counts);
  chart(rows, read);
  table(rows, now);
  groups("region-rows", regions.rows, "region", region);
  groups("device-rows", devices.rows, "device", words);
  const classes = Object.entries(counts.classes).sort(([, a], [, b]) => b - a);
  fill(at("class-rows"), classes.map(([name, clicks]) => make(
    "tr", {}, head(words(name), " ", note(name === "valid" ? "net" : "invalid"), bar(clicks, counts.gross)), cell(count(clicks), "n"),
    cell(share(clicks, counts.gross), "n"),
  )));
  corrections(history, now);
}

function note_of({ ad_id, granularity, counts, now }) {
  const text = `${GRAINS[granularity].about}: ${minute(counts.from, now)} to ${minute(counts.to, now)}, as of ${clock(counts.as_of, now)}`;
  const whole = `${text[0].toUpperCase()}${text.slice(1)}.`;
  if (counts.gross > 0) return whole;
  if (ad_id == null) return `${whole} No clicks in this span.`;
  return `${whole} No clicks of this ad in this span. One that nobody ever clicked, and one that is not the token's, look the same: is the id right?`;
}

function sums(counts) {
  const one = (name, number, about) => make("div", {}, make("dt", {}, name), make("dd", {}, number, " ", note(about)));
  const invalid = counts.gross - counts.net;
  fill(at("subject-sums"), [
    one("Net", count(counts.net), "clicks"),
    one("Invalid", count(invalid), share(invalid, counts.gross)),
    one("Gross", count(counts.gross), "clicks"),
    one("Users", count(counts.users), "estimate, ±1.6 %"),
    one("State", counts.state, counts.state === "open" ? "clicks are still expected" : `version ${count(counts.version)}`),
  ]);
}

/** Every window of the span: the API names those that have clicks. */
function filled(rows, granularity, { from, to }, now) {
  const { grain_s } = GRAINS[granularity];
  const known = new Map(rows.map((row) => [Date.parse(row.window_start) / 1000, row]));
  const found = [];
  for (let start_s = from; start_s < to; start_s += grain_s) {
    const row = known.get(start_s);
    const start = new Date(start_s * 1000).toISOString();
    found.push({ gross: 0, net: 0, users: 0, state: "", version: 0, ...row, start_s, name: minute(start, now) });
  }
  return found;
}

const told = (row) => `${row.name}: net ${count(row.net)}, invalid ${count(row.gross - row.net)}, users ${count(row.users)}`
  + (row.state ? `, ${row.state}, version ${row.version}` : "");

function chart(rows, { ad_id, granularity, span, counts }) {
  const host = at("history-chart");
  if (host.clientWidth === 0) return;
  draw ??= windowsChart(host, (row) => put(at("readout"), row ? told(row) : ""));
  const seconds = (time) => (time ? Date.parse(time) / 1000 : null);
  const [closed_s, final_s] = [seconds(counts.complete_up_to), seconds(counts.final_up_to)];
  draw({ rows, grain_s: GRAINS[granularity].grain_s, from_s: span.from, to_s: span.to, closed_s, final_s });
  const most = rows.reduce((most, row) => (row.net > most.net ? row : most), rows[0]);
  const high = most.net > 0 ? `, most in the window from ${most.name} with ${count(most.net)}` : "";
  host.ariaLabel = `Clicks of ${ad_id == null ? "all ads" : `ad ${ad_id}`}, ${GRAINS[granularity].about}: net ${count(counts.net)} in all${high}. `
    + "The table below has every window.";
}

function table(rows, now) {
  const seen = rows.filter((row) => row.gross > 0 || row.version > 0).reverse();
  fill(at("history-rows"), seen.map((row) => make(
    "tr", {}, head(row.name), cell(count(row.net), "n"), cell(count(row.gross - row.net), "n"), cell(count(row.users), "n"),
    cell(row.state), cell(count(row.version), "n"),
  )));
}

function groups(id, rows, field, name) {
  const sorted = rows.toSorted((a, b) => b.net - a.net || b.gross - a.gross);
  const net = rows.reduce((sum, row) => sum + row.net, 0);
  const line = (text, of) => make(
    "tr", {}, head(text, bar(of.net, sorted[0].net)), cell(count(of.net), "n"), cell(count(of.gross - of.net), "n"), cell(share(of.net, net), "n"),
  );
  const lines = sorted.slice(0, ROWS_MAX).map((row) => line(name(row[field]), row));
  const rest = sorted.slice(ROWS_MAX);
  if (rest.length > 0) {
    const sum = (what) => rest.reduce((sum, row) => sum + row[what], 0);
    lines.push(line(`${rest.length} others`, { net: sum("net"), gross: sum("gross") }));
  }
  fill(at(id), lines);
}

const REASONS = {
  late: "late",
  very_late: "very late",
  silent_edge: "from an edge that was silent",
  after_final: "after it was final",
};

function corrections(history, now) {
  at("corrections").hidden = history == null;
  if (history == null) return;
  const all = history.corrections.toSorted((a, b) => b.at.localeCompare(a.at));
  const more = all.length > ROWS_MAX ? `, of which the newest ${ROWS_MAX} are shown` : "";
  put(at("corrections-note"), history.refused != null
    ? `Not of this span: ${history.refused}.`
    : all.length === 0
    ? "None in this span: no minute changed after it was closed."
    : `${count(all.length)}${history.next_cursor ? " and more" : ""} in this span${more}. Each is a new version of its minute.`);
  fill(at("correction-rows"), all.slice(0, ROWS_MAX).map((one) => make(
    "tr", {}, head(minute(one.window_start, now)), cell(count(one.version)), cell(clock(one.at, now)),
    cell(REASONS[one.reason] ?? words(one.reason)), cell(signed(one.net_added), "n"), cell(signed(one.gross_added), "n"),
  )));
}
