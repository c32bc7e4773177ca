// Where a token is needed the page asks for one, and trades it for a cookie that no script can read.

import assert from "node:assert/strict";
import { run, until, View } from "./browser.mjs";

const { TOKEN, SCOPED_TOKEN } = process.env;

async function signIn(view, token) {
  await view.page.$eval("#token", (input) => { input.value = ""; });
  await view.page.type("#token", token);
  await view.page.keyboard.press("Enter");
}

await run(async () => {
  const view = await View.open();
  await until("it asks", () => view.shown("#sign-in"));
  assert.equal(await view.shown("#counts"), false);
  await view.accessible("signing in");
  // What is refused is an error of the network to the console.
  await signIn(view, "no-such-token");
  await until("it is refused", async () => (await view.text("#token-error")) === "There is no such token, or it was revoked.");
  view.faults.splice(0, view.faults.length, ...view.faults.filter((fault) => !/401/.test(fault)));

  await signIn(view, TOKEN);
  await until("live", async () => (await view.text("#stream")) === "live" && (await view.shown("#counts")));
  assert.equal(await view.shown("#ledger"), true);
  const [cookie] = await view.page.cookies();
  assert.deepEqual([cookie.httpOnly, cookie.sameSite], [true, "Strict"]);
  assert.equal(await view.page.evaluate(() => document.cookie), "");
  await view.page.reload();
  await until("still signed in", async () => (await view.text("#stream")) === "live");
  await view.page.click("#sign-out");
  await until("it asks again", () => view.shown("#sign-in"));

  // Who may see one campaign is not shown the books, which are everybody's.
  await signIn(view, SCOPED_TOKEN);
  await until("live", async () => (await view.text("#stream")) === "live" && (await view.shown("#counts")));
  await until("edges", async () => (await view.rows("edge-rows")).length === 1);
  assert.equal(await view.shown("#ledger"), false);
  assert.equal((await view.rows("edge-rows"))[0].length, 4);
  await view.accessible("what a scoped token sees");
  await view.clean();
});
