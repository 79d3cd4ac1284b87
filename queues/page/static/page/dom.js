// Making elements, and saying times and numbers as people read them.

/** An element. `onclick` and the like are listeners, `true` an empty attribute, null and false none. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** A button that does one thing. While a promise of it is pending it is busy, and does nothing more. */
export function button(label, act, props = {}) {
  const element = h("button", { type: "button", class: "button", ...props, onclick: async (event) => {
    if (element.getAttribute("aria-disabled") === "true") return;
    element.setAttribute("aria-disabled", "true");
    try { await act(event); } finally { element.removeAttribute("aria-disabled"); }
  } }, label);
  return element;
}

/** Writes only what is different: what does not change costs no layout, and is not read out again. */
export function text(element, value) {
  const said = value == null ? "" : String(value);
  if (element.textContent !== said) element.textContent = said;
}

export function attribute(element, name, value) {
  if (value == null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** Makes `list` show `items` in their order. The elements of items that stay are kept, and so is the focus. */
export function keyed(list, items, make, update) {
  const rows = list.rows ??= new Map();
  const wanted = new Set(items.map((item) => item.id));
  for (const [id, row] of rows) {
    if (wanted.has(id)) continue;
    if (row.element.contains(document.activeElement)) passFocusOn(row.element, list);
    row.element.remove();
    rows.delete(id);
  }
  let before = null;
  for (const item of items) {
    let row = rows.get(item.id);
    if (!row) rows.set(item.id, row = make(item));
    const place = before ? before.nextSibling : list.firstChild;
    if (row.element !== place) list.insertBefore(row.element, place);
    update(row, item);
    before = row.element;
  }
}

function passFocusOn(leaving, list) {
  const near = leaving.nextElementSibling ?? leaving.previousElementSibling;
  const next = near?.querySelector("button, a") ?? list.closest("section")?.querySelector("h2, h1");
  next?.focus({ preventScroll: true });
}

/** Seconds, for people: "8 s", "3 min", "2 h 10 min". */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.round(whole / 60)} min`;
  const hours = Math.floor(whole / 3600);
  if (hours >= 48) return `${Math.round(hours / 24)} days`;
  const minutes = Math.round((whole % 3600) / 60);
  return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
}

/** How long it took, to a tenth while that is short. */
export const took = (from, to) => {
  const seconds = (new Date(to) - new Date(from)) / 1000;
  return seconds < 10 ? `${seconds.toFixed(seconds < 1 ? 2 : 1)} s` : span(seconds);
};

export const since = (time) => (Date.now() - new Date(time)) / 1000;

export function ago(time) {
  const seconds = since(time);
  return seconds < 5 ? "just now" : `${span(seconds)} ago`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
export const clock = (time) => CLOCK.format(new Date(time));

/** JSON on one line, cut. */
export function brief(value, most = 120) {
  const said = JSON.stringify(value) ?? "";
  return said.length > most ? `${said.slice(0, most)}…` : said;
}

export const number = (value) => value.toLocaleString("en");

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

let region;
/** Shows a sentence for some seconds, and has it read out. */
export function say(sentence, tone = "") {
  region ??= document.getElementById("said");
  const note = h("p", { class: `note ${tone}` }, sentence);
  region.append(note);
  while (region.children.length > 3) region.firstChild.remove();
  setTimeout(() => note.remove(), tone === "bad" ? 10000 : 5000);
}
