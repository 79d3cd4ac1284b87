// Follows the queue: Server-Sent Events over fetch(), which can send the bearer header. It goes on after the last event
// that it had, waits longer after each failure, and tells how it is doing.

import { api, SignedOut } from "./session.js";

const SILENT = 40000; // ms without a byte: the server sends a comment at least every 15 s
const FIRST_WAIT = 500, LONGEST_WAIT = 15000;

export class Stream {
  /** `onEvent(name, data, id)`; `onState(state, until)`: connecting, live, waiting or offline. */
  constructor(onEvent, onState) {
    Object.assign(this, { onEvent, onState, lastId: "", failures: 0, stopped: false });
    this.wake = () => {};
    this.online = () => this.retry();
    this.offline = () => { this.tell("offline"); this.abort?.abort(); };
    addEventListener("online", this.online);
    addEventListener("offline", this.offline);
    this.run();
  }

  stop() {
    this.stopped = true;
    removeEventListener("online", this.online);
    removeEventListener("offline", this.offline);
    this.abort?.abort();
    this.wake();
  }

  /** Now, and not after the wait. */
  retry() { this.wake(); }

  async run() {
    while (!this.stopped) {
      if (this.failures === 0) this.tell("connecting");
      try {
        await this.follow();
        this.failures = 0;
      } catch (error) {
        if (this.stopped || error instanceof SignedOut) return;
        this.failures += 1;
        await this.rest(error.retryAfter ?? 0);
      }
    }
  }

  async follow() {
    this.abort = new AbortController();
    const headers = { Accept: "text/event-stream", ...(this.lastId && { "Last-Event-ID": this.lastId }) };
    const answer = await api("GET", "/api/v1/queue/events", { headers, signal: this.abort.signal, raw: true });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "", began = false, silence;
    try {
      for (;;) {
        clearTimeout(silence);
        silence = setTimeout(() => this.abort.abort(), SILENT);
        const { done, value } = await reader.read();
        if (done) break;
        if (!began) { began = true; this.failures = 0; this.tell("live"); }
        const parts = (text + value).split("\n\n");
        text = parts.pop();
        parts.forEach((part) => this.event(part));
      }
    } finally {
      clearTimeout(silence);
    }
    if (!began) throw new Error("The stream ended before it began.");
  }

  event(part) {
    const fields = {};
    for (const line of part.split("\n")) {
      const colon = line.indexOf(": ");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
    }
    if (!fields.event) return;
    this.lastId = fields.id;
    this.onEvent(fields.event, JSON.parse(fields.data), fields.id);
  }

  /** Twice as long after each failure, never exactly as long as others wait. */
  async rest(least) {
    const most = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (this.failures - 1));
    const wait = Math.max(most * (0.5 + Math.random() / 2), least * 1000);
    this.tell(navigator.onLine ? "waiting" : "offline", Date.now() + wait);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, wait);
      this.wake = () => { clearTimeout(timer); resolve(); };
    });
    this.wake = () => {};
    if (navigator.onLine) this.tell("connecting");
  }

  tell(state, until = null) { if (!this.stopped) this.onState(state, until); }
}
