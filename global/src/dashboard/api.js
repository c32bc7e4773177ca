// What is asked of the query API, and the stream of live states. The page knows nothing that did not come from there.

/** An answer that is none: its status, and what the server says of it. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export async function ask(path, parameters = {}, init = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value != null));
  const response = await answered(query.size > 0 ? `${path}?${query}` : path, init);
  return response.status === 204 ? null : response.json();
}

async function answered(path, init) {
  const response = await fetch(path, { credentials: "same-origin", ...init });
  if (response.ok) return response;
  // A proxy's refusal may be anything.
  const problem = await response.json().catch(() => ({}));
  throw new Refused(response.status, problem.detail ?? `the server answered ${response.status}`);
}

/** A token for the cookie that scripts cannot read. */
export const signIn = (token) => ask("/v1/session", {}, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ token }),
});
export const signOut = () => ask("/v1/session", {}, { method: "DELETE" });

/** States come about once a second: without one for so long there are none to be had here. */
const SILENCE_MS = 5_000;
/** After a stream that went well for a while the first try comes at once: who stops, or takes a token back, then says so. */
const AGAIN_MS = [0, 1_000, 2_000, 3_000, 5_000];

/** What comes with each event of a stream; a comment, which says that the connection lives, is none. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const whole = (text + value).split("\n\n");
    text = whole.pop();
    for (const event of whole) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data) yield JSON.parse(data.slice("data: ".length));
    }
  }
}

/**
 * Listens for ever, over `fetch`: an EventSource that is refused does not say by what. `told.state` gets each state; `told.lost` is
 * called each time that they stop coming, with what the server said, if it did; `told.barred` when a token is needed, after which
 * nothing is tried until `open`.
 */
export class Stream {
  #listening = null;
  #timer = 0;
  #tries = 0;
  #opened_ms = 0;
  #told;

  constructor(told) {
    this.#told = told;
  }

  open() {
    this.close();
    this.#opened_ms = performance.now();
    this.#listening = new AbortController();
    this.#listen(this.#listening);
  }

  close() {
    clearTimeout(this.#timer);
    this.#listening?.abort();
    this.#listening = null;
  }

  async #listen(listening) {
    let why = "no connection";
    try {
      this.#wait(listening);
      const { body } = await answered("/v1/live", { signal: listening.signal });
      for await (const state of events(body)) {
        if (listening !== this.#listening) return;
        this.#wait(listening);
        // A bug that this meets is one, and no broken stream.
        queueMicrotask(() => this.#told.state(state));
      }
    } catch (error) {
      if (error instanceof Refused) why = error;
    }
    this.#broken(listening, why);
  }

  #wait(listening) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#broken(listening, "nothing new comes", 1), SILENCE_MS);
  }

  #broken(listening, why, tries_min = 0) {
    // This one was closed, or is another's already.
    if (listening !== this.#listening) return;
    this.close();
    if (why instanceof Refused && why.status === 401) return this.#told.barred();
    if (performance.now() - this.#opened_ms > SILENCE_MS) this.#tries = 0;
    this.#tries = Math.max(this.#tries, tries_min);
    const wait_ms = AGAIN_MS[Math.min(this.#tries, AGAIN_MS.length - 1)];
    this.#tries += 1;
    this.#timer = setTimeout(() => this.open(), wait_ms);
    // What is tried again at once is not worth a word.
    if (wait_ms > 0) this.#told.lost(why);
  }
}
