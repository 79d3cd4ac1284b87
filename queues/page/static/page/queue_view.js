// The queue as it moves: how it is, what runs, what waits and for how long, what has just ended.

import { ago, attribute, brief, button, h, keyed, number, plural, say, span, text } from "./dom.js";
import { attempt, buttons, confirm, name, verbs } from "./actions.js";
import { newRequest } from "./new_request.js";
import { badge, link, outcome } from "./parts.js";
import { WaitingList } from "./waiting_list.js";

export function queueView(store) {
  const form = newRequest(store);
  const state = h("p", { class: "state", id: "state" });
  const figures = ["waiting", "all done in", "done in the last minute"].map((label) => {
    const value = h("dd", {});
    return { value, element: h("div", {}, h("dt", {}, label), value) };
  });
  const pause = button("Pause", () => attempt(async () => {
    const paused = store.queue.paused;
    await store.act(paused ? "queue/resume" : "queue/pause");
    say(paused ? "Your queue goes on." : "Paused. What runs goes on to its end; nothing further starts.");
  }), { class: "button quiet", "data-verb": "pause" });
  const purge = button("Cancel all", async () => {
    const { waiting, scheduled } = store.line();
    const count = waiting.length + scheduled.length;
    if (!await confirm(`Cancel ${plural(count, "request")}?`, "All that waits is cancelled, scheduled requests too. What runs goes on. This cannot be undone.", "Cancel all waiting")) return;
    await attempt(async () => { await store.act("queue/purge"); say(`${plural(count, "request")} cancelled.`); });
  }, { class: "button quiet", "data-verb": "purge", "aria-label": "Cancel all that waits" });

  const blocked = h("section", { class: "banner bad", "aria-label": "Your queue is blocked", hidden: true });
  const runningTitle = h("h2", { tabindex: "-1" }, "Running now");
  const running = h("div", { class: "running" });
  const waitingTitle = h("h2", { tabindex: "-1" }, "Waiting");
  const nothing = h("p", { class: "empty" });
  const list = new WaitingList("Waiting requests, in order", waitingRow, (row, item, index) => updateWaiting(store, row, item, index, waitingNow.line));
  const later = h("ul", { class: "rows", role: "list" });
  const laterPart = h("section", { class: "card", hidden: true }, h("h2", { tabindex: "-1" }, "Scheduled"), later);
  const over = h("ul", { class: "rows", role: "list" });
  const noneOver = h("p", { class: "empty" }, "Nothing has finished yet.");
  const skeleton = h("div", { class: "card skeleton", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
  const body = h("div", { class: "stack", hidden: true }, blocked,
    h("section", { class: "card" }, runningTitle, running),
    h("section", { class: "card", id: "waiting" }, h("div", { class: "titled" }, waitingTitle, purge), nothing, list.element),
    laterPart,
    h("section", { class: "card" }, h("div", { class: "titled" }, h("h2", { tabindex: "-1" }, "Finished lately"), h("a", { href: "#/history" }, "All history")), noneOver, over));
  const element = h("div", { class: "columns" },
    h("div", { class: "stack" },
      h("div", { class: "titled" }, h("h1", { tabindex: "-1" }, "Your queue"), pause),
      h("div", { class: "card summary" }, state, h("dl", { class: "figures" }, figures.map((one) => one.element))),
      skeleton, body),
    form.element);

  const waitingNow = { shown: "", line: null };

  function update() {
    form.update();
    const { queue } = store;
    attribute(element, "aria-busy", queue ? null : "true");
    skeleton.hidden = Boolean(queue);
    body.hidden = !queue;
    pause.hidden = !queue;
    if (!queue) { text(state, "Loading your queue …"); return; }
    const { head, waiting, scheduled } = store.line();
    text(pause, queue.paused ? "Resume" : "Pause");
    text(state, sentence(queue, head, waiting));
    attribute(state, "data-state", queue.paused ? "paused" : queue.state);
    text(figures[0].value, number(waiting.length));
    const rest = store.turn(waiting.length, head);
    text(figures[1].value, queue.depth === 0 ? "–" : rest === null ? "unknown" : `about ${span(Math.max(1, rest))}`);
    text(figures[2].value, number(Math.round(queue.finished_per_minute)));
    drawBlocked(store, blocked, head);
    text(runningTitle, head?.status === "retrying" ? "First in line" : "Running now");
    drawRunning(store, running, head?.status === "blocked" ? null : head, waitingNow);
    text(waitingTitle, waiting.length ? `Waiting (${number(waiting.length)})` : "Waiting");
    nothing.hidden = waiting.length > 0;
    text(nothing, queue.paused || head ? "Nothing waits." : "Nothing waits. What you add runs at once.");
    purge.hidden = waiting.length + scheduled.length === 0;
    waitingNow.line = head;
    list.show(waiting);
    laterPart.hidden = scheduled.length === 0;
    keyed(later, scheduled, laterRow, (row, item) => updateLater(store, row, item));
    const ended = [...store.finished.values()].sort(newestFirst).slice(0, 10);
    noneOver.hidden = ended.length > 0;
    keyed(over, ended, overRow, (row, item) => updateOver(store, row, item));
  }

  return { element, title: "Your queue", update };
}

/** By when they ended; of one moment, the later in line first. Events of one moment may come in any order. */
function newestFirst(a, b) {
  return new Date(b.finished_at) - new Date(a.finished_at) || b.sequence - a.sequence;
}

const LIMITED = {
  paused: (kind) => `Waiting: ${kind} is paused for everybody.`,
  max_concurrency: (kind) => `Waiting: as many ${kind} run, of all users, as may.`,
  rate: (kind) => `Waiting: as many ${kind} began just now, of all users, as may.`,
};

function sentence(queue, head, waiting) {
  if (queue.state === "blocked") return "Blocked: the first request failed for good. Retry it, skip it or cancel it.";
  if (queue.paused) return head?.status === "running" ? "Paused: what runs goes on, nothing further starts." : "Paused: nothing starts until you resume.";
  if (queue.limited_by) return LIMITED[queue.limited_by.reason](queue.limited_by.kind);
  if (head?.status === "retrying") return "The first request failed and is tried again soon. Nothing overtakes it.";
  if (head) return waiting.length ? `Running, with ${number(waiting.length)} waiting behind it.` : "Running.";
  if (waiting.length) return "Waiting for a worker.";
  return "Idle. Nothing waits.";
}

function drawBlocked(store, part, head) {
  const stands = head?.status === "blocked" ? head : null;
  part.hidden = !stands;
  const key = stands && `${stands.id} ${stands.attempt}`;
  if (part.dataset.shown === String(key)) return;
  part.dataset.shown = String(key);
  part.replaceChildren(...(stands ? [
    h("h2", { tabindex: "-1" }, `${name(stands)} blocks your queue`),
    h("p", {}, stands.error ? `${stands.error.type}: ${stands.error.message}` : "It failed for good."),
    h("p", {}, "Nothing behind it runs until you decide."),
    h("div", { class: "actions" }, buttons(store, stands), link(stands, "Details")),
  ] : []));
}

function drawRunning(store, part, head, kept) {
  if (!head) {
    if (kept.shown !== "none") part.replaceChildren(h("p", { class: "empty" }, "Nothing runs at the moment."));
    kept.shown = "none";
    return;
  }
  if (kept.shown !== head.id) {
    const bar = h("progress", { "aria-label": `Progress of ${name(head)}` });
    const parts = { bar, badge: badge(head), said: h("p", { class: "said" }), time: h("span", { class: "quiet" }), verbs: h("div", { class: "actions" }), payload: h("p", { class: "payload" }) };
    part.replaceChildren(h("div", { class: "titled" }, h("h3", {}, link(head)), parts.badge.element), parts.payload, bar,
      h("div", { class: "titled" }, parts.said, h("div", { class: "titled" }, parts.time, parts.verbs)));
    Object.assign(kept, { shown: head.id, parts, verbs: "" });
  }
  const { bar, badge: mark, said, time, verbs: place, payload } = kept.parts;
  mark.update(head);
  text(payload, brief(head.payload));
  const { progress } = head;
  bar.hidden = head.status !== "running";
  attribute(bar, "max", progress?.total ?? 1);
  attribute(bar, "value", progress?.total ? progress.current : null);
  const step = progress ? `${number(progress.current)}${progress.total ? ` of ${number(progress.total)}` : ""}${progress.note ? `, ${progress.note}` : ""}` : "";
  const attempts = head.attempt > 1 || head.status !== "running" ? `Attempt ${head.attempt} of ${head.max_attempts}` : "";
  const trouble = head.status === "retrying" && head.error ? `${head.error.type}: ${head.error.message}` : "";
  text(said, [head.cancel_requested ? "Asked to stop" : "", step, attempts, trouble].filter(Boolean).join(" · "));
  text(time, head.started_at && head.attempt === 1 ? `started ${ago(head.started_at)}` : "");
  const wanted = verbs(head);
  if (kept.verbs !== wanted.join()) {
    kept.verbs = wanted.join();
    place.replaceChildren(...buttons(store, head, wanted));
  }
}

function waitingRow(item) {
  const place = h("span", { class: "place" });
  const turn = h("span", { class: "turn" });
  const verb = h("span", { class: "verb" });
  const row = { place, turn, verb, payload: h("span", { class: "payload" }, brief(item.payload)) };
  row.element = h("li", { class: "row waiting" }, place, h("span", { class: "what" }, link(item), row.payload), turn, verb);
  return row;
}

function updateWaiting(store, row, item, index, head) {
  const turn = store.turn(index, head);
  text(row.place, index + 1);
  text(row.turn, turn === null ? "" : turn < 1 ? "next" : `in ${span(turn)}`);
  if (!row.verb.firstChild) row.verb.append(...buttons(store, item, ["cancel"]));
}

function laterRow(item) {
  const turn = h("span", { class: "turn" });
  const verb = h("span", { class: "verb" });
  return { turn, verb, element: h("li", { class: "row" }, h("span", { class: "what" }, link(item), h("span", { class: "payload" }, brief(item.payload))), turn, verb) };
}

function updateLater(store, row, item) {
  text(row.turn, item.not_before ? `in ${span((new Date(item.not_before) - Date.now()) / 1000)}` : "");
  if (!row.verb.firstChild) row.verb.append(...buttons(store, item, ["cancel"]));
}

export function overRow(item) {
  const mark = badge(item);
  const when = h("span", { class: "turn" });
  const verb = h("span", { class: "verb" });
  const result = h("span", { class: "payload" });
  const element = h("li", { class: "row over" }, mark.element, h("span", { class: "what" }, link(item), result), when, verb);
  return { element, mark, when, verb, result, shown: "" };
}

export function updateOver(store, row, item) {
  row.mark.update(item);
  text(row.result, outcome(item));
  text(row.when, item.finished_at ? ago(item.finished_at) : "");
  const wanted = verbs(item).filter((verb) => verb !== "cancel" || item.finished_at === null);
  if (row.shown !== wanted.join()) {
    row.shown = wanted.join();
    row.verb.replaceChildren(...buttons(store, item, wanted, true));
  }
}
