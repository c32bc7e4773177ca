// Kafka does not answer: no edge can be heard, which says nothing of any of them. And an edge of which nothing whole ever came.

import assert from "node:assert/strict";
import { api, ask, run, until, View } from "./browser.mjs";

const ALERT = "Not heard: ams-2, fra-1. Kafka, or a part of the topic, does not answer; what they take is counted later, and windows wait.";
/** Longer than the edges' idle time. */
const IDLE_MS = 8_000;

const alerts = (view) => view.page.$$eval("#alerts > *", (all) => all.map((one) => one.textContent));
const rows = async (view) => Object.fromEntries((await view.rows("edge-rows")).map(([name, presence, seen]) => [name, [presence, seen]]));

await run(async () => {
  const view = await View.open();
  await until("two edges live", async () => (await view.text("#edge-count")) === "2 live");
  await ask("deafen");
  await ask("silence fra-1");
  await ask("silence ams-2");
  const presences = async () => (await api("/v1/edges")).edges.map((edge) => edge.presence).join();
  await until("both unheard", async () => (await presences()) === "unheard,unheard");
  await until("the alert names both", async () => (await alerts(view)).includes(ALERT));
  const said = (await alerts(view)).filter((text) => /Kafka|silent/.test(text));
  assert.deepEqual(said, [ALERT], "once for all edges, and none of them is called silent");
  for (const [name, [presence, seen]] of Object.entries(await rows(view))) {
    assert.equal(presence, "cannot be heard", name);
    assert.match(seen, / ago$/, name);
  }
  assert.notEqual(await view.text("#edge-count"), "2 live");
  await view.accessible("edges that cannot be heard");
  await ask("wake fra-1");
  await ask("wake ams-2");
  await ask("hear");
  await until("nothing to say", async () => (await view.text("#alerts")) === "" && (await view.text("#edge-count")) === "2 live");

  await ask("tear osl-3");
  await until("it is there", async () => "osl-3" in (await rows(view)));
  assert.equal((await rows(view))["osl-3"][1], "never");
  // It was never one that anybody waits for: that nothing is said of it can only be seen by letting the time pass.
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  assert.deepEqual((await alerts(view)).filter((text) => text.includes("osl-3 is silent")), []);
  await view.clean();
});
