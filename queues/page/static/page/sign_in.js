// The way in: sign in, or sign up where one may.

import { h } from "./dom.js";
import { Field, refuse, summaryOf } from "./fields.js";
import { signIn, signUp } from "./session.js";

const REGISTRATION = document.getElementById("app").dataset.registration; // open, closed or invite

/** `enter()` is called when somebody has come in; `why` says why they were put out. */
export function signInView(enter, why = "") {
  const element = h("section", { class: "card way-in", "aria-labelledby": "way-in" });
  let fresh = false;

  function draw(focus) {
    const invited = fresh && REGISTRATION === "invite";
    const title = fresh ? "Sign up" : "Sign in";
    const summary = summaryOf();
    const username = new Field("username", "User name", h("input", { name: "username", autocomplete: "username", autocapitalize: "none", spellcheck: "false" }), { required: true });
    const password = new Field("password", "Password", h("input", { type: "password", name: "password", autocomplete: fresh ? "new-password" : "current-password" }),
      { required: true, hint: fresh ? "At least 8 characters, nothing common." : "" });
    const email = new Field("email", "E-mail", h("input", { type: "email", name: "email", autocomplete: "email" }),
      { hint: invited ? "Where your invitation was mailed to, if it was." : "" });
    const invitation = new Field("invitation", "Invitation", h("input", { name: "invitation", autocomplete: "off", autocapitalize: "none", spellcheck: "false" }),
      { required: true, hint: "The code that you were given." });
    const fields = [username, password, ...(fresh ? [email] : []), ...(invited ? [invitation] : [])];
    const submit = h("button", { class: "button", type: "submit" }, title);
    const form = h("form", { novalidate: true, onsubmit: async (event) => {
      event.preventDefault();
      if (submit.getAttribute("aria-disabled")) return;
      submit.setAttribute("aria-disabled", "true");
      const given = Object.fromEntries(fields.map(({ path, control }) => [path, control.value]));
      try {
        await (fresh ? signUp(given) : signIn(given.username, given.password));
        enter();
      } catch (error) {
        refuse(fields, error, summary);
      } finally {
        submit.removeAttribute("aria-disabled");
      }
    } }, h("div", { class: "fields" }, fields.map((field) => field.element)), h("div", { class: "actions" }, submit));
    const other = h("button", { type: "button", class: "link", onclick: () => { fresh = !fresh; why = ""; draw(true); } }, fresh ? "Sign in instead" : "Sign up instead");
    element.replaceChildren(h("h2", { id: "way-in" }, title), ...(why ? [h("p", { class: "banner", role: "status" }, why)] : []), summary, form,
      ...(fresh ? [] : [h("p", { class: "quiet" }, h("a", { href: "/account/password-reset" }, "Forgot your password?"))]),
      REGISTRATION === "closed" ? h("p", { class: "quiet" }, "You have no account yet? Ask an operator for one.")
        : h("p", { class: "quiet" }, fresh ? "You have an account? " : "You have no account yet? ", other));
    if (focus) username.control.focus();
  }

  draw(Boolean(why));
  return element;
}
