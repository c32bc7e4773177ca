// The page as a whole: which view the address names, the stream and what it is to the reader, signing in.

import { ask, Refused, signIn, signOut, Stream } from "./api.js";
import { at, clock, put } from "./format.js";
import * as live from "./live.js";
import * as subject from "./subject.js";

/** That this browser has a cookie to give back; the cookie itself cannot be seen from here. */
const SIGNED_IN = "tollgate-signed-in";

/** The newest state; null before the first. */
let state = null;
/** The ad of this view; null: all ads. */
let ad_id = null;

const stream = new Stream({
  state(next) {
    const first = state == null;
    state = next;
    connection("live", "live");
    at("counts").hidden = false;
    live.show(state);
    if (!document.hidden) subject.refresh(ad_id, state.now, first);
  },
  lost,
  barred,
});

/** `why`: what the server said, or a word of ours. */
function lost(why) {
  const said = why instanceof Refused;
  connection("lost", said ? `refused (${why.status}), trying again` : `${why}, trying again`, said ? `The server says: ${why.message}` : "");
}

/** Said once for each change: it is read out. What is on the page is marked with the time it is of. */
function connection(name, text, detail = "") {
  document.body.dataset.stream = name;
  put(at("stream"), text);
  put(at("refusal"), detail);
  if (name === "lost" && state) live.stale(state);
  const stale = name === "lost" && state ? `stale: as of ${clock(state.now)}` : "";
  for (const node of document.querySelectorAll(".stale-note")) put(node, stale);
}

function barred() {
  // What was shown was for somebody who may see it: nothing of it stays, neither on the page nor in its memory.
  if (state) return location.reload();
  connection("barred", "not signed in");
  put(at("sign-in-why"), remembered() ? "The one that this browser had is not valid any more." : "");
  at("sign-in").hidden = false;
  at("sign-out").hidden = true;
  remember(false);
  at("token").focus();
}

async function begin() {
  try {
    const methodology = await ask("/v1/methodology");
    put(at("version"), `tollgate ${methodology.version}`);
  } catch (error) {
    if (error.status === 401) return barred();
    // The stream says how it is.
  }
  at("sign-in").hidden = true;
  at("sign-out").hidden = !remembered();
  stream.open();
}

function remember(signed_in) {
  try {
    if (signed_in) localStorage.setItem(SIGNED_IN, "1");
    else localStorage.removeItem(SIGNED_IN);
  } catch {
    // A browser that keeps nothing shows no button to sign out.
  }
}

function remembered() {
  try {
    return localStorage.getItem(SIGNED_IN) != null;
  } catch {
    return false;
  }
}

at("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  put(at("token-error"), "");
  try {
    await signIn(at("token").value.trim());
    at("token").value = "";
    remember(true);
    await begin();
  } catch (error) {
    put(at("token-error"), error.status === 401 ? "There is no such token, or it was revoked." : error.message);
  }
});

at("sign-out").addEventListener("click", async () => {
  try {
    await signOut();
  } catch {
    // Without a connection the cookie stays, and so does this page.
    return;
  }
  stream.close();
  remember(false);
  barred();
});

at("find").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = `#/ad/${encodeURIComponent(at("find-ad").value.trim())}`;
});

at("grain").addEventListener("change", () => {
  if (state) subject.refresh(ad_id, state.now, true);
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && state) subject.refresh(ad_id, state.now, true);
});

/** `#/ad/ID` is an ad's page, anything else the overview. */
function route() {
  const named = /^#\/ad\/(.+)$/.exec(location.hash)?.[1];
  try {
    ad_id = named == null ? null : decodeURIComponent(named);
  } catch {
    ad_id = named;
  }
  document.body.dataset.page = ad_id == null ? "all" : "ad";
  document.title = ad_id == null ? "tollgate" : `${ad_id} · tollgate`;
  put(at("subject-title"), ad_id == null ? "All ads" : `Ad ${ad_id}`);
  at("corrections").hidden = true;
  at("back").hidden = ad_id == null;
  subject.clear();
  if (state) subject.refresh(ad_id, state.now, true);
}

at("skip").addEventListener("click", (event) => {
  // The address stays what names the view.
  event.preventDefault();
  at("main").focus();
});

addEventListener("hashchange", () => {
  route();
  if (ad_id != null) scrollTo(0, 0);
  at("subject-title").focus({ preventScroll: ad_id == null });
});

route();
begin();
