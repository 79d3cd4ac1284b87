// The way in: sign in, or sign up.

import { h } from "./dom.js";
import { Field, refuse, summaryOf } from "./fields.js";
import { signIn, signUp } from "./session.js";

/** `enter()` is called when somebody has come in; `why` says why they were put out. */
export function signInView(enter, why = "") {
  const element = h("section", { class: "card way-in", "aria-labelledby": "way-in" });
  let fresh = false;

  function draw(focus) {
    const title = fresh ? "Sign up" : "Sign in";
    const summary = summaryOf();
    const username = new Field("username", "User name", h("input", { name: "username", autocomplete: "username", autocapitalize: "none", spellcheck: "false" }), { required: true });
    const password = new Field("password", "Password", h("input", { type: "password", name: "password", autocomplete: fresh ? "new-password" : "current-password" }),
      { required: true, hint: fresh ? "At least 8 characters, nothing common." : "" });
    const email = new Field("email", "E-mail", h("input", { type: "email", name: "email", autocomplete: "email" }));
    const fields = fresh ? [username, password, email] : [username, password];
    const submit = h("button", { class: "button", type: "submit" }, title);
    const form = h("form", { novalidate: true, onsubmit: async (event) => {
      event.preventDefault();
      if (submit.getAttribute("aria-disabled")) return;
      submit.setAttribute("aria-disabled", "true");
      const [name, secret] = [username.control.value, password.control.value];
      try {
        await (fresh ? signUp({ username: name, password: secret, ...(email.control.value && { email: email.control.value }) }) : signIn(name, secret));
        enter();
      } catch (error) {
        refuse(fields, error, summary);
      } finally {
        submit.removeAttribute("aria-disabled");
      }
    } }, h("div", { class: "fields" }, fields.map((field) => field.element)), h("div", { class: "actions" }, submit));
    const other = h("button", { type: "button", class: "link", onclick: () => { fresh = !fresh; why = ""; draw(true); } }, fresh ? "Sign in instead" : "Sign up instead");
    element.replaceChildren(h("h2", { id: "way-in" }, title), ...(why ? [h("p", { class: "banner", role: "status" }, why)] : []), summary, form,
      h("p", { class: "quiet" }, fresh ? "You have an account? " : "You have no account yet? ", other));
    if (focus) username.control.focus();
  }

  draw(Boolean(why));
  return element;
}
