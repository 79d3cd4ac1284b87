// Who is signed in. The access token lives in this module's memory; the refresh token in a cookie no script can read.
//
// A refresh token is good for one use, and a second use ends the session. So the tabs of one browser take turns (Web
// Locks), and a refresh whose answer was lost is repeated with the same Idempotency-Key, which the tabs share. What
// localStorage holds opens nothing: the user's id, to know that there is a session, and that key.

const AUTH = "/api/v1/auth/";
const IN_COOKIE = { "Accept-Session": "cookie", "X-Requested-With": "page" };
const EARLY = 20; // seconds before its end that an access token is replaced

let access = null;
let goodUntil = 0; // by this page's own clock
let ended = () => {};

/** What the API refused: a problem of RFC 9457. */
export class Refused extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail ?? `The service answered ${status}.`);
    Object.assign(this, { status, problem, retryAfter, errors: problem.errors ?? [] });
  }
}

/** No answer came. */
export class Unreachable extends Error {
  constructor() { super("The service cannot be reached. Check your connection; nothing that was accepted is lost."); }
}

export class SignedOut extends Error {
  constructor() { super("Your session has ended. Sign in again."); }
}

export const whose = () => read("session");
export const onEnd = (call) => { ended = call; };
export const uuid = () => crypto.randomUUID?.() ??
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export async function signUp(fields) {
  await send("POST", `${AUTH}register`, { body: fields });
  await signIn(fields.username, fields.password);
}

export async function signIn(username, password) {
  keep((await send("POST", `${AUTH}token`, { body: { username, password }, headers: IN_COOKIE })).data);
}

export async function signOut(everywhere = false) {
  try {
    if (everywhere) await api("POST", `${AUTH}logout-all`);
    await send("POST", `${AUTH}logout`, { headers: IN_COOKIE });
  } catch (error) {
    if (error.status !== 401 && !(error instanceof SignedOut)) throw error; // the session lives: do not say that it ended
  }
  forget();
}

/** One call of the API as whoever is signed in: `{ status, data }`. Raises Refused, Unreachable and SignedOut. */
export async function api(method, path, options = {}) {
  try {
    return await send(method, path, { ...options, token: await token() });
  } catch (error) {
    if (error.status !== 401) throw error;
  }
  goodUntil = 0;
  return send(method, path, { ...options, token: await token() });
}

/** An address of ours as `api` takes it: what a page says is the next one. */
export function pathOf(address) {
  const { pathname, search } = new URL(address, location.href);
  return pathname + search;
}

/** An access token that is good for a while. Raises as `api`. */
export async function token() {
  if (!fresh()) await inTurn(refresh);
  return access;
}

const fresh = () => access && performance.now() < goodUntil;

async function refresh() {
  if (fresh()) return;
  const before = whose();
  if (!before) return over();
  const key = read("refresh-key") ?? uuid();
  write("refresh-key", key);
  let answer;
  try {
    answer = await send("POST", `${AUTH}token/refresh`, { headers: { ...IN_COOKIE, "Idempotency-Key": key } });
  } catch (error) {
    if (error.status === 401 || error.status === 403) { write("refresh-key", null); over(); }
    throw error;
  }
  write("refresh-key", null);
  keep(answer.data);
  if (before !== whose()) location.reload(); // somebody else signed in, in another tab
}

function inTurn(act) {
  return navigator.locks ? navigator.locks.request("refresh", act) : (inTurn.last = (inTurn.last ?? Promise.resolve())
    .catch(() => {}).then(act));
}

function over() {
  forget();
  ended();
  throw new SignedOut();
}

async function send(method, path, { body, headers = {}, key, token: bearer, signal, raw } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  if (bearer) sent.Authorization = `Bearer ${bearer}`;
  if (key) sent["Idempotency-Key"] = key;
  let answer;
  try {
    answer = await fetch(path, { method, headers: sent, signal, cache: "no-store", redirect: "error",
      body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable();
  }
  if (answer.ok && raw) return answer;
  let data = null;
  try {
    const said = await answer.text();
    data = said ? JSON.parse(said) : null;
  } catch (error) {
    if (answer.ok) throw new Unreachable(); // it broke off
  }
  if (!answer.ok) throw new Refused(answer.status, data ?? {}, Number(answer.headers.get("Retry-After")) || null);
  return { status: answer.status, data };
}

function keep({ access: fresher }) {
  const claims = JSON.parse(atob(fresher.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
  access = fresher;
  goodUntil = performance.now() + Math.max(1, claims.exp - claims.iat - EARLY) * 1000;
  write("session", claims.sub);
}

function forget() {
  access = null;
  goodUntil = 0;
  write("session", null);
}

export function read(name) {
  try { return localStorage.getItem(name); } catch { return null; }
}

export function write(name, value) {
  try { value === null ? localStorage.removeItem(name) : localStorage.setItem(name, value); } catch { /* full, or none */ }
}

addEventListener("storage", ({ key, newValue, oldValue }) => {
  if (key !== "session" || newValue === oldValue) return;
  if (newValue) location.reload(); // another user, or the way in is behind us
  else if (access) { access = null; goodUntil = 0; ended(); }
});
