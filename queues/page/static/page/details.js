// One request, in full: what was asked, what came of it, each attempt.

import { ago, clock, h, plural, took } from "./dom.js";
import { api } from "./session.js";
import { buttons, name } from "./actions.js";
import { badge, failure } from "./parts.js";
import { isFinal } from "./store.js";

export function detailsView(store, id) {
  const element = h("section", { class: "stack narrow" }, h("p", {}, h("a", { href: "#/" }, "← Your queue")), h("h1", { tabindex: "-1" }, "Request"));
  const body = h("div", { class: "stack", "aria-busy": "true" }, h("div", { class: "card skeleton", "aria-hidden": "true" }, h("i"), h("i"), h("i")));
  element.append(body);
  let asked = null, shown = null, attempts = null, failed = null;

  async function load() {
    failed = null;
    try {
      const [one, tried] = await Promise.all([api("GET", `/api/v1/requests/${id}`), api("GET", `/api/v1/requests/${id}/attempts`)]);
      [asked, attempts] = [one.data, tried.data];
    } catch (error) { failed = error; }
    body.removeAttribute("aria-busy");
    draw();
  }

  function draw() {
    if (failed) { body.replaceChildren(failure(failed, load)); return; }
    const one = store.active.get(id) ?? store.finished.get(id) ?? asked;
    if (!one || attempts === null) return;
    const signature = JSON.stringify([one.status, one.attempt, one.progress, one.position, one.cancel_requested, attempts.length]);
    if (signature === shown) return;
    const before = shown && JSON.parse(shown);
    shown = signature;
    if (before && (before[0] !== one.status || before[1] !== one.attempt)) load(); // its attempts have changed
    element.querySelector("h1").textContent = name(one);
    const focused = document.activeElement?.dataset?.verb;
    body.replaceChildren(...parts(store, one, attempts));
    if (focused) (body.querySelector(`[data-verb=${focused}]`) ?? element.querySelector("h1")).focus();
  }

  load();
  return { element, title: "Request", update: draw };
}

function parts(store, one, attempts) {
  const facts = [
    ["Id", h("code", {}, one.id)],
    ["Kind", `${one.kind}, version ${one.version}`],
    ["Created", time(one.created_at)],
    one.not_before && ["Not before", time(one.not_before)],
    one.expires_at && ["Expires", time(one.expires_at)],
    one.started_at && ["Started", time(one.started_at)],
    one.finished_at && ["Finished", time(one.finished_at)],
    one.started_at && one.finished_at && ["Took", took(one.started_at, one.finished_at)],
    one.position !== null && !isFinal(one) && ["Ahead of it", plural(one.position, "request")],
    one.retry_of && ["Retry of", h("a", { href: `#/requests/${one.retry_of}` }, "an earlier request")],
  ].filter(Boolean);
  const { progress } = one;
  return [
    h("div", { class: "card stack" }, h("div", { class: "titled" }, badge(one).element, h("span", { class: "quiet" }, `attempt ${one.attempt} of ${one.max_attempts}`)),
      progress?.total && !isFinal(one) ? h("progress", { max: progress.total, value: progress.current, "aria-label": "Progress" }) : null,
      one.error ? h("p", { class: "trouble" }, `${one.error.type}: ${one.error.message}`) : null,
      h("dl", { class: "facts" }, facts.map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value)))),
      h("div", { class: "actions" }, buttons(store, one))),
    one.status === "succeeded" ? code("Result", one.result) : null,
    code("Payload", one.payload),
    attempts.length ? h("section", { class: "card" }, h("h2", {}, "Attempts"), h("ol", { class: "attempts" }, attempts.map((tried) => h("li", {},
      h("div", { class: "titled" }, h("span", {}, `${tried.number}. `, h("b", {}, tried.outcome.replace("_", " "))), h("span", { class: "quiet" }, `${ago(tried.finished_at)}, took ${took(tried.started_at, tried.finished_at)}`)),
      tried.error ? h("p", { class: "trouble" }, `${tried.error.type}: ${tried.error.message}`) : null)))) : null,
  ].filter(Boolean);
}

const time = (moment) => h("time", { datetime: moment }, clock(moment));

const code = (title, value) => h("section", { class: "card" }, h("h2", {}, title), h("pre", { tabindex: "0", role: "region", "aria-label": title }, JSON.stringify(value, null, 2)));
