// Two lists of what is over: the inbox of failed ones, and the history by pages.

import { ago, brief, button, h, keyed, plural, say, text } from "./dom.js";
import { api, pathOf } from "./session.js";
import { buttons, name } from "./actions.js";
import { failure, link } from "./parts.js";
import { INBOX } from "./store.js";
import { overRow, updateOver } from "./queue_view.js";

export function failedView(store) {
  const list = h("ul", { class: "stack", role: "list" });
  const empty = h("div", { class: "card empty" }, h("h2", {}, "Nothing failed"), h("p", {}, "What fails for good comes here, until you retry it or put it away."));
  const loading = h("div", { class: "card skeleton", "aria-hidden": "true" }, h("i"), h("i"));
  const all = button("Put all away", () => { const found = store.inbox(); found.forEach((one) => store.deal_with(one.id)); say(`${plural(found.length, "request")} put away.`); }, { class: "button quiet" });
  const count = h("p", { class: "quiet" });
  const element = h("section", { class: "stack narrow" }, h("div", { class: "titled" }, h("h1", { tabindex: "-1" }, "Failed"), all), count, loading, empty, list);
  return { element, title: "Failed", update() {
    const found = store.inbox();
    loading.hidden = found.length > 0 || !store.looksBack();
    empty.hidden = found.length > 0 || store.looksBack();
    all.hidden = found.length < 2;
    text(count, found.length ? `${plural(found.length, "request")} that nobody has dealt with. History keeps them all.` : "");
    keyed(list, found.slice(0, INBOX), (item) => failedRow(store, item), (row, item) => text(row.when, ago(item.finished_at)));
  } };
}

function failedRow(store, item) {
  const when = h("span", { class: "quiet" });
  const away = button("Put away", () => { store.deal_with(item.id); }, { class: "button quiet", "aria-label": `Put away ${name(item)}` });
  const element = h("li", { class: "card letter" }, h("div", { class: "titled" }, h("h2", {}, link(item)), when),
    h("p", { class: "trouble" }, item.error ? `${item.error.type}: ${item.error.message}` : "It was given up."),
    h("p", { class: "payload" }, brief(item.payload, 200)),
    h("p", { class: "quiet" }, `${plural(item.attempt, "attempt")} of ${item.max_attempts}`),
    h("div", { class: "actions" }, buttons(store, item, ["retry"]), away));
  return { element, when };
}

const STATUSES = ["", "succeeded", "failed", "cancelled", "expired", "queued", "scheduled"];

export function historyView(store) {
  const list = h("ul", { class: "rows card", role: "list" });
  const empty = h("p", { class: "card empty", hidden: true }, "There is nothing here.");
  const loading = h("div", { class: "card skeleton", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
  const wrong = h("div");
  const choice = h("select", { id: "status", onchange: () => open() }, STATUSES.map((one) => h("option", { value: one }, one || "all")));
  const more = button("Show more", () => page(), { class: "button quiet", hidden: true });
  const element = h("section", { class: "stack narrow" }, h("div", { class: "titled" }, h("h1", { tabindex: "-1" }, "History"),
    h("div", { class: "field inline" }, h("label", { for: "status" }, "Show"), choice)), loading, wrong, empty, list, h("div", { class: "actions" }, more));
  let found = [], next = null, turn = 0;

  function open() { found = []; next = null; draw(); return page(); }

  async function page() {
    const mine = turn += 1;
    loading.hidden = found.length > 0;
    wrong.replaceChildren();
    const status = choice.value ? `&status=${choice.value}` : "";
    try {
      const { data } = await api("GET", next ?? `/api/v1/requests?order=desc&limit=50${status}`);
      if (mine !== turn) return;
      found.push(...data.results);
      next = data.next && pathOf(data.next);
      empty.hidden = found.length > 0;
    } catch (error) {
      if (mine === turn) wrong.replaceChildren(failure(error, page));
    }
    loading.hidden = true;
    draw();
  }

  function draw() {
    list.hidden = found.length === 0;
    more.hidden = !next;
    keyed(list, found.map((one) => store.active.get(one.id) ?? store.finished.get(one.id) ?? one), overRow, (row, item) => updateOver(store, row, item));
  }

  open();
  return { element, title: "History", update: draw };
}

