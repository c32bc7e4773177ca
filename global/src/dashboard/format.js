// How numbers and times are written, and the little that puts them into the page.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const countries = new Intl.DisplayNames("en", { type: "region", fallback: "none" });

export const count = (number) => whole.format(number);
export const rate = (number) => (number < 100 ? tenth : whole).format(number);
export const short = (number) => compact.format(number);
export const share = (part, all) => (all > 0 ? `${tenth.format((100 * part) / all)} %` : "–");
export const signed = (number) => (number > 0 ? `+${whole.format(number)}` : whole.format(number));

/** 12:04:30 of a time of the API; with its date where that is not the date of `now`. */
export function clock(time, now = time) {
  if (!time) return "–";
  const [date, rest] = [time.slice(0, 10), time.slice(11, 19)];
  return date === now.slice(0, 10) ? rest : `${date} ${rest}`;
}

/** 12:04 of a window's start, with its date where that is not today. */
export const minute = (time, now = time) => clock(time, now).replace(/:\d\d$/, "");

/** How long something lasted: 0.8 s, 42 s, 3 min 20 s, 2 h 5 min. */
export function span(ms) {
  if (ms == null) return "–";
  if (ms < 9950) return `${tenth.format(ms / 1000)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/** A name of the API in words; a class or device that has none yet stays as it is. */
export const words = (name) => name.replaceAll("_", " ");

export function region(code) {
  const name = /^[A-Z]{2}$/.test(code) ? countries.of(code) : undefined;
  return name ? `${name} (${code})` : code;
}

export const at = (id) => document.getElementById(id);

/** Sets a text that changed; what is read out, or selected, stays as it is otherwise. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** An element with properties and children; text is text, never markup. */
export function make(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export const cell = (text, name = "") => make("td", { className: name }, text);
export const head = (...children) => {
  const node = make("th", {}, ...children);
  node.scope = "row";
  return node;
};
export const note = (text) => make("small", {}, text);

/** A bar under a name, as wide as its share. */
export function bar(part, most) {
  const node = make("span", { className: "bar" });
  node.style.width = `${most > 0 ? (100 * part) / most : 0}%`;
  return node;
}

/** Puts rows into a table; whatever link had the focus has it again. */
export function fill(body, rows) {
  const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  body.replaceChildren(...rows);
  if (focused) body.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}
