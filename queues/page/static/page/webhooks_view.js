// Webhooks: their list, a form for another one, and what came of each message. Loaded when somebody looks.

import { ago, button, h, keyed, plural, say, text } from "./dom.js";
import { api } from "./session.js";
import { attempt, confirm } from "./actions.js";
import { Field, refuse, summaryOf } from "./fields.js";
import { failure } from "./parts.js";

const EVENTS = ["succeeded", "failed", "cancelled", "expired", "blocked"].map((status) => `request.${status}`);
const ROOT = "/api/v1/webhooks";

/** Fills the section; returns what is called once a second. */
export function webhooks(section) {
  const list = h("ul", { class: "stack", role: "list" });
  const empty = h("div", { class: "card empty", hidden: true }, h("h2", {}, "No webhooks yet"), h("p", {}, "An address of yours can be told what becomes of your requests."));
  const loading = h("div", { class: "card skeleton", "aria-hidden": "true" }, h("i"), h("i"));
  const wrong = h("div"), secret = h("div");
  section.append(h("p", { class: "quiet" }, "Each message is signed and comes in order. ", h("a", { href: "/api/docs" }, "The documentation"), " says how to check it."),
    secret, loading, wrong, empty, list, addForm((made) => { showSecret(made.secret); return load(); }));

  async function load() {
    wrong.replaceChildren();
    try {
      draw((await api("GET", ROOT)).data.results);
    } catch (error) {
      wrong.replaceChildren(failure(error, load));
    }
    loading.hidden = true;
  }

  function draw(found) {
    empty.hidden = found.length > 0;
    keyed(list, found, (item) => card(item, load, showSecret), (row, item) => row.update(item));
  }

  function showSecret(value) {
    const shown = h("input", { id: "secret", readonly: true, value, class: "code", autocomplete: "off" });
    const heading = h("h2", { tabindex: "-1" }, "The secret, shown this once");
    const copy = button("Copy", () => attempt(async () => { await navigator.clipboard.writeText(value); say("The secret is copied."); }), { class: "button quiet" });
    const away = button("I have it", () => { secret.replaceChildren(); section.querySelector("h1").focus(); }, { class: "button" });
    secret.replaceChildren(h("div", { class: "banner" }, heading, h("div", { class: "field" },
      h("label", { for: "secret" }, "Your receiver checks the signature of each message with it."), shown), h("div", { class: "actions" }, copy, away)));
    heading.focus();
  }

  load();
  return () => {};
}

function card(first, load, showSecret) {
  let now = first;
  const state = h("span", { class: "badge" }), events = h("p", { class: "quiet" }), told = h("p", { class: "quiet" });
  const trouble = h("p", { class: "trouble" });
  const path = `${ROOT}/${first.id}`;
  const named = (verb) => ({ class: "button quiet", "aria-label": `${verb}: ${first.url}` });
  const change = (act) => attempt(async () => { await act(); await load(); });
  const test = button("Send a test", () => attempt(async () => { await api("POST", `${path}/test`); location.hash = `#/webhooks/${first.id}`; }), named("Send a test"));
  const turn = button("", () => change(() => api("PATCH", path, { body: { enabled: !now.enabled } })), named("Switch"));
  const renew = button("New secret", () => attempt(async () => {
    const yes = await confirm("Make a new secret?", "For 24 hours each message is signed with the old one, too.", "Make a new one", "Keep it");
    if (yes) showSecret((await api("POST", `${path}/rotate-secret`)).data.secret);
  }), named("New secret"));
  const remove = button("Delete", async () => {
    if (await confirm("Delete this webhook?", `${first.url} is told nothing more, nor what is pending.`, "Delete it", "Keep it")) {
      await change(async () => { await api("DELETE", path); say("The webhook is deleted."); });
    }
  }, { ...named("Delete"), class: "button danger" });
  const element = h("li", { class: "card letter" }, h("div", { class: "titled" }, h("h2", { class: "address" }, first.url), state), events, told, trouble,
    h("div", { class: "actions" }, h("a", { href: `#/webhooks/${first.id}`, "aria-label": `Deliveries: ${first.url}` }, "Deliveries"), test, turn, renew, remove));
  return { element, update(item) {
    now = item;
    const failing = item.enabled && item.failing_since;
    text(state, failing ? "failing" : item.enabled ? "on" : "off");
    state.dataset.status = failing ? "failed" : item.enabled ? "succeeded" : "off";
    text(events, item.events.map((one) => one.replace("request.", "")).join(", "));
    text(told, item.last_delivered_at ? `Last delivered ${ago(item.last_delivered_at)}.` : "Nothing delivered yet.");
    text(trouble, [item.disabled_reason, item.last_error].filter(Boolean).join(" "));
    trouble.hidden = !trouble.textContent;
    text(turn, item.enabled ? "Switch off" : "Switch on");
    turn.setAttribute("aria-label", `${turn.textContent}: ${item.url}`);
    test.hidden = !item.enabled;
  } };
}

function addForm(made) {
  const summary = summaryOf();
  const url = new Field("url", "Address", h("input", { type: "url", inputmode: "url", autocomplete: "off", placeholder: "https://" }), { required: true });
  const events = EVENTS.map((event, index) => new Field(index ? `events.${index}` : "events", event.replace("request.", ""), h("input", { type: "checkbox", checked: true }), { inline: true }));
  const submit = h("button", { class: "button", type: "submit" }, "Add webhook");
  const form = h("form", { class: "card", novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    if (submit.getAttribute("aria-disabled")) return;
    submit.setAttribute("aria-disabled", "true");
    try {
      const body = { url: url.control.value.trim(), events: EVENTS.filter((_, index) => events[index].control.checked) };
      const { data } = await api("POST", ROOT, { body });
      summary.hidden = true;
      form.reset();
      await made(data);
    } catch (error) {
      refuse([url, ...events], error, summary);
    } finally {
      submit.removeAttribute("aria-disabled");
    }
  } }, h("h2", {}, "Add a webhook"), summary, h("div", { class: "fields" }, url.element,
    h("fieldset", {}, h("legend", {}, "Tell it when a request is"), h("div", { class: "choices" }, events.map((one) => one.element)))), h("div", { class: "actions" }, submit));
  return form;
}

const COLOURS = { delivered: "succeeded", pending: "running", dropped: "expired" };

/** The messages of one webhook, the newest first. While one of those shown is pending it looks again. */
export function deliveries(section, id) {
  const list = h("ul", { class: "rows card", role: "list" });
  const empty = h("p", { class: "card empty", hidden: true }, "It was told nothing yet.");
  const loading = h("div", { class: "card skeleton", "aria-hidden": "true" }, h("i"), h("i"));
  const wrong = h("div"), path = `${ROOT}/${id}/deliveries`;
  const more = button("Show more", () => load(next), { class: "button quiet", hidden: true });
  section.append(h("p", {}, h("a", { href: "#/webhooks" }, "All webhooks")), loading, wrong, empty, list, h("div", { class: "actions" }, more));
  let found = [], next = null, looked = 0, busy = false;

  async function load(address = null) {
    busy = true;
    try {
      const { data } = await api("GET", address ?? `${path}?limit=50`);
      found = address ? [...found, ...data.results] : data.results;
      next = data.next && new URL(data.next).pathname + new URL(data.next).search;
      wrong.replaceChildren();
      draw();
    } catch (error) {
      wrong.replaceChildren(failure(error, () => load()));
    }
    loading.hidden = true;
    looked = Date.now();
    busy = false;
  }

  function draw() {
    empty.hidden = found.length > 0;
    list.hidden = !found.length;
    more.hidden = !next;
    keyed(list, found, make, (row, item) => row.update(item));
  }

  function make(first) {
    const state = h("span", { class: "badge" }), said = h("span", { class: "payload" });
    const resend = button("Send again", () => attempt(async () => { await api("POST", `${path}/${first.id}/resend`); say("It is sent again."); await load(); }),
      { class: "button quiet", "aria-label": `Send again: ${first.event}, ${ago(first.created_at)}` });
    const event = first.request ? h("a", { href: `#/requests/${first.request}` }, first.event) : h("b", {}, first.event);
    const element = h("li", { class: "row over told" }, state, h("span", { class: "what" }, event, said), h("span", { class: "turn" }, ago(first.created_at)), h("span", { class: "verb" }, resend));
    return { element, update(item) {
      const last = item.attempts.at(-1);
      text(state, item.state);
      state.dataset.status = COLOURS[item.state];
      text(said, last ? `${plural(item.attempts.length, "attempt")}: ${last.error ?? `answer ${last.status} in ${Math.round(last.duration_ms)} ms`}` : "no attempt yet");
      resend.hidden = item.state === "pending";
    } };
  }

  load();
  return () => {
    const waits = found.length <= 50 && found.some((item) => item.state === "pending");
    if (waits && !busy && Date.now() - looked > 2000) load();
  };
}
