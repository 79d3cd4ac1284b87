// What can be done with a request, in one place: which verbs apply, what they are called, what is said afterwards.

import { button, h, say } from "./dom.js";
import { isFinal } from "./store.js";

const AGAIN = new Set(["failed", "cancelled", "expired", "blocked"]);

export function verbs(request) {
  const found = [];
  if (AGAIN.has(request.status)) found.push("retry");
  if (request.status === "blocked") found.push("skip");
  if (!isFinal(request) && !request.cancel_requested) found.push("cancel");
  return found;
}

const WORDS = { retry: "Retry", skip: "Skip", cancel: "Cancel" };
const DONE = {
  retry: (one, before) => one.id === before.id ? `${name(before)} is tried again.` : `${name(before)} is asked for again, as ${name(one)}.`,
  skip: (one, before) => `${name(before)} is given up. The next one runs.`,
  cancel: (one, before) => isFinal(one) ? `${name(before)} is cancelled.` : `${name(before)} is asked to stop.`,
};

export const name = (request) =>
  request.sequence === null ? request.kind : `${request.kind} #${request.sequence}`;

/** The buttons of the verbs that apply. */
export function buttons(store, request, only = verbs(request), quiet = false) {
  return only.map((verb) => button(WORDS[verb], () => run(store, verb, request), {
    class: `button ${quiet || verb === "cancel" ? "quiet" : ""}`, "data-verb": verb, "aria-label": `${WORDS[verb]} ${name(request)}`,
  }));
}

export async function run(store, verb, request) {
  await attempt(async () => {
    const one = await store.act(`requests/${request.id}/${verb}`);
    if (verb === "retry") store.deal_with(request.id);
    say(DONE[verb](one, request));
  });
}

/** Runs it; says what went wrong. */
export async function attempt(act) {
  try { return await act(); } catch (error) { say(error.message, "bad"); return undefined; }
}

/** Asks in a dialog; whether the answer is yes. */
export function confirm(question, detail, yes, no = "Keep them") {
  return new Promise((resolve) => {
    const dialog = h("dialog", { class: "card ask", "aria-labelledby": "ask", onclose: () => {
      resolve(dialog.returnValue === "yes");
      dialog.remove();
    } }, h("form", { method: "dialog" }, h("h2", { id: "ask" }, question), h("p", {}, detail),
      h("div", { class: "actions" }, h("button", { class: "button quiet", value: "no" }, no),
        h("button", { class: "button danger", value: "yes" }, yes))));
    document.body.append(dialog);
    dialog.showModal();
  });
}
