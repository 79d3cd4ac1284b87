// Server-Sent Events out of the bytes of a stream.

import type { components } from "./schema.js";

export type WorkRequest = components["schemas"]["RequestShown"];
export type Queue = components["schemas"]["QueueShown"];

/** One event of `follow`. `id` resumes after it. */
export type QueueEvent =
  | { readonly id: string; readonly type: "request"; readonly request: WorkRequest }
  | { readonly id: string; readonly type: "queue"; readonly queue: Queue };

/** Makes events out of what came, and keeps the id to go on from, and when something last came. */
export class EventReader {
  heardAt = performance.now();
  #decoder = new TextDecoder();
  #rest = "";
  #fields = new Map<string, string>();

  constructor(public lastId: string) {}

  /** Forgets what a stream that ended had begun to say. */
  begin(): void {
    this.#decoder = new TextDecoder();
    this.#rest = "";
    this.#fields.clear();
  }

  /** The events that end with these bytes. */
  *feed(bytes: Uint8Array): Generator<QueueEvent, void, undefined> {
    this.heardAt = performance.now();
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const event = this.#line(line.replace(/\r$/, ""));
      if (event !== undefined) yield event;
    }
  }

  #line(line: string): QueueEvent | undefined {
    if (line !== "") {
      const [, name = "", value = ""] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
      const before = name === "data" ? this.#fields.get("data") : undefined;
      if (name !== "") this.#fields.set(name, before === undefined ? value : `${before}\n${value}`);
      return undefined;
    }
    const type = this.#fields.get("event");
    const data = this.#fields.get("data");
    if (data !== undefined) this.lastId = this.#fields.get("id") ?? this.lastId;
    this.#fields.clear();
    if (data === undefined) return undefined;
    if (type === "request") return { id: this.lastId, type, request: JSON.parse(data) as WorkRequest };
    if (type === "queue") return { id: this.lastId, type, queue: JSON.parse(data) as Queue };
    return undefined; // of a newer service
  }
}
