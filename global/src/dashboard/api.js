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
  const response = await fetch(query.size > 0 ? `${path}?${query}` : path, { credentials: "same-origin", ...init });
  if (response.ok) return response.status === 204 ? null : response.json();
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

/** States come about once a second: without one for so long the connection is believed to be gone. */
const SILENCE_MS = 5_000;
const AGAIN_MS = [1_000, 2_000, 3_000, 5_000];

/**
 * Listens for ever: `told.state` gets each state, `told.lost` is called once when they stop coming, `told.barred` when a token
 * is needed (nothing is tried again until `open`).
 */
export class Stream {
  #source = null;
  #timer = 0;
  #tries = 0;
  #told;

  constructor(told) {
    this.#told = told;
  }

  open() {
    this.close();
    this.#source = new EventSource("/v1/live");
    this.#source.addEventListener("state", (event) => {
      this.#tries = 0;
      this.#watch();
      this.#told.state(JSON.parse(event.data));
    });
    this.#source.addEventListener("error", () => this.#broken());
    this.#watch();
  }

  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #watch() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#broken(), SILENCE_MS);
  }

  #broken() {
    this.close();
    this.#told.lost();
    const wait_ms = AGAIN_MS[Math.min(this.#tries, AGAIN_MS.length - 1)];
    this.#tries += 1;
    this.#timer = setTimeout(() => this.#again(), wait_ms);
  }

  /** A stream does not say why it was refused; any other answer does. */
  async #again() {
    try {
      await ask("/v1/methodology");
      this.open();
    } catch (error) {
      if (error.status === 401) this.#told.barred();
      else this.#broken();
    }
  }
}
