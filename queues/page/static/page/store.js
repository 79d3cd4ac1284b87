// What is known of one's queue. Views read it; what changes it marks it, and it is drawn once a frame at most.

import { since } from "./dom.js";
import { api, pathOf, read, write, whose } from "./session.js";
import { Stream } from "./stream.js";

const FINAL = new Set(["succeeded", "failed", "cancelled", "expired"]);
const RECENT = 30; // finished ones that are kept
const LOOK = 5000; // ms between looks at the pace, which changes without an event
const MISSED = 20; // requests that are asked for one by one; more: what is over lately, at once
const SEEN = 2000; // failed ones that are remembered as dealt with, and that are looked through for others
const PAGE = 200; // of failed ones: as many as the API gives at once
export const INBOX = 100; // failed ones that are shown at once

export const isFinal = (request) => FINAL.has(request.status);

export class Store extends EventTarget {
  queue = null; // as the API shows it
  active = new Map(); // what is not final, by id
  finished = new Map(); // what ended lately, the newest last
  failed = null; // the inbox, and what is put away while one looks: null until it is loaded
  older = null; // where the failed ones go on that are not here
  kinds = null;
  connection = { state: "connecting", until: null };
  problem = null; // why nothing can be shown
  asking = new Set(); // for each question to the API: what the stream told of since, by id; the queue has none

  start() {
    this.seen = new Set(JSON.parse(read(`seen:${whose()}`) ?? "[]"));
    this.stream = new Stream((...event) => this.hear(...event), (state, until) => this.connect(state, until));
    this.timer = setInterval(() => this.look(), LOOK);
    this.load();
  }

  stop() {
    this.stream.stop();
    clearInterval(this.timer);
  }

  /** What the stream does not tell: kinds, and what is over already. Raises nothing; `problem` says what is wrong. */
  async load() {
    this.problem = null;
    this.changed();
    try {
      const [kinds, recent, failed, queue] = await Promise.all([
        api("GET", "/api/v1/kinds"),
        api("GET", `/api/v1/requests?order=desc&limit=${RECENT}`),
        api("GET", `/api/v1/requests?status=failed&order=desc&limit=${PAGE}`),
        api("GET", "/api/v1/queue"),
      ]);
      this.kinds = kinds.data;
      this.queue ??= queue.data;
      const known = new Set(this.finished.keys());
      const over = recent.data.results.filter((one) => isFinal(one) && !known.has(one.id)).reverse();
      this.finished = new Map([...over.map((one) => [one.id, one]), ...this.finished]);
      const retried = recent.data.results.map((one) => one.retry_of);
      retried.filter(Boolean).forEach((id) => this.seen.add(id));
      this.passed = 0;
      this.fail(failed.data);
      this.lookBack();
    } catch (error) {
      this.problem = error;
    }
    this.changed();
  }

  /** A page of failed ones, the newest first. */
  fail({ results, next }) {
    const open = results.filter((one) => !this.seen.has(one.id));
    this.failed = new Map([...(this.failed ?? []), ...open.map((one) => [one.id, one])]);
    this.passed += results.length;
    this.older = next && this.passed < SEEN ? pathOf(next) : null;
  }

  /** Whether the inbox still has to be filled with older ones. */
  looksBack() { return this.failed === null || (this.older !== null && this.inbox().length < INBOX); }

  async lookBack() {
    if (this.looking || !this.older) return;
    this.looking = true;
    try {
      while (this.looksBack()) this.fail((await api("GET", this.older)).data);
    } catch { /* the next look goes on from there */ }
    this.looking = false;
    this.changed();
  }

  hear(name, data, id) {
    this.asking.forEach((newer) => newer.add(data.id));
    if (name === "queue") this.queue = data;
    else this.take(data);
    this.let_go(Number(id.split("-")[0]));
    this.changed();
  }

  /** A request as the API showed it. */
  take(request) {
    const before = this.active.get(request.id);
    if (!isFinal(request)) {
      if (!this.finished.has(request.id)) this.active.set(request.id, request);
    } else {
      this.active.delete(request.id);
      this.finished.delete(request.id);
      this.finished.set(request.id, request);
      if (this.finished.size > RECENT) this.finished.delete(this.finished.keys().next().value);
      if (request.status === "failed" && this.failed) this.failed = new Map([[request.id, request], ...this.failed]);
      if (before) this.dispatchEvent(new CustomEvent("final", { detail: request }));
    }
    if (request.retry_of) this.deal_with(request.retry_of);
    this.changed();
  }

  /** All up to that place is final. What is still believed to be under way was missed: ask for it. */
  let_go(done) {
    const missed = [...this.active.values()].filter(({ sequence }) => sequence !== null && sequence <= done);
    missed.forEach(({ id }) => this.active.delete(id));
    if (missed.length > MISSED) this.load();
    else missed.forEach(({ id }) => this.answer(() => api("GET", `/api/v1/requests/${id}`)).catch(() => {}));
  }

  connect(state, until) {
    this.connection = { state, until };
    if (state === "live" && this.problem) this.load();
    this.changed();
  }

  async look() {
    if (document.hidden || this.connection.state === "offline") return;
    this.lookBack();
    if (!this.queue?.depth) return;
    try {
      await this.answer(() => api("GET", "/api/v1/queue"));
    } catch { /* the stream tells of what is wrong */ }
  }

  /** A verb on one request or on the queue; what the API shows afterwards is taken. */
  act(path, key) {
    return this.answer(() => api("POST", `/api/v1/${path}`, { key }));
  }

  /** Take what the API shows, unless the stream told of it meanwhile: then it is asked for once more, and if that is late
      as well, or fails, what the stream told stands. */
  async answer(ask) {
    const newer = new Set();
    this.asking.add(newer);
    try {
      const { data } = await ask();
      let shown = data;
      if (newer.delete(data.id)) {
        const path = data.id ? `requests/${data.id}` : "queue";
        shown = await api("GET", `/api/v1/${path}`).then((again) => again.data, () => null);
      }
      if (shown && !newer.has(data.id)) this.show(shown);
      return data;
    } finally {
      this.asking.delete(newer);
    }
  }

  show(shown) {
    if (shown.id) this.take(shown);
    else { this.queue = shown; this.changed(); }
  }

  /** The failed ones that nobody has retried or put away, the newest first. */
  inbox() {
    return [...(this.failed?.values() ?? [])].filter((one) => !this.seen.has(one.id))
      .sort((a, b) => new Date(b.finished_at) - new Date(a.finished_at));
  }

  deal_with(id) {
    if (this.seen.has(id)) return;
    this.seen.add(id);
    write(`seen:${whose()}`, JSON.stringify([...this.seen].slice(-SEEN)));
    this.lookBack();
    this.changed();
  }

  /** The head of the line if it runs, waits for another attempt or blocks; those behind it; those for later. */
  line() {
    const all = [...this.active.values()];
    const inLine = all.filter((one) => one.sequence !== null).sort((a, b) => a.sequence - b.sequence);
    const scheduled = all.filter((one) => one.sequence === null)
      .sort((a, b) => new Date(a.not_before) - new Date(b.not_before));
    const head = inLine.length && inLine[0].status !== "queued" ? inLine[0] : null;
    return { head, waiting: head ? inLine.slice(1) : inLine, scheduled };
  }

  /** Seconds that the head still takes: the first attempt by its progress, else as long as others take. The API does not
      tell when a later attempt began. */
  rest({ status, attempt, progress, started_at }, usual) {
    if (status !== "running" || attempt > 1 || !progress?.total || !progress.current) return usual;
    return since(started_at) / progress.current * (progress.total - progress.current);
  }

  /** Seconds until the request behind so many others starts; null while nobody can know. */
  turn(index, head) {
    const { eta_seconds: eta, depth, state, paused } = this.queue ?? {};
    if (!eta || !depth || paused || state === "blocked") return null;
    return (head ? this.rest(head, eta / depth) : 0) + index * (eta / depth);
  }

  changed() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => { this.due = false; this.dispatchEvent(new Event("draw")); });
  }
}
