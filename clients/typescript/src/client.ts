// The verbs. `clients/python` has the same.

import { Connection, newKey, type Operations, type Options, sleep, type Tokens } from "./connection.js";
import { OrderedWorkError, StillRunning, Unreachable } from "./errors.js";
import { EventReader, type Queue, type QueueEvent, type WorkRequest } from "./events.js";

const LONGEST_POLL_MS = 30_000; // what the service holds ?wait=
const ANSWER_MS = 10_000;
const FINAL: ReadonlySet<string> = new Set(["succeeded", "failed", "cancelled", "expired"]);

/** What may be asked for, where nobody said which kinds there are. */
export interface AnySubmission {
  kind: string;
  payload: unknown;
  version?: number | null;
  not_before?: string | Date | null;
  expires_at?: string | Date | null;
}
type Payload<S, K> = S extends { kind: infer Kind; payload?: infer P } ? (K extends Kind ? P : never) : never;

export interface Abortable {
  signal?: AbortSignal;
}
export interface Keyed extends Abortable {
  /** Makes it one across restarts of your program, too: the same for the same thing. */
  key?: string;
}
export interface SubmitOptions extends Keyed {
  version?: number;
  not_before?: string | Date;
  expires_at?: string | Date;
}
export interface WaitOptions extends Abortable {
  /** In milliseconds; without one it waits for as long as it takes. */
  timeout?: number;
}
export interface FollowOptions extends Abortable {
  lastId?: string;
  /** In milliseconds without a sign of the service; without one it goes on for ever. */
  giveUpAfter?: number;
}
export type Filters = Omit<Operations["requests"]["query"], "cursor"> & Abortable;

/** Whether nothing becomes of it any more. */
export function isFinal(request: WorkRequest): boolean {
  return FINAL.has(request.status);
}

/**
 * Speaks as one user. Tokens are renewed by themselves: `tokens` has the newest.
 *
 * `S` are the kinds of your service, if you have made types of its OpenAPI document:
 * `new Client<components["schemas"]["Submission"]>(url, tokens)`.
 */
export class Client<S extends { kind: string; payload?: unknown } = AnySubmission> {
  readonly #connection: Connection;

  constructor(url: string, tokens: Tokens, options: Options = {}) {
    this.#connection = new Connection(url, tokens, options);
  }

  /** A client in a new session of the user. Throws NotAuthenticated. */
  static async login<S extends { kind: string; payload?: unknown } = AnySubmission>(
    url: string,
    username: string,
    password: string,
    options: Options = {},
  ): Promise<Client<S>> {
    const nobody = new Connection(url, { access: "" }, options);
    const tokens = await nobody.call("login", { body: { username, password }, anonymous: true });
    return new Client<S>(url, tokens, options);
  }

  /** The newest. Keep them to go on later: a refresh token is good for one use. */
  get tokens(): Tokens {
    return { access: this.#connection.access, refresh: this.#connection.refresh };
  }

  /** Asks for one thing, after all that was asked for before. However often it has to be sent, it is done once. */
  submit<K extends S["kind"]>(kind: K, payload: Payload<S, K>, options: SubmitOptions = {}): Promise<WorkRequest> {
    const { key = newKey(), signal, ...more } = options;
    return this.#connection.call("submit", { body: { kind, payload, ...more }, key, signal });
  }

  /** Asks for up to 500 things in this order: all of them, or none. */
  async submitBatch(requests: readonly S[], { key = newKey(), signal }: Keyed = {}): Promise<WorkRequest[]> {
    if (requests.length === 0) throw new OrderedWorkError("A batch has at least one request.");
    return (await this.#connection.call("submit_batch", { body: { requests }, key, signal })).requests;
  }

  get(id: string, { signal }: Abortable = {}): Promise<WorkRequest> {
    return this.#connection.call("request", { id, signal });
  }

  /** The request once it is final. Throws StillRunning after `timeout` milliseconds. */
  async wait(id: string, { timeout = Infinity, signal }: WaitOptions = {}): Promise<WorkRequest> {
    const deadline = performance.now() + timeout;
    for (;;) {
      const left = deadline - performance.now();
      const wait = Math.floor(Math.max(0, Math.min(LONGEST_POLL_MS, left)) / 1000);
      const within = wait * 1000 + ANSWER_MS;
      const found = await this.#connection.call("request", { id, query: { wait }, within, signal });
      if (isFinal(found)) return found;
      if (performance.now() >= deadline) throw new StillRunning(`${id} is ${found.status} after ${timeout} ms.`);
      if (left < 1000) await sleep(Math.max(0, Math.min(100, left)), signal); // the service counts in whole seconds
    }
  }

  /** Submits and waits. */
  async run<K extends S["kind"]>(
    kind: K,
    payload: Payload<S, K>,
    { timeout = Infinity, ...options }: SubmitOptions & WaitOptions = {},
  ): Promise<WorkRequest> {
    const asked = await this.submit(kind, payload, options);
    return this.wait(asked.id, { timeout, ...(options.signal && { signal: options.signal }) });
  }

  /** All of them, page after page. */
  async *requests({ signal, ...filters }: Filters = {}): AsyncGenerator<WorkRequest, void, undefined> {
    for (let cursor: string | undefined; ; ) {
      const query = cursor === undefined ? filters : { ...filters, cursor };
      const page = await this.#connection.call("requests", { query, signal });
      yield* page.results;
      if (page.next === null) return;
      // The rest of the address may be one that only the service's own network knows.
      cursor = new URL(page.next, "http://service").searchParams.get("cursor") ?? undefined;
    }
  }

  /**
   * Events of one's queue as they happen, for ever; after `lastId`, if one is given.
   *
   * A lost connection is opened again and goes on where it was: nothing is missed, some may come twice. While the
   * service is away it is tried again and again. With `giveUpAfter` it throws Unreachable, Unavailable or TooMany when
   * nothing was heard for so many milliseconds. What does not heal is thrown at once: NotAuthenticated, for example.
   */
  async *follow(options: FollowOptions = {}): AsyncGenerator<QueueEvent, void, undefined> {
    const { lastId = "", giveUpAfter = Infinity, signal } = options;
    const reader = new EventReader(lastId);
    for (let failures = 1; ; failures++) {
      let error: unknown = new Unreachable("The stream ended.");
      try {
        reader.begin();
        for await (const bytes of this.#connection.stream(reader.lastId, signal)) {
          for (const event of reader.feed(bytes)) {
            failures = 0;
            yield event;
          }
        }
      } catch (met) {
        signal?.throwIfAborted();
        error = met;
      }
      await this.#connection.reconnect(Math.max(1, failures), error, reader.heardAt + giveUpAfter, signal);
    }
  }

  cancel(id: string, { signal }: Abortable = {}): Promise<WorkRequest> {
    return this.#connection.call("cancel", { id, signal });
  }

  retry(id: string, { key = newKey(), signal }: Keyed = {}): Promise<WorkRequest> {
    return this.#connection.call("retry", { id, key, signal });
  }

  skip(id: string, { signal }: Abortable = {}): Promise<WorkRequest> {
    return this.#connection.call("skip", { id, signal });
  }

  queue({ signal }: Abortable = {}): Promise<Queue> {
    return this.#connection.call("queue", { signal });
  }

  pause({ signal }: Abortable = {}): Promise<Queue> {
    return this.#connection.call("pause", { signal });
  }

  resume({ signal }: Abortable = {}): Promise<Queue> {
    return this.#connection.call("resume", { signal });
  }

  purge({ signal }: Abortable = {}): Promise<Queue> {
    return this.#connection.call("purge", { signal });
  }
}
