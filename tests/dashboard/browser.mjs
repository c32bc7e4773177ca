// What every scenario has: a browser, a page that is looked at strictly, the API, and a word with the test that started this.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { gzipSync } from "node:zlib";

const require = createRequire(`${process.env.DRIVER}/package.json`);
const puppeteer = require("puppeteer-core");
const axe = require("axe-core").source;

/** Beyond every deadline that a scenario relies on. */
const PATIENCE_MS = 45_000;
/** All of the page's files after gzip. */
const PAGE_BYTES_MAX = 60 * 1024;

export const { QUERY, CLICKS, SHOTS } = process.env;

let browser = null;
export async function run(scenario) {
  const hung = setTimeout(() => {
    console.error("the scenario hangs");
    browser?.process()?.kill("SIGKILL");
    process.exit(1);
  }, Number(process.env.LIMIT_S) * 1000);
  try {
    browser = await puppeteer.launch({
      executablePath: execFileSync("/bin/sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim(),
      headless: true,
      // It looks at our own pages alone, and often as root.
      args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"],
    });
    await scenario();
  } finally {
    await browser?.close();
    clearTimeout(hung);
    lines.close();
  }
}

const lines = createInterface({ input: process.stdin });
/** Asks the test for something, and waits until it is done. */
export function ask(word) {
  const done = new Promise((resolve) => lines.once("line", resolve));
  console.log(`> ${word}`);
  return done;
}

export async function until(what, look) {
  const deadline = Date.now() + PATIENCE_MS;
  let last = null;
  for (;;) {
    try {
      const found = await look();
      if (found) return found;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}${last ? `: ${last.message}` : ""}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export async function api(path, parameters = {}) {
  const response = await fetch(`${QUERY}${path}?${new URLSearchParams(parameters)}`);
  assert.equal(response.status, 200, path);
  return response.json();
}

/** Listens to the live state so many times, as other pages do; returns what ends them. */
export async function listen(times, headers = {}) {
  const abort = new AbortController();
  const listening = Array.from({ length: times }, () => fetch(`${QUERY}/v1/live`, { headers, signal: abort.signal }));
  const answers = (await Promise.all(listening)).map((response) => response.status);
  assert.deepEqual(answers.filter((status) => status !== 200), []);
  return () => abort.abort();
}

/** Sends clicks, each an object; they are on disk afterwards. */
export async function send(clicks) {
  const whole = clicks.map((click) => ({ timestamp: Date.now(), request_id: crypto.randomUUID(), ...click }));
  const response = await fetch(`${CLICKS}/v1/clicks`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(whole),
  });
  const answer = await response.json();
  assert.equal(answer.accepted, clicks.length, JSON.stringify(answer));
}

/** A page; whatever it does that it should not is in `faults`. */
export class View {
  faults = [];
  #served = new Map();

  static async open({ scheme = "light", width = 1280, height = 900, path = "/" } = {}) {
    const view = new View();
    view.page = await browser.newPage();
    const { page, faults } = view;
    page.on("console", (message) => {
      if (["error", "warn"].includes(message.type())) faults.push(`console: ${message.text()} ${message.location().url ?? ""}`);
    });
    page.on("pageerror", (error) => faults.push(`error: ${error.message}`));
    page.on("request", (request) => {
      if (!request.url().startsWith(QUERY)) faults.push(`asks elsewhere: ${request.url()}`);
    });
    page.on("response", (response) => view.#look(response));
    await page.exposeFunction("violated", (text) => faults.push(`policy: ${text}`));
    await page.evaluateOnNewDocument(() => {
      addEventListener("securitypolicyviolation", (event) => globalThis.violated(`${event.violatedDirective} ${event.blockedURI}`));
    });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.setViewport({ width, height });
    await page.goto(QUERY + path, { waitUntil: "domcontentloaded" });
    return view;
  }

  async #look(response) {
    const { pathname } = new URL(response.url());
    if (pathname !== "/" && !pathname.startsWith("/dashboard/")) return;
    const fields = response.headers();
    for (const [name, part] of [
      ["content-security-policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"],
      ["content-security-policy", "frame-ancestors 'none'"], ["x-content-type-options", "nosniff"], ["referrer-policy", "no-referrer"],
      ["etag", "\""], ["cache-control", "no-cache"],
    ]) {
      if (!fields[name]?.includes(part)) this.faults.push(`${pathname}: ${name} is ${fields[name]}`);
    }
    if (response.status() === 200) this.#served.set(pathname, response.buffer());
  }

  /** The page's files are whole, small, and known by their ETags. */
  async weigh() {
    let sum = 0;
    for (const [path, body] of this.#served) {
      sum += gzipSync(await body).length;
      const { headers } = await fetch(QUERY + path);
      const again = await fetch(QUERY + path, { headers: { "If-None-Match": headers.get("etag") } });
      assert.equal(again.status, 304, path);
    }
    assert.ok(this.#served.size >= 10, [...this.#served.keys()].join(" "));
    assert.ok(sum < PAGE_BYTES_MAX, `the page has ${sum} bytes after gzip, ${PAGE_BYTES_MAX} are allowed`);
    console.log(`the page: ${this.#served.size} files, ${sum} bytes after gzip`);
  }

  text(selector) {
    return this.page.$eval(selector, (node) => node.innerText.trim());
  }

  shown(selector) {
    return this.page.$eval(selector, (node) => node.checkVisibility());
  }

  /** The cells of each row, as they are read. */
  rows(id) {
    return this.page.$$eval(`#${id} tr`, (rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText.trim())));
  }

  /** By term. */
  sums() {
    return this.page.$$eval("#subject-sums div", (sums) => Object.fromEntries(
      sums.map((sum) => [sum.querySelector("dt").innerText, sum.querySelector("dd").firstChild.textContent]),
    ));
  }

  /** Until what has the focus is this. */
  async tabTo(selector) {
    for (let presses = 0; presses < 40; presses += 1) {
      await this.page.keyboard.press("Tab");
      if (await this.page.evaluate((selector) => document.activeElement.matches(selector), selector)) return;
    }
    throw new Error(`no way to ${selector} by keyboard`);
  }

  /** Nothing that a machine can find against WCAG 2.2 AA; nothing wider than the screen. */
  async accessible(what) {
    const wider = await this.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wider <= 0, `${what}: ${wider} px wider than the screen`);
    await this.page.evaluate(axe);
    const found = await this.page.evaluate(async () => {
      const result = await globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] });
      return result.violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => node.html).join(" | ")}`);
    });
    assert.deepEqual(found, [], what);
  }

  /** From now on what is asked for below these paths is refused as a busy server does, until `told.off`; `told.asked`: how often. */
  async refuse(pattern, detail) {
    const told = { off: false, asked: 0 };
    await this.page.setRequestInterception(true);
    this.page.on("request", (request) => {
      if (told.off || !pattern.test(new URL(request.url()).pathname)) return request.continue();
      told.asked += 1;
      return request.respond({ status: 503, contentType: "application/problem+json", headers: { "Retry-After": "1" }, body: JSON.stringify({ status: 503, detail }) });
    });
    return told;
  }

  /** What a scenario meant to be refused is an error of the network to the console. */
  forgive(pattern) {
    this.faults.splice(0, this.faults.length, ...this.faults.filter((fault) => !pattern.test(fault)));
  }

  async clean() {
    assert.deepEqual(this.faults, []);
  }

  async close() {
    await this.page.close();
  }
}

export const number = (text) => Number(text.replaceAll(",", ""));
