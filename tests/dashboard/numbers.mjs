// The numbers on the page are the API's; what is sent appears without a reload; an ad is reached by keyboard; a server that dies is
// said, and one that comes back is believed.

import assert from "node:assert/strict";
import { api, ask, number, run, send, until, View } from "./browser.mjs";

const PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1";
const BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
/** What a careless link would break at. */
const AD = "ad 1/ü?&#";

const clicks = (count, click) => Array.from({ length: count }, () => click);
const ledger = async (view) => Object.fromEntries((await view.rows("ledger-rows")).map(([name, n]) => [name.split(" ")[0], number(n)]));

async function overview(view) {
  await until("an empty ranking says that it is one", async () => /, no clicks in it$/.test(await view.text("#top-window")));
  assert.equal(await view.shown("#top table"), false);
  await send([
    ...clicks(40, { ad_id: AD, country: "DE", user_agent: PHONE, user_id: "u1" }),
    ...clicks(25, { ad_id: "ad_2", country: "FR", user_id: "u2" }),
    ...clicks(10, { ad_id: "ad_2", user_agent: BOT }),
  ]);
  await until("the ledger has 75", async () => (await ledger(view)).gross === 75);
  const books = await ledger(view);
  assert.deepEqual([books.net, books.bot, books.accepted, books.difference, books.known], [65, 10, 75, 0, 0]);
  assert.match(await view.text("#ledger-verdict"), /^Balances/);
  const totals = await api("/v1/totals");
  assert.deepEqual([books.gross, books.net], [totals.gross, totals.net]);
  const { edges } = await api("/v1/edges");
  const [row] = await view.rows("edge-rows");
  assert.deepEqual([row[0], row[1], number(row[4])], [edges[0].edge_id, "live", edges[0].clicks]);

  await until("a minute was ranked", async () => (await view.rows("top-rows")).length === 2);
  const ranked = (await api("/v1/ads/top_k")).top_ads.map((ad) => [ad.ad_id, ad.net, ad.gross - ad.net]);
  const top = (await view.rows("top-rows")).map((cells) => [cells[1], number(cells[3]), number(cells[4])]);
  assert.deepEqual(top, ranked);
  assert.deepEqual(top, [[AD, 40, 0], ["ad_2", 25, 10]]);
  await until("the sums of all ads", async () => (await view.sums()).Net === "65");
  assert.match(await view.text("#complete"), /^\d\d:\d\d:\d\d$/);
}

async function liveUpdate(view) {
  const sent_at = Date.now();
  await send(clicks(5, { ad_id: "ad_3" }));
  await until("five more", async () => (await ledger(view)).gross === 80);
  console.log(`on the page ${Date.now() - sent_at} ms after they were sent`);
  await until("a rate", async () => number(await view.text("#rate-net")) > 0);
}

/** With its date, where that is not today's. */
function shownMinute(time) {
  const today = new Date().toISOString().slice(0, 10);
  return time.startsWith(today) ? time.slice(11, 16) : time.slice(0, 16).replace("T", " ");
}

/** By keyboard alone. */
async function adPage(view) {
  await view.tabTo("#find-ad");
  await view.page.keyboard.type(AD);
  await view.page.keyboard.press("Enter");
  await until("the ad's page", async () => (await view.text("#subject-title")) === `Ad ${AD}`);
  assert.equal(await view.page.title(), `${AD} · tollgate`);
  assert.ok(await view.page.evaluate(() => document.activeElement.id === "subject-title"), "the heading has the focus");
  assert.equal(await view.shown("#edges"), false);
  await send([{ ad_id: AD, country: "NL", timestamp: Date.now() - 227_000 }]);
  await until("the late click", async () => (await view.sums()).Net === "41");
  const path = `/v1/ads/${encodeURIComponent(AD)}`;
  await until("the page is the API", async () => {
    const counts = await api(`${path}/aggregated_count`, { granularity: "1m", from: Math.floor(Date.now() / 1000) - 3500 });
    assert.deepEqual(await view.sums(), {
      Net: `${counts.net}`, Invalid: `${counts.gross - counts.net}`, Gross: `${counts.gross}`, Users: `${counts.users}`, State: counts.state,
    });
    await view.page.$eval("#history-details", (details) => { details.open = true; });
    const rows = counts.rows.filter((row) => row.gross > 0).reverse();
    const shown = (await view.rows("history-rows")).map(([at, net, invalid, users, state, version]) => [at, +net, +invalid, +users, state, +version]);
    assert.deepEqual(shown, rows.map((row) => [
      shownMinute(row.window_start), row.net, row.gross - row.net, row.users, row.state, row.version,
    ]));
    const { corrections } = await api(`${path}/history`);
    const late = (await view.rows("correction-rows")).map(([minute, version, , , net, gross]) => [minute, +version, +net, +gross]);
    assert.deepEqual(late, corrections.map((one) => [shownMinute(one.window_start), one.version, one.net_added, one.gross_added]));
    assert.equal(late.length, 1);
    return true;
  });
  const regions = (await view.rows("region-rows")).map(([name, net]) => [name, net]);
  assert.deepEqual(regions, [["Germany (DE)", "40"], ["Netherlands (NL)", "1"]]);
  assert.equal((await view.rows("device-rows"))[0][0], "mobile");
  const label = await view.page.$eval("#history-chart", (chart) => chart.ariaLabel);
  assert.match(label, /net 41 in all/);
  await view.accessible("an ad's page");
  // Another grain, by keyboard; the way back.
  await view.tabTo("#grain input");
  await view.page.keyboard.press("ArrowRight");
  await until("by five minutes", async () => (await view.text("#subject-note")).includes("by 5 minutes"));
  await view.page.goBack();
  await until("all ads", async () => (await view.text("#subject-title")) === "All ads");
}

async function serverDies(view) {
  const before = await ledger(view);
  await ask("kill");
  await until("it is said", async () => (await view.text("#stream")) === "no connection, trying again");
  for (const section of ["#rates", "#top", "#subject", "#edges", "#ledger"]) {
    assert.match(await view.text(`${section} .stale-note`), /^stale: as of \d\d:\d\d:\d\d$/, section);
  }
  assert.deepEqual(await ledger(view), before);
  await view.accessible("without a connection");
  await ask("start");
  await until("it is back", async () => (await view.text("#stream")) === "live");
  assert.equal(await view.text("#ledger .stale-note"), "");
  await until("the counts are those of before", async () => (await ledger(view)).gross === before.gross);
}

await run(async () => {
  const view = await View.open();
  await until("live", async () => (await view.text("#stream")) === "live");
  assert.equal(await view.shown("#demo"), false);
  await overview(view);
  await liveUpdate(view);
  await view.accessible("the overview");
  await adPage(view);
  for (const [what, options] of [["dark", { scheme: "dark" }], ["phone", { width: 360, height: 740 }], ["a phone's ad", { width: 360, height: 740, path: "/#/ad/ad_2" }]]) {
    const other = await View.open(options);
    await until("live", async () => (await other.text("#stream")) === "live" && (await other.sums()).Net);
    await other.accessible(what);
    await other.clean();
    await other.close();
  }
  await view.weigh();
  await view.clean();
  await serverDies(view);
});
