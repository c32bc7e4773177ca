// What `up --demo` shows at once; and on request the pictures of the README.

import assert from "node:assert/strict";
import { number, run, SHOTS, until, View } from "./browser.mjs";

await run(async () => {
  const view = await View.open();
  await until("it says so", () => view.shown("#demo"));
  await until("clicks come", async () => number(await view.text("#rate-net")) > 50);
  await until("bots and prefetches too", async () => {
    const classes = (await view.rows("rate-rows")).map(([name]) => name);
    return classes.includes("bot user agent") && classes.includes("prefetch");
  });
  await until("ads are ranked", async () => (await view.rows("top-rows")).length === 10);
  await until("regions", async () => (await view.rows("region-rows")).length > 10);
  assert.match(await view.text("#ledger-verdict"), /^Balances/);
  await view.accessible("the demo");
  await view.clean();
  if (!SHOTS) return;
  const dark = await View.open({ scheme: "dark" });
  await new Promise((resolve) => setTimeout(resolve, Number(process.env.SHOTS_AFTER_S) * 1000));
  for (const [name, shot] of [["light", view], ["dark", dark]]) {
    await shot.page.bringToFront();
    await until("drawn", async () => (await shot.rows("top-rows")).length === 10);
    await new Promise((resolve) => setTimeout(resolve, 12_000));
    await shot.page.screenshot({ path: `${SHOTS}/dashboard-${name}.png`, clip: { x: 0, y: 0, width: 1280, height: 1120 } });
  }
});
