// Where a token is needed the page asks for one, and trades it for a cookie that no script can read.

import assert from "node:assert/strict";
import { ask, listen, run, until, View } from "./browser.mjs";

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
  await signIn(view, "no-such-token");
  await until("it is refused", async () => (await view.text("#token-error")) === "There is no such token, or it was revoked.");

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

  // As many listen with its scope as may: a page more is told so.
  const others = await listen(15, { Authorization: `Bearer ${SCOPED_TOKEN}` });
  const other = await View.open();
  await until("it is refused", async () => /^The server says: 16 clients listen already with this token's scope/.test(await other.text("#refusal")));
  others();
  await until("its turn", async () => (await other.text("#stream")) === "live" && (await other.text("#refusal")) === "");
  other.forgive(/503/);
  await other.clean();
  await other.close();

  // Taken back while the page is open, nothing of what it showed stays there for whoever looks next.
  await until("its ads", async () => (await view.sums()).Net === "7");
  await until("its ads", async () => (await view.page.evaluate(() => document.body.textContent)).includes("seen_by_one"));
  await ask("revoke");
  await until("it asks again", () => view.shown("#sign-in"));
  assert.equal(await view.text("#sign-in-why"), "The one that this browser had is not valid any more.");
  assert.equal(await view.text("#stream"), "not signed in");
  const left = await view.page.evaluate(() => document.documentElement.outerHTML);
  assert.ok(!left.includes("seen_by_one") && !left.includes("campaign_1"), "something of it is on the page still");
  await view.accessible("signing in again");
  await signIn(view, TOKEN);
  await until("live", async () => (await view.text("#stream")) === "live" && (await view.shown("#ledger")));
  view.forgive(/401/);
  await view.clean();
});
