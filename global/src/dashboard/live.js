// What comes with each live state: how far the counts are, rates, top ads, edges, the ledger.

import { rates as ratesChart } from "./charts.js";
import { at, bar, cell, clock, count, fill, head, make, note, put, rate, share, span, words } from "./format.js";

/** The chart reaches so far back. */
const SAMPLES_S = 300;
/** A rate over less is one commit's. */
const OVER_MS_MIN = 2_500;
/** Without a sample for so long, the chart has a gap. */
const GAP_S = 5;
/** Commits come every second; without one for so long, it is said. */
const COMMIT_LATE_MS = 10_000;

const samples = [];
let drawRates = null;
/** Places of the ranking shown, and of the one before it. */
let ranking = { window_end: null, places: new Map(), before: null };

export const adLink = (ad_id) => make("a", { href: `#/ad/${encodeURIComponent(ad_id)}` }, ad_id);

export function show(state) {
  standing(state);
  rates(state);
  top(state);
  edges(state);
  ledger(state);
  alerts(state);
}

function standing(state) {
  const now_ms = Date.parse(state.now);
  const behind = (time) => (time ? `${span(now_ms - Date.parse(time))} behind` : "nothing yet");
  put(at("complete"), clock(state.complete_up_to, state.now));
  put(at("complete-age"), behind(state.complete_up_to));
  put(at("final"), clock(state.final_up_to, state.now));
  put(at("as-of"), clock(state.as_of, state.now));
  put(at("as-of-age"), state.as_of ? `${span(now_ms - Date.parse(state.as_of))} ago` : "nothing yet");
  const { edges } = state;
  const live = edges.filter((edge) => edge.presence === "live").length;
  const silent = edges.filter((edge) => edge.presence === "silent").length;
  put(at("edge-count"), `${live} live`);
  put(at("edge-note"), silent ? `${silent} silent, of ${edges.length}` : `of ${edges.length}`);
  at("edge-note").className = silent ? "bad" : "";
}

/** Nothing new comes: how old it is now is not known to the second. */
export function stale(state) {
  for (const id of ["complete-age", "as-of-age"]) put(at(id), `as of ${clock(state.now)}`);
}

function rates(state) {
  const { over_ms, net, invalid } = state.clicks_per_second;
  const bad = Object.values(invalid).reduce((sum, one) => sum + one, 0);
  if (over_ms < OVER_MS_MIN) return;
  put(at("rate-net"), rate(net));
  put(at("rate-over"), `· over the last ${span(over_ms)}`);
  const classes = [["valid (net)", net], ...Object.entries(invalid).map(([name, one]) => [words(name), one])];
  fill(at("rate-rows"), classes.map(([name, one]) => make("tr", {}, head(name), cell(rate(one), "n"), cell(share(one, net + bad), "n"))));
  const at_s = Date.parse(state.now) / 1000;
  const last_s = samples.at(-1)?.at_s;
  if (last_s < at_s - GAP_S) samples.push({ at_s: last_s + 1, net: null, invalid: null });
  samples.push({ at_s, net, invalid: bad });
  while (samples[0].at_s < at_s - SAMPLES_S) samples.shift();
  const chart = at("rate-chart");
  if (chart.clientWidth === 0) return;
  drawRates ??= ratesChart(chart);
  drawRates(samples);
  const nets = samples.map((sample) => sample.net).filter((net) => net != null);
  chart.ariaLabel = `Clicks a second since this page was opened, at most 5 minutes: net ${rate(net)} now, between `
    + `${rate(Math.min(...nets))} and ${rate(Math.max(...nets))}; invalid ${rate(bad)} now`;
}

function top(state) {
  const list = state.top_ads;
  if (!list) return;
  if (list.window_end !== ranking.window_end) {
    const places = new Map(list.ads.map((ad, place) => [ad.ad_id, place]));
    ranking = { window_end: list.window_end, places, before: ranking.window_end ? ranking.places : null };
    fill(at("known-ads"), list.ads.map((ad) => make("option", { value: ad.ad_id })));
  }
  put(at("top-window"), `${clock(list.window_start, state.now)} to ${clock(list.window_end, state.now)}, ${list.ads.length > 0 ? "moves on every 10 s" : "no clicks in it"}`);
  const most = Math.max(...list.ads.map((ad) => ad.net));
  fill(at("top-rows"), list.ads.map((ad, place) => make(
    "tr", {}, cell(String(place + 1), "n"), head(adLink(ad.ad_id), bar(ad.net, most)), moved(ad.ad_id, place),
    cell(count(ad.net), "n"), cell(count(ad.gross - ad.net), "n"),
  )));
}

function moved(ad_id, place) {
  if (!ranking.before) return cell("");
  const before = ranking.before.get(ad_id);
  if (before == null) return cell("new", "up");
  const by = before - place;
  if (by === 0) return cell("");
  const arrow = make("span", { ariaHidden: "true" }, by > 0 ? "▲ " : "▼ ");
  const spoken = make("span", { className: "hidden" }, by > 0 ? "up " : "down ");
  return make("td", { className: by > 0 ? "up" : "down" }, arrow, spoken, String(Math.abs(by)));
}

const PRESENCE = {
  live: ["live", "good"],
  unheard: ["cannot be heard", "bad"],
  silent: ["silent", "bad"],
  stopped: ["stopped, as it said", ""],
  retired: ["retired", ""],
};

function edges(state) {
  document.body.dataset.access = state.ledger ? "all" : "scoped";
  for (const node of document.querySelectorAll(".all-only")) node.hidden = !state.ledger;
  fill(at("edge-rows"), state.edges.map((edge) => {
    const [text, name] = PRESENCE[edge.presence] ?? [edge.presence, ""];
    const row = make(
      "tr", { className: edge.presence === "silent" ? "dead" : "" }, head(edge.edge_id), cell(text, name),
      cell(edge.silent_ms == null ? "never" : `${span(edge.silent_ms)} ago`, "n"), cell(span(edge.lag_ms), "n"),
    );
    if (state.ledger) row.append(cell(count(edge.clicks), "n wide-only"), cell(count(edge.clicks_missing), edge.clicks_missing ? "n bad" : "n"));
    return row;
  }));
  const troubles = state.edges.flatMap((edge) => (edge.troubles ?? []).map((trouble) => ({ ...trouble, edge_id: edge.edge_id })));
  troubles.sort((a, b) => b.at.localeCompare(a.at));
  fill(at("troubles"), troubles.slice(0, 8).map((trouble) => make(
    "li", {}, `${trouble.edge_id}, ${clock(trouble.at, state.now)}: `, make("strong", {}, trouble.kind),
    ` at transaction ${count(trouble.txn_seq)}, ${count(trouble.clicks_missing)} clicks missing. ${trouble.text}`,
  )));
}

function ledger(state) {
  const { ledger } = state;
  at("ledger").hidden = !ledger;
  if (!ledger) return;
  const line = (name, number, kind = "", ...about) => make("tr", { className: kind }, head(name, " ", ...about), cell(count(number), "n"));
  const parts = Object.entries(ledger.invalid);
  fill(at("ledger-rows"), [
    line("net", ledger.net, "part", note("class valid")),
    ...parts.map(([name, clicks]) => line(words(name), clicks, "part", note("invalid"))),
    line("gross", ledger.gross, "total", note("counted: net and invalid")),
    line("accepted", ledger.accepted, "", note("what edges say their transactions hold")),
    line("difference", ledger.difference, "", note("accepted less gross")),
    line("known missing", ledger.missing, "", note(`in ${count(ledger.gaps)} ${ledger.gaps === 1 ? "gap" : "gaps"}; not in accepted`)),
  ]);
  const sum = parts.reduce((sum, [, clicks]) => sum + clicks, ledger.net);
  const balances = ledger.difference === 0 && sum === ledger.gross;
  const verdict = at("ledger-verdict");
  verdict.className = balances && ledger.missing === 0 ? "good" : "bad";
  put(verdict, !balances ? "Does not balance: this is a bug. Please report it with tollgate audit's output."
    : ledger.missing > 0 ? `Balances; ${count(ledger.missing)} clicks never arrived: the gaps are listed with their edges.`
      : "Balances: every click that edges sent is counted once.");
}

/** Said once each, with nothing in them that moves by the second: they are read out when they change. */
function alerts(state) {
  const found = [];
  for (const edge of state.edges) {
    // Nothing waits for one of which nothing whole ever came.
    if (edge.presence === "silent" && edge.seen) {
      found.push(`Edge ${edge.edge_id} is silent since ${clock(edge.seen, state.now)}. What it took since is not counted yet; windows close without it, `
        + "and none becomes final before it is back or retired.");
    }
    if (edge.held_at) {
      found.push(`Edge ${edge.edge_id}: clicks are missing. Nothing after ${clock(edge.held_at, state.now)} is final until an operator `
        + `has said: tollgate edges accept ${edge.edge_id}`);
    }
  }
  const unheard = state.edges.filter((edge) => edge.presence === "unheard").map((edge) => edge.edge_id);
  if (unheard.length) {
    found.push(`Not heard: ${unheard.join(", ")}. Kafka, or a part of the topic, does not answer; what they take is counted later, and windows wait.`);
  }
  if (state.ledger && state.ledger.difference !== 0) found.push(`The ledger does not balance: by ${count(state.ledger.difference)} clicks.`);
  const late_ms = state.as_of ? Date.parse(state.now) - Date.parse(state.as_of) : 0;
  if (late_ms > COMMIT_LATE_MS && state.edges.some((edge) => edge.presence === "live")) {
    found.push(`Nothing was committed since ${clock(state.as_of, state.now)}: the counts stand still.`);
  }
  const shown = [...at("alerts").children].map((node) => node.textContent);
  if (shown.join("\n") !== found.join("\n")) fill(at("alerts"), found.map((text) => make("p", {}, text)));
}
