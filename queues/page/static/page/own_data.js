// What is kept of the user: a copy of it, and its end. Loaded with the account.

import { button, h, say } from "./dom.js";
import { api, signOut } from "./session.js";
import { attempt, confirm } from "./actions.js";
import { Field, refuse, summaryOf } from "./fields.js";

/** Cards to put below the account. `leave(why)` is called when there is no account any more. */
export function ownData(leave) {
  const copy = button("Export my data", () => attempt(download), { class: "button quiet" });
  return [h("section", { class: "card" }, h("h2", {}, "Your data"),
    h("p", { class: "quiet" }, "All that is kept of you and your requests: a JSON object a line."), h("div", { class: "actions" }, copy)), eraseForm(leave)];
}

async function download() {
  const answer = await api("GET", "/api/v1/auth/me/export", { raw: true, headers: { Accept: "*/*" } });
  let file, end;
  try {
    file = await answer.blob();
    end = JSON.parse((await file.slice(-200).text()).trimEnd().split("\n").at(-1));
  } catch { /* it broke off: said below */ }
  if (end?.record !== "end") throw new Error("The export broke off. Try again.");
  const link = h("a", { href: URL.createObjectURL(file), download: "export.jsonl" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  say("Your data is exported.");
}

function eraseForm(leave) {
  const summary = summaryOf();
  const password = new Field("password", "Your password", h("input", { type: "password", autocomplete: "current-password" }), { required: true });
  const submit = h("button", { class: "button danger", type: "submit" }, "Delete my account");
  return h("form", { class: "card", novalidate: true, onsubmit: async (event) => {
    event.preventDefault();
    if (submit.getAttribute("aria-disabled")) return;
    submit.setAttribute("aria-disabled", "true");
    try {
      if (!await confirm("Delete your account?", "It goes with all your requests, for good. What waits is cancelled.", "Delete it", "Keep it")) return;
      await api("DELETE", "/api/v1/auth/me", { body: { password: password.control.value } });
      leave("Your account is deleted. What is kept of you goes within seconds.");
      await signOut().catch(() => {}); // takes the cookie away
    } catch (error) {
      refuse([password], error, summary);
    } finally {
      submit.removeAttribute("aria-disabled");
    }
  } }, h("h2", {}, "Delete my account"), h("p", { class: "quiet" }, "Export your data first if you want to keep it."), summary,
    h("div", { class: "fields" }, password.element), h("div", { class: "actions" }, submit));
}
