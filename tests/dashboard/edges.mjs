// Two edges, of which one dies: it is said plainly, once, and unsaid when it is back.

import assert from "node:assert/strict";
import { api, ask, number, run, until, View } from "./browser.mjs";

await run(async () => {
  const view = await View.open();
  await until("two edges live", async () => (await view.text("#edge-count")) === "2 live");
  assert.equal(await view.text("#alerts"), "");
  await ask("silence ams-2");
  await until("the alert", async () => /^Edge ams-2 is silent since \d\d:\d\d:\d\d\./.test(await view.text("#alerts")));
  const row = (await view.rows("edge-rows")).find(([name]) => name === "ams-2");
  assert.equal(row[1], "silent");
  assert.equal(await view.text("#edge-note"), "1 silent, of 2");
  const said = (await api("/v1/edges")).edges.find((edge) => edge.edge_id === "ams-2");
  assert.equal(said.presence, "silent");
  assert.equal(number(row[4]), said.clicks);
  // What moves by the second is in the table; what is read out stays as it was said.
  await view.page.evaluate(() => {
    globalThis.changes = 0;
    new MutationObserver((records) => { globalThis.changes += records.length; }).observe(document.querySelector("#alerts"), { subtree: true, childList: true, characterData: true });
  });
  const heard = row[2];
  await until("time passes", async () => (await view.rows("edge-rows")).find(([name]) => name === "ams-2")[2] !== heard);
  assert.equal(await view.page.evaluate(() => globalThis.changes), 0, "the alert chatters");
  await view.accessible("a silent edge");
  await ask("wake ams-2");
  await until("nothing to say", async () => (await view.text("#alerts")) === "" && (await view.text("#edge-count")) === "2 live");
  await view.clean();
});
