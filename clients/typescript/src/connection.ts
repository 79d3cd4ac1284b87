// Calls of the service: sent again where that is safe, with an access token that is renewed by itself.

import { ApiError, errorOf, NotAuthenticated, OrderedWorkError, Unreachable } from "./errors.js";
import type { components } from "./schema.js";

export type Operations = components["schemas"]["Operations"];

/** Checked by the compiler: these are the methods and paths of the OpenAPI document. */
const ROUTES: { readonly [id in keyof Operations]: readonly [Operations[id]["method"], Operations[id]["path"]] } = {
  login: ["POST", "/api/v1/auth/token"],
  refresh: ["POST", "/api/v1/auth/token/refresh"],
  submit: ["POST", "/api/v1/requests"],
  submit_batch: ["POST", "/api/v1/requests/batch"],
  request: ["GET", "/api/v1/requests/{request_id}"],
  requests: ["GET", "/api/v1/requests"],
  cancel: ["POST", "/api/v1/requests/{request_id}/cancel"],
  retry: ["POST", "/api/v1/requests/{request_id}/retry"],
  skip: ["POST", "/api/v1/requests/{request_id}/skip"],
  queue: ["GET", "/api/v1/queue"],
  pause: ["POST", "/api/v1/queue/pause"],
  resume: ["POST", "/api/v1/queue/resume"],
  purge: ["POST", "/api/v1/queue/purge"],
};
const RETRIED = new Set([429, 502, 503, 504]);
const READ_MS = 10_000;
const SILENT_MS = 60_000; // a stream says something far sooner than that

/** How often a call that can be repeated is tried, and the pauses between, in milliseconds. */
export interface Patience {
  attempts: number;
  first: number;
  longest: number;
}

export interface Tokens {
  access: string;
  refresh?: string;
}

export interface Options {
  patience?: Partial<Patience>;
  /** Instead of the global fetch: through a proxy, for example. */
  fetch?: typeof fetch;
}

export interface Call<Id extends keyof Operations> {
  /** The request that the path names. */
  id?: string;
  query?: Operations[Id]["query"];
  body?: unknown;
  /** The idempotency key. With one, or as a GET, doing it twice is doing it once. */
  key?: string;
  anonymous?: boolean;
  /** How long the answer may take, in milliseconds. */
  within?: number;
  signal?: AbortSignal | undefined;
}

export class Connection {
  access: string;
  refresh: string;
  readonly patience: Patience;
  readonly #base: string;
  readonly #fetch: typeof fetch;
  // A refresh token is spent by its use. With the same key it may be sent again when the answer got lost.
  readonly #refreshKey = newKey();
  #renewing: Promise<void> | undefined;

  constructor(url: string, tokens: Tokens, options: Options) {
    this.#base = url.replace(/\/+$/, "");
    this.access = tokens.access;
    this.refresh = tokens.refresh ?? "";
    this.patience = { attempts: 5, first: 200, longest: 10_000, ...options.patience };
    this.#fetch = options.fetch ?? ((...sent) => fetch(...sent));
  }

  /** What the service says. Throws ApiError, Unreachable, or the reason of the signal. */
  async call<Id extends keyof Operations>(name: Id, call: Call<Id> = {}): Promise<Operations[Id]["answer"]> {
    const [method] = ROUTES[name];
    const repeatable = method === "GET" || call.key !== undefined;
    let renewed = false;
    for (let attempt = 1; ; attempt++) {
      const { access } = this;
      let answer: [Response, string];
      try {
        answer = await this.#send(name, call);
      } catch (error) {
        call.signal?.throwIfAborted();
        if (!repeatable) throw noAnswer(error);
        await this.pause(attempt, error, call.signal);
        continue;
      }
      const [response, text] = answer;
      if (response.ok) return (text === "" ? undefined : JSON.parse(text)) as Operations[Id]["answer"];
      const refused = errorOf(response, text);
      if (refused instanceof NotAuthenticated && !call.anonymous && this.refresh && !renewed) {
        await this.#renew(access, call.signal);
        renewed = true;
      } else if (RETRIED.has(response.status) && repeatable) {
        await this.pause(attempt, refused, call.signal);
      } else {
        throw refused;
      }
    }
  }

  /** The body of the stream of events. It ends with `signal`, and when nothing comes for a minute. */
  async *stream(lastId: string, signal?: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
    for (let renewed = false; ; renewed = true) {
      const { access } = this;
      const watch = new Watch(SILENT_MS, signal);
      try {
        const headers = { Accept: "text/event-stream", Authorization: `Bearer ${access}` };
        const response = await this.#fetch(`${this.#base}/api/v1/queue/events`, {
          headers: lastId === "" ? headers : { ...headers, "Last-Event-ID": lastId },
          credentials: "omit",
          redirect: "error",
          signal: watch.signal,
        });
        if (!response.ok || response.body === null) {
          const refused = errorOf(response, await response.text());
          if (!(refused instanceof NotAuthenticated) || !this.refresh || renewed) throw refused;
          await this.#renew(access, signal);
          continue;
        }
        const reader = response.body.getReader();
        for (;;) {
          watch.begin();
          const part = await reader.read();
          watch.rest(); // while the caller works
          if (part.done) return;
          yield part.value;
        }
      } finally {
        watch.end(); // also ends a stream that the caller reads no further
      }
    }
  }

  /** Waits before the attempt after this one. Throws what `error` means when there is none. */
  async pause(attempt: number, error: unknown, signal?: AbortSignal): Promise<void> {
    const { attempts, longest } = this.patience;
    if (attempt >= attempts || askedFor(error) > longest) throw meant(error);
    await sleep(this.#backoff(attempt, error), signal);
  }

  /**
   * Waits before the next try of a stream that failed so many times. Throws what `error` means, if it does not heal by
   * itself, or the next try would begin after `deadline`.
   */
  async reconnect(failures: number, error: unknown, deadline: number, signal?: AbortSignal): Promise<void> {
    const pause = this.#backoff(failures, error);
    const heals = !(error instanceof ApiError) || RETRIED.has(error.status);
    if (!heals || performance.now() + pause > deadline) throw meant(error);
    await sleep(pause, signal);
  }

  #backoff(attempt: number, error: unknown): number {
    const { first, longest } = this.patience;
    const doubled = Math.min(longest, first * 2 ** Math.min(attempt - 1, 50));
    return Math.max(askedFor(error), doubled * (0.5 + Math.random() / 2));
  }

  async #send<Id extends keyof Operations>(name: Id, call: Call<Id>): Promise<[Response, string]> {
    const [method, path] = ROUTES[name];
    const headers: Record<string, string> = {};
    if (!call.anonymous) headers["Authorization"] = `Bearer ${this.access}`;
    if (call.key !== undefined) headers["Idempotency-Key"] = call.key;
    if (call.body !== undefined) headers["Content-Type"] = "application/json";
    const given = Object.entries(call.query ?? {}).filter(([, value]) => value !== undefined);
    const query = new URLSearchParams(given.map(([field, value]) => [field, String(value)])).toString();
    const where = path.replace("{request_id}", encodeURIComponent(call.id ?? "")) + (query && `?${query}`);
    const watch = new Watch(call.within ?? READ_MS, call.signal);
    try {
      const response = await this.#fetch(this.#base + where, {
        method,
        headers,
        credentials: "omit", // tokens travel in a header
        redirect: "error", // or a POST would become a GET
        signal: watch.signal,
        ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
      });
      return [response, await response.text()];
    } finally {
      watch.end();
    }
  }

  /** A new access token instead of `used`: one call for all that need one. It goes on when a caller gives up. */
  async #renew(used: string, signal?: AbortSignal): Promise<void> {
    if (this.access !== used) return;
    signal?.throwIfAborted();
    this.#renewing ??= this.call("refresh", { body: { refresh: this.refresh }, key: this.#refreshKey, anonymous: true })
      .then((tokens) => {
        this.access = tokens.access;
        this.refresh = tokens.refresh ?? "";
      })
      .finally(() => {
        this.#renewing = undefined;
      });
    await unlessAborted(this.#renewing, signal);
  }
}

/** The milliseconds of Retry-After. */
function askedFor(error: unknown): number {
  return error instanceof ApiError ? 1000 * (error.retryAfter ?? 0) : 0;
}

function meant(error: unknown): OrderedWorkError {
  return error instanceof OrderedWorkError ? error : noAnswer(error);
}

function noAnswer(cause: unknown): Unreachable {
  const why = cause instanceof Error ? (cause.cause ?? cause) : cause; // fetch says "fetch failed", and why below it
  return new Unreachable(`No answer came: ${why}`, { cause });
}

/** A new idempotency key, of 128 random bits. Node 18 has no global crypto: there they are unique, and no secret. */
export function newKey(): string {
  const bytes = new Uint8Array(16);
  if (globalThis.crypto === undefined) bytes.forEach((_, place) => { bytes[place] = Math.random() * 256; });
  else crypto.getRandomValues(bytes);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A signal that fires so many milliseconds after `begin`, or with another signal. */
class Watch {
  readonly #controller = new AbortController();
  readonly #follow = () => this.#controller.abort(this.outer?.reason);
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly ms: number, readonly outer?: AbortSignal) {
    if (outer?.aborted) this.#follow();
    outer?.addEventListener("abort", this.#follow);
    this.begin();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  begin(): void {
    this.rest();
    const late = () => this.#controller.abort(new DOMException(`Nothing came for ${this.ms} ms.`, "TimeoutError"));
    this.#timer = setTimeout(late, this.ms);
  }

  rest(): void {
    clearTimeout(this.#timer);
  }

  end(): void {
    this.rest();
    this.outer?.removeEventListener("abort", this.#follow);
    this.#controller.abort();
  }
}

/** Waits so many milliseconds. Throws the signal's reason. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    await unlessAborted(new Promise<void>((done) => { timer = setTimeout(done, ms); }), signal);
  } finally {
    clearTimeout(timer);
  }
}

/** What `promise` gives, or the signal's reason as soon as it is aborted. */
async function unlessAborted<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (signal === undefined) return promise;
  signal.throwIfAborted();
  let abort = () => {};
  const aborted = new Promise<never>((_, fail) => { abort = () => fail(signal.reason); });
  signal.addEventListener("abort", abort);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
