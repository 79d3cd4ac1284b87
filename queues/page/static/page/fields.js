// Fields with a label, a hint and an error: for the forms of the page and for those made from a JSON Schema.

import { attribute, h } from "./dom.js";

let count = 0;

/** A labelled control. `problem(sentence)` shows an error at it, or takes it away. */
export class Field {
  constructor(path, label, control, { hint = "", required = false, inline = false } = {}) {
    const id = `field-${count += 1}`;
    Object.assign(this, { path, control });
    control.id = id;
    if (required) control.setAttribute("aria-required", "true");
    this.hint = hint ? h("p", { class: "hint", id: `${id}-hint` }, hint) : null;
    this.error = h("p", { class: "error", id: `${id}-error`, hidden: true });
    const named = h("label", { for: id }, label, required || inline ? null : h("span", { class: "optional" }, " optional"));
    this.element = h("div", { class: inline ? "field inline" : "field" },
      ...(inline ? [control, named] : [named, this.hint, control]), inline ? this.hint : null, this.error);
    this.describe();
    control.addEventListener("input", () => this.problem(""));
  }

  problem(sentence) {
    this.error.textContent = sentence;
    this.error.hidden = !sentence;
    attribute(this.control, "aria-invalid", sentence ? "true" : null);
    this.describe();
  }

  describe() {
    const by = [this.hint?.id, this.error.hidden ? null : this.error.id].filter(Boolean).join(" ");
    attribute(this.control, "aria-describedby", by || null);
  }
}

/** Puts each error of a problem at its field; those that have none into `summary`. The first one gets the focus. */
export function refuse(fields, error, summary) {
  const left = [];
  fields.forEach((field) => field.problem(""));
  for (const { field: path, detail } of error.errors ?? []) {
    const at = fields.filter((one) => path === one.path || path.startsWith(`${one.path}.`))
      .sort((a, b) => b.path.length - a.path.length)[0];
    if (!at) left.push(path ? `${path}: ${detail}` : detail);
    else at.problem(at.error.hidden ? more(at, path, detail) : `${at.error.textContent} ${more(at, path, detail)}`);
  }
  if (!error.errors?.length) left.push(error.message);
  summary.textContent = left.join(" ");
  summary.hidden = !left.length;
  (fields.find((field) => !field.error.hidden)?.control ?? summary).focus();
}

const more = (field, path, detail) => path === field.path ? detail : `${path.slice(field.path.length + 1)}: ${detail}`;

export const summaryOf = () => h("p", { class: "banner bad", role: "alert", tabindex: "-1", hidden: true });
