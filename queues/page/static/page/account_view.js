// The account: who this is, the password, the sessions. Loaded when somebody goes there.

import { ago, button, h, keyed, say, text } from "./dom.js";
import { api, signOut } from "./session.js";
import { attempt } from "./actions.js";
import { Field, refuse, summaryOf } from "./fields.js";
import { failure } from "./parts.js";

/** `leave()` is called when the user has signed out. */
export function account(section, leave) {
  const who = h("p", {}, "Loading …");
  const name = h("input", { autocomplete: "username", hidden: true });
  const sessions = h("ul", { class: "rows", role: "list" });
  const confirming = h("section", { class: "card titled", hidden: true });
  const wrong = h("div"), hooks = h("div"), own = h("div", { class: "stack" });
  const out = button("Sign out", () => attempt(async () => { await signOut(); leave(); }), { class: "button quiet" });
  const everywhere = button("Sign out everywhere", () => attempt(async () => { await signOut(true); leave("You are signed out everywhere."); }), { class: "button danger" });
  section.append(h("div", { class: "card titled" }, who, out), wrong, confirming, passwordForm(name),
    h("section", { class: "card" }, h("h2", { tabindex: "-1" }, "Sessions"), h("p", { class: "quiet" }, "Where you are signed in. End what you do not know, and change your password."), sessions,
      h("div", { class: "actions" }, everywhere)), hooks, own);

  async function load() {
    wrong.replaceChildren();
    try {
      const [me, mail, live] = await Promise.all(["me", "me/email", "sessions"].map((path) => api("GET", `/api/v1/auth/${path}`)));
      name.value = me.data.username;
      who.replaceChildren(h("b", {}, me.data.username), me.data.email ? ` · ${me.data.email}` : "");
      if (mail.data.email) confirming.replaceChildren(...confirmation(mail.data));
      confirming.hidden = !mail.data.email;
      draw(live.data);
    } catch (error) {
      wrong.replaceChildren(failure(error, load));
    }
  }

  function draw(live) {
    keyed(sessions, live, (item) => {
      const used = h("span", { class: "payload" });
      const end = item.current ? h("span", { class: "badge", "data-status": "succeeded" }, "this one")
        : button("End", () => attempt(async () => { await api("DELETE", `/api/v1/auth/sessions/${item.id}`); draw(live.filter((one) => one !== item)); say("That session has ended."); }),
          { class: "button quiet", "aria-label": `End the session on ${browser(item)}` });
      return { used, element: h("li", { class: "row session" }, h("span", { class: "what" }, h("b", {}, browser(item)), used), h("span", { class: "verb" }, end)) };
    }, (row, item) => text(row.used, `${item.address ?? "unknown address"} · signed in ${ago(item.created_at)} · used ${ago(item.last_used_at)}`));
  }

  async function more() {
    const { ownData } = await import("./own_data.js");
    own.replaceChildren(...ownData(leave));
    const { webhooks } = (await api("GET", "/api/v1/")).data; // an app that a service may do without
    if (webhooks) hooks.replaceChildren(h("section", { class: "card titled" }, h("div", {}, h("h2", {}, "Webhooks"), h("p", { class: "quiet" }, "An address of yours is told what becomes of your requests.")), h("a", { href: "#/webhooks" }, "Set up webhooks")));
  }

  load();
  more().catch(() => own.replaceChildren(failure(new Error("Your data and webhooks could not be loaded."), () => location.reload())));
  return () => {};
}

/** Whether the address is confirmed; if not, another mail with a link. */
function confirmation({ email, confirmed }) {
  const title = h("h2", {}, "E-mail address");
  if (confirmed) return [title, h("span", { class: "badge", "data-status": "succeeded" }, "confirmed")];
  const ask = button("Mail me a link", () => attempt(async () => {
    await api("POST", "/api/v1/auth/verify-email", { body: { email } });
    say(`If ${email} is not confirmed yet, a mail with a link is on its way.`);
  }), { class: "button quiet" });
  return [h("div", {}, title, h("p", { class: "quiet" }, "Not confirmed yet: open the link in our mail. If that got lost or expired, have another one mailed.")), ask];
}

/** `name`: the hidden field that tells password managers whose password it is. */
function passwordForm(name) {
  const summary = summaryOf();
  const current = new Field("current_password", "Current password", h("input", { type: "password", autocomplete: "current-password" }), { required: true });
  const fresh = new Field("new_password", "New password", h("input", { type: "password", autocomplete: "new-password" }), { required: true, hint: "Every other session ends." });
  const submit = h("button", { class: "button", type: "submit" }, "Change password");
  const form = h("form", { class: "card", novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    if (submit.getAttribute("aria-disabled")) return;
    submit.setAttribute("aria-disabled", "true");
    try {
      await api("POST", "/api/v1/auth/password", { body: { current_password: current.control.value, new_password: fresh.control.value } });
      summary.hidden = true;
      form.reset();
      say("Your password is changed. Every other session has ended.");
    } catch (error) {
      refuse([current, fresh], error, summary);
    } finally {
      submit.removeAttribute("aria-disabled");
    }
  } }, h("h2", {}, "Change password"), name, summary, h("div", { class: "fields" }, current.element, fresh.element), h("div", { class: "actions" }, submit));
  return form;
}

const SYSTEMS = ["Windows", "Android", "iPhone", "iPad", "Mac OS X", "Linux"];
const BROWSERS = [["Edg/", "Edge"], ["Firefox/", "Firefox"], ["Chrome/", "Chrome"], ["Safari/", "Safari"]];

function browser({ user_agent: agent }) {
  const name = BROWSERS.find(([mark]) => agent.includes(mark))?.[1];
  const system = SYSTEMS.find((one) => agent.includes(one));
  return name ? [name, system?.replace("Mac OS X", "macOS")].filter(Boolean).join(" on ") : agent.slice(0, 40) || "an unknown program";
}
