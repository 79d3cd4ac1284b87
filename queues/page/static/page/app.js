// The page: which view is shown, the frame around it, and how the connection is.

import { attribute, button, h, number, say, span, text } from "./dom.js";
import { onEnd, whose } from "./session.js";
import { name } from "./actions.js";
import { detailsView } from "./details.js";
import { failedView, historyView } from "./lists.js";
import { failure } from "./parts.js";
import { queueView } from "./queue_view.js";
import { signInView } from "./sign_in.js";
import { Store } from "./store.js";

const ROUTES = [
  [/^#\/failed$/, () => failedView(store)],
  [/^#\/history$/, () => historyView(store)],
  [/^#\/account$/, () => later("Account", async (section) => (await import("./account_view.js")).account(section, leave))],
  [/^#\/webhooks$/, () => later("Webhooks", async (section) => (await import("./webhooks_view.js")).webhooks(section))],
  [/^#\/webhooks\/([0-9a-f-]{36})$/, (id) => later("Deliveries", async (section) => (await import("./webhooks_view.js")).deliveries(section, id))],
  [/^#\/requests\/([0-9a-f-]{36})$/, (id) => detailsView(store, id)],
  [/^/, () => queueView(store)],
];
const PLACES = [["#/", "Queue"], ["#/failed", "Failed"], ["#/history", "History"], ["#/account", "Account"]];

const app = document.getElementById("app");
const intro = document.getElementById("intro");
const nav = document.getElementById("places");
const light = document.getElementById("connection");
const banner = document.getElementById("trouble");
let store = null, view = null, links = [];

const retry = button("Try now", () => store.stream.retry(), { class: "button quiet" });
const trouble = h("p");
banner.append(trouble, retry);

function enter() {
  document.documentElement.dataset.session = "yes";
  intro.hidden = true;
  store = new Store();
  store.addEventListener("draw", draw);
  store.addEventListener("final", ({ detail }) => announce(detail));
  links = PLACES.map(([href, label]) => h("a", { href }, label));
  nav.replaceChildren(...links);
  nav.hidden = light.hidden = false;
  store.start();
  show();
}

function leave(why = "") {
  store?.stop();
  store = view = null;
  document.documentElement.removeAttribute("data-session");
  document.title = "Ordered work, per user";
  nav.hidden = light.hidden = banner.hidden = true;
  intro.hidden = false;
  history.replaceState(null, "", location.pathname);
  app.replaceChildren(signInView(enter, why));
  app.querySelector("input").focus();
}

function show(focus = false) {
  if (!store) return;
  for (const [pattern, make] of ROUTES) {
    const found = pattern.exec(location.hash);
    if (!found) continue;
    view = make(found[1]);
    break;
  }
  for (const link of links) attribute(link, "aria-current", link.hash === (location.hash || "#/") ? "page" : null);
  app.replaceChildren(view.element);
  draw();
  if (!focus) return;
  scrollTo(0, 0);
  view.element.querySelector("h1").focus({ preventScroll: true });
}

/** A view whose module is loaded when it is asked for: `fill` adds to the section, and gives what to call each second. */
function later(title, fill) {
  const element = h("section", { class: "stack narrow" }, h("h1", { tabindex: "-1" }, title));
  const made = { element, title, update() {} };
  fill(element).then((update) => { made.update = update; }, () =>
    element.append(failure(new Error("The service cannot be reached."), () => location.reload())));
  return made;
}

function draw() {
  if (!store) return;
  drawConnection();
  drawProblem();
  const failed = store.inbox().length;
  text(links[1], failed ? `Failed (${number(failed)})` : "Failed");
  const depth = store.queue?.depth;
  const title = `${depth ? `(${number(depth)}) ` : ""}${view.title} · Ordered work`;
  if (document.title !== title) document.title = title;
  view.update();
}

const STATES = { connecting: "Connecting", live: "Live", waiting: "Reconnecting", offline: "Offline" };
let troubled = 0;

function drawConnection() {
  const { state, until } = store.connection;
  text(light, STATES[state]);
  attribute(light, "data-state", state);
  const bad = state === "waiting" || state === "offline";
  if (!bad && state !== "connecting") troubled = 0;
  if (bad) troubled ||= Date.now();
  banner.hidden = !troubled;
  if (!troubled) return;
  const left = Math.max(0, Math.round(((until ?? 0) - Date.now()) / 1000));
  text(trouble, state === "offline"
    ? "You are offline. This is how your queue was; it goes on by itself when the connection is back."
    : "The connection is lost. What you see may be old; nothing that was accepted is lost.");
  text(retry, left > 1 && state === "waiting" ? `Try now (in ${span(left)})` : "Try now");
}

let complaint = null;

function drawProblem() {
  if (store.problem && !store.queue && !complaint) app.prepend(complaint = failure(store.problem, () => store.load()));
  if (complaint && (!store.problem || store.queue)) { complaint.remove(); complaint = null; }
}

// What has ended is read out: one sentence for all that ended within two seconds.
let news = [];

function announce(request) {
  news.push(request);
  if (news.length > 1) return;
  setTimeout(() => {
    const failed = news.filter((one) => one.status === "failed");
    const said = news.length === 1 ? `${name(news[0])}: ${news[0].status}.` : `${number(news.length)} requests have ended${failed.length ? `, ${number(failed.length)} failed` : ""}.`;
    if (failed.length) say(said, "bad");
    else document.getElementById("read-out").textContent = said;
    news = [];
  }, 2000);
}

onEnd(() => { if (store) leave("Your session has ended. Sign in again."); });
addEventListener("hashchange", () => show(true));
setInterval(() => { if (store && !document.hidden) store.changed(); }, 1000);

if (whose()) enter();
else app.replaceChildren(signInView(enter));
