// What the page says where something is missing: an ad that nobody knows, a server that is busy, hangs, or lets no more listen.

import assert from "node:assert/strict";
import { ask, listen, number, run, until, View } from "./browser.mjs";

/** As many as the server lets listen. */
const CLIENTS_MAX = 256;
/** A rate over less is that of a single commit. */
const OVER_S_MIN = 2.5;

const live = (view) => until("live", async () => (await view.text("#stream")) === "live");
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function firstRate(view) {
  await until("a rate", async () => (await view.text("#rate-net")) !== "–");
  const over = /over the last ([\d.]+) s/.exec(await view.text("#rate-over"));
  assert.ok(Number(over[1]) >= OVER_S_MIN, `a rate over ${over[1]} s is shown`);
}

async function unknownAd() {
  const view = await View.open({ path: "/#/ad/nobody" });
  await until("it is said", async () => /No clicks of this ad in this span\..* is the id right\?$/.test(await view.text("#subject-note")));
  const sums = await view.sums();
  assert.deepEqual([sums.Net, sums.Gross, sums.Users], ["0", "0", "0"]);
  // No axes without anything on them, no tables without rows.
  for (const empty of ["#history-chart", "#history-details", ".groups", "#corrections table"]) assert.equal(await view.shown(empty), false, empty);
  assert.match(await view.text("#corrections-note"), /^None in this span/);
  await view.accessible("an ad that nobody knows");
  // The way past the header keeps the address, which names the ad.
  await view.tabTo("#skip");
  await view.page.keyboard.press("Enter");
  assert.deepEqual(await view.page.evaluate(() => [location.hash, document.activeElement.id]), ["#/ad/nobody", "main"]);
  await view.page.evaluate(() => { location.hash = "#/ad/demo_ad_01"; });
  await until("one that there is", async () => (await view.shown("#history-chart")) && (await view.rows("region-rows")).length > 3);
  assert.ok(await view.page.$eval("#history-chart canvas", (canvas) => canvas.width > 300));
  await view.clean();
  await view.close();
}

/** No browser asks for it, and the page does not ask for something else in its place. */
async function nameOfAFolder() {
  for (const name of [".", ".."]) {
    const view = await View.open({ path: `/#/ad/${name}` });
    await until("it is said", async () => (await view.text("#subject-note")).startsWith(`A browser cannot ask for an ad named “${name}”.`));
    assert.deepEqual([await view.text("#subject-title"), await view.text("#subject-error")], [`Ad ${name}`, ""]);
    for (const empty of ["#history-chart", "#history-details", ".groups", "#corrections"]) assert.equal(await view.shown(empty), false, empty);
    await view.clean();
    await view.close();
  }
}

/** The stream goes on, but questions are not answered. */
async function busyServer() {
  const view = await View.open({ path: "/#/ad/demo_ad_01" });
  await until("numbers", async () => (await view.sums()).Net != null);
  const refused = await view.refuse(/^\/v1\/ads\//, "other questions have been read for 10 s; ask again");
  await until("it is said", async () => (await view.text("#subject-error")) === "Not read: other questions have been read for 10 s; ask again. "
    + "It is asked for again. What is shown is of before.");
  const [before, asked] = [await view.sums(), refused.asked];
  await view.accessible("a busy server");
  await pause(14_000);
  assert.deepEqual(await view.sums(), before);
  // Four questions a look; not one each two seconds any more.
  const looks = (refused.asked - asked) / 4;
  assert.ok(looks >= 1 && looks <= 3, `a busy server was asked ${looks} times in 14 s`);
  // Of another ad there is nothing of before.
  await view.page.evaluate(() => { location.hash = "#/ad/demo_ad_02"; });
  await until("the other is not read either", async () => /asked for again\.$/.test(await view.text("#subject-error")));
  assert.deepEqual([await view.sums(), await view.text("#subject-note")], [{}, ""]);
  refused.off = true;
  await until("it is read", async () => (await view.text("#subject-error")) === "" && number((await view.sums()).Net) > 0);
  view.forgive(/503/);
  await view.clean();
  await view.close();
}

/** A stream that is refused says by what, to a page that has numbers and to one that has none yet. */
async function tooMany(view) {
  const others = await listen(CLIENTS_MAX - 1);
  const refused = await View.open();
  const says = `The server says: ${CLIENTS_MAX} clients listen already, which is as many as may; ask again later`;
  await until("it is refused", async () => (await refused.text("#refusal")) === says);
  assert.equal(await refused.text("#stream"), "refused (503), trying again");
  assert.equal(await refused.shown("#counts"), false);
  await refused.accessible("refused");
  assert.equal(await view.text("#stream"), "live");
  others();
  await live(refused);
  assert.deepEqual([await refused.text("#refusal"), await refused.shown("#counts")], ["", true]);
  refused.forgive(/503/);
  await refused.clean();
  await refused.close();
}

/** Columns of the rates' chart, just above its floor, that are painted. */
const painted = (view) => view.page.$eval("#rate-chart canvas", (canvas) => {
  const { width, height } = canvas;
  const floor = height - Math.round(26 * devicePixelRatio);
  // The page's own is not made to be read again and again.
  const context = new OffscreenCanvas(width, 1).getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, -floor);
  const { data } = context.getImageData(0, 0, width, 1);
  return Array.from({ length: width }, (_, x) => data[4 * x + 3] > 0 && data[4 * x + 2] > data[4 * x] + 60);
});

async function serverHangs(view) {
  await until("some rates", async () => (await painted(view)).filter(Boolean).length > 30);
  await ask("hang");
  const hung_at = Date.now();
  await until("it is said", async () => (await view.text("#stream")) === "nothing new comes, trying again");
  console.log(`said ${Date.now() - hung_at} ms after the server hung`);
  const stale = await view.text("#ledger .stale-note");
  assert.match(stale, /^stale: as of \d\d:\d\d:\d\d$/);
  // How far behind it is now nobody knows.
  for (const age of ["#complete-age", "#as-of-age"]) assert.equal(await view.text(age), stale.replace("stale: ", ""), age);
  await view.accessible("a server that hangs");
  await pause(8_000);
  assert.equal(await view.text("#ledger .stale-note"), stale);
  await ask("go on");
  await live(view);
  assert.equal(await view.text("#ledger .stale-note"), "");
  await until("an age", async () => / behind$/.test(await view.text("#complete-age")));
  // Nothing is drawn of the time of which nothing is known.
  await until("a gap in the chart", async () => /^0*1+0{4,}1+0*$/.test((await painted(view)).map(Number).join("")));
}

await run(async () => {
  const view = await View.open();
  await live(view);
  await firstRate(view);
  await unknownAd();
  await nameOfAFolder();
  await busyServer();
  await tooMany(view);
  await view.page.bringToFront();
  await serverHangs(view);
  // A request that was given up.
  view.forgive(/ERR_/);
  await view.clean();
});
