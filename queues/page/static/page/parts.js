// Small parts that several views share.

import { attribute, brief, h, text } from "./dom.js";
import { name } from "./actions.js";

/** The status, in a colour and in words. */
export function badge(request) {
  const element = h("span", { class: "badge" });
  const update = (now) => { text(element, now.status); attribute(element, "data-status", now.status); };
  update(request);
  return { element, update };
}

export const link = (request, label = name(request)) =>
  h("a", { href: `#/requests/${request.id}`, "aria-label": label === name(request) ? null : `${label} of ${name(request)}` }, label);

/** What became of it, on one line. */
export function outcome(request) {
  if (request.error && request.status !== "succeeded") return `${request.error.type}: ${request.error.message}`;
  return request.status === "succeeded" ? brief(request.result) : brief(request.payload);
}

export function failure(error, again) {
  return h("div", { class: "card failed" }, h("h2", {}, "This could not be loaded"), h("p", {}, error.message),
    h("div", { class: "actions" }, h("button", { type: "button", class: "button", onclick: again }, "Try again")));
}
