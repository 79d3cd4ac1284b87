// The form that asks for work. Sending it again after a lost answer asks for nothing twice: the key stays the same.

import { api, uuid } from "./session.js";
import { h, say, text } from "./dom.js";
import { Field, refuse, summaryOf } from "./fields.js";
import { schemaForm } from "./schema_form.js";
import { name } from "./actions.js";

export function newRequest(store) {
  const summary = summaryOf();
  const about = h("p", { class: "hint" });
  const place = h("div");
  const choice = h("select", { onchange: () => choose() });
  const kind = new Field("kind", "Kind", choice, { required: true });
  const start = new Field("not_before", "Not before", h("input", { type: "datetime-local", step: 1 }));
  const end = new Field("expires_at", "Expires", h("input", { type: "datetime-local", step: 1 }), { hint: "Given up if it has not started by then." });
  const later = h("details", { class: "later" }, h("summary", {}, "When"), h("div", { class: "fields" }, start.element, end.element));
  const submit = h("button", { class: "button", type: "submit" }, "Add to my queue");
  const form = h("form", { novalidate: true, oninput: () => { key = uuid(); }, onsubmit: send },
    summary, kind.element, about, place, later, h("div", { class: "actions" }, submit));
  const loading = h("p", { class: "quiet" }, "Loading what can be asked for …");
  const none = h("p", { class: "quiet", hidden: true }, "There is nothing that you can ask for. An operator turns kinds of work on.");
  const wide = matchMedia("(min-width: 60rem)");
  const box = h("details", { class: "card new", open: wide.matches }, h("summary", {}, h("h2", {}, "New request")), loading, none, form);
  wide.addEventListener("change", () => { box.open = wide.matches; });
  form.hidden = true;
  let payload = null, kinds = null, key = uuid(), sending = false;

  function choose() {
    const chosen = kinds[Number(choice.value)];
    payload = schemaForm(chosen.schema);
    place.replaceChildren(payload.element);
    text(about, [chosen.description, `Up to ${chosen.max_attempts} attempts of ${chosen.time_limit} s.`,
      chosen.on_failure === "block" ? "If it fails for good your queue stops until you decide." : ""].filter(Boolean).join(" "));
    summary.hidden = true;
  }

  async function send(event) {
    event.preventDefault();
    if (sending) return;
    const fields = [kind, ...payload.fields, start, end];
    const chosen = kinds[Number(choice.value)];
    let body;
    try {
      body = { kind: chosen.kind, version: chosen.version, payload: payload.value() ?? null, ...moment("not_before", start), ...moment("expires_at", end) };
    } catch (unsendable) {
      refuse(fields, { errors: [{ field: unsendable.path, detail: unsendable.message }] }, summary);
      return;
    }
    sending = true;
    submit.setAttribute("aria-disabled", "true");
    try {
      const { data } = await api("POST", "/api/v1/requests", { body, key });
      refuseNothing(fields);
      key = uuid();
      store.take(data);
      say(`${name(data)} is ${data.status === "scheduled" ? "scheduled" : "in line"}.`);
    } catch (error) {
      refuse(fields, error, summary);
    } finally {
      sending = false;
      submit.removeAttribute("aria-disabled");
    }
  }

  function refuseNothing(fields) {
    fields.forEach((field) => field.problem(""));
    summary.hidden = true;
  }

  return {
    element: box,
    update() {
      if (!store.kinds || kinds === store.kinds) return;
      kinds = store.kinds;
      loading.hidden = true;
      none.hidden = kinds.length > 0;
      form.hidden = !kinds.length;
      const several = new Set(kinds.map((one) => one.kind)).size < kinds.length;
      choice.replaceChildren(...kinds.map((one, n) => h("option", { value: n }, several ? `${one.kind} version ${one.version}` : one.kind)));
      if (kinds.length) choose();
    },
  };
}

function moment(field, { control }) {
  return control.value ? { [field]: new Date(control.value).toISOString() } : {};
}
