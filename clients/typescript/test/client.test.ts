// The client against a real service. `ORDERED_WORK_LOSSY_URL` leads there through a proxy that loses the first answer
// to each POST, and breaks each first stream. Both, and users, come from tests/processing/clients/test_typescript.py.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  Client, Conflict, Invalid, isFinal, NotAuthenticated, NotFound, type QueueEvent, StillRunning, Unavailable,
  Unreachable,
} from "../src/index.js";
import type { components } from "./service.js";

type Submission = components["schemas"]["Submission"];

const PASSWORD = "a long and unusual one";
const url = env("ORDERED_WORK_URL");
const lossyUrl = env("ORDERED_WORK_LOSSY_URL");
const names = env("ORDERED_WORK_USERS").split(",");
const patience = { first: 20 };

function env(name: string): string {
  const value = process.env[name];
  assert.ok(value, `${name} is not set`);
  return value;
}

/** A client of a user that no other test has. */
function login(where = url): Promise<Client<Submission>> {
  const name = names.pop();
  assert.ok(name, "more users are needed");
  return Client.login<Submission>(where, name, PASSWORD, { patience });
}

test("log in, submit and wait", async () => {
  const client = await login();
  const done = await client.run("demo.echo", { n: [1, null, "ü"] }, { timeout: 60_000 });
  assert.equal(done.status, "succeeded");
  assert.deepEqual(done.result, { n: [1, null, "ü"] });
  assert.ok(isFinal(done));
  assert.deepEqual(await client.get(done.id), done);
  assert.equal((await client.queue()).depth, 0);
  const many = await client.submitBatch([0, 1, 2, 3].map((payload) => ({ kind: "demo.echo", payload })));
  assert.deepEqual(many.map((one) => one.sequence), [2, 3, 4, 5]);
  const ended = await Promise.all(many.map((one) => client.wait(one.id, { timeout: 60_000 })));
  assert.deepEqual(ended.map((one) => one.result), [0, 1, 2, 3]);
  const listed = [];
  for await (const one of client.requests({ order: "asc", limit: 2 })) listed.push(one.sequence);
  assert.deepEqual(listed, [1, 2, 3, 4, 5]);
  await assert.rejects(Client.login(url, "nobody-of-this-name", PASSWORD), NotAuthenticated);
});

test("each verb does what it says", async () => {
  const client = await login();
  assert.ok((await client.pause()).paused);
  const later = await client.submit("demo.echo", 1, { not_before: new Date(Date.now() + 86_400_000), version: 1 });
  assert.equal(later.status, "scheduled");
  const one = await client.submit("demo.echo", 1);
  assert.equal((await client.cancel(one.id)).status, "cancelled");
  assert.equal((await client.retry(one.id)).retry_of, one.id);
  assert.equal((await client.purge()).depth, 0);
  assert.equal((await client.resume()).paused, false);
  await assert.rejects(client.skip(one.id), Conflict);
});

test("errors are classes that name fields", async () => {
  const client = await login();
  const wrong = await client.submit("demo.steps", { steps: 0 }).catch((error: unknown) => error);
  assert.ok(wrong instanceof Invalid);
  assert.deepEqual([wrong.name, wrong.status, wrong.type], ["Invalid", 400, "/problems/validation"]);
  assert.deepEqual(wrong.errors.map((error) => error.field), ["payload.steps"]);
  assert.match(wrong.message, /payload\.steps/);
  assert.ok(wrong.requestId);
  await assert.rejects(client.get("01890000-0000-7000-8000-000000000000"), NotFound);
  await assert.rejects(client.get("../queue"), NotFound);
});

test("a payload that does not fit its kind does not compile", async () => {
  const client = new Client<Submission>("http://127.0.0.1:9", { access: "" }, { patience: { attempts: 1 } });
  // @ts-expect-error: steps is a number
  await assert.rejects(client.submit("demo.steps", { steps: "3" }), Unreachable);
  // @ts-expect-error: there is no such kind
  await assert.rejects(client.submit("demo.nothing", {}), Unreachable);
  // @ts-expect-error: nor in a batch
  await assert.rejects(client.submitBatch([{ kind: "demo.steps", payload: {} }]), Unreachable);
  const anyKind = new Client("http://127.0.0.1:9", { access: "" }, { patience: { attempts: 1 } });
  await assert.rejects(anyKind.submit("of.your.own", { x: 1 }), Unreachable);
});

test("waiting has an end", async () => {
  const client = await login();
  await client.pause();
  const one = await client.submit("demo.echo", 1);
  await assert.rejects(client.wait(one.id, { timeout: 300 }), StillRunning);
  const giveUp = new AbortController();
  setTimeout(() => giveUp.abort(new Error("enough")), 50);
  await assert.rejects(client.wait(one.id, { signal: giveUp.signal }), /enough/);
  await client.purge();
});

test("an access token that ran out is renewed once for all calls", async () => {
  const name = names.pop() ?? "";
  const { refresh = "" } = (await Client.login(url, name, PASSWORD)).tokens;
  let renewals = 0;
  const counting: typeof fetch = (address, sent) => {
    if (String(address).endsWith("/refresh")) renewals += 1;
    return fetch(address, sent);
  };
  const client = new Client(url, { access: "old", refresh }, { fetch: counting });
  const giveUp = new AbortController();
  const gaveUp = assert.rejects(client.queue({ signal: giveUp.signal }), /enough/); // its renewal serves the others
  const calls = Array.from({ length: 20 }, () => client.queue());
  await new Promise((done) => setTimeout(done, 1));
  giveUp.abort(new Error("enough"));
  await gaveUp;
  for (const queue of await Promise.all(calls)) assert.equal(queue.depth, 0);
  assert.equal(renewals, 1);
  assert.notEqual(client.tokens.refresh, refresh);
  const spent = new Client(url, { access: "old", refresh });
  await assert.rejects(Promise.all([spent.queue(), spent.queue()]), NotAuthenticated);
});

test("a renewal whose answer was lost ends no session", async () => {
  const { refresh = "" } = (await login()).tokens;
  const client = new Client(lossyUrl, { access: "old", refresh }, { patience });
  assert.equal((await client.queue()).depth, 0);
  assert.equal((await client.queue()).depth, 0);
});

test("what is sent twice is done once", async () => {
  const direct = await login();
  const client = new Client(lossyUrl, direct.tokens, { patience });
  await direct.pause();
  const one = await client.submit("demo.echo", "once");
  const other = await client.submit("demo.echo", 2, { key: "mine" });
  assert.equal((await client.submit("demo.echo", 2, { key: "mine" })).id, other.id);
  const rows = [];
  for await (const row of direct.requests({ order: "asc" })) rows.push(row.id);
  assert.deepEqual(rows, [one.id, other.id]);
  await direct.purge();
});

test("a stream that breaks goes on where it was", async () => {
  const direct = await login();
  const client = new Client(lossyUrl, direct.tokens, { patience });
  await direct.pause();
  const first = await direct.submit("demo.echo", 1);
  let second = "";
  const told: QueueEvent[] = [];
  for await (const event of client.follow()) {
    told.push(event);
    if (event.type === "queue") continue;
    if (event.request.id === first.id && second === "") second = (await direct.submit("demo.echo", 2)).id;
    if (event.request.id === second) break; // the proxy had cut the stream after its first events
  }
  assert.ok(told.some((event) => event.type === "request" && event.request.id === first.id));
  assert.ok(told.every((event) => event.id !== ""));
  await direct.purge();
});

test("following ends when its reader has enough, and with its signal", async () => {
  const tokens = (await login()).tokens;
  const signals: AbortSignal[] = [];
  const watched: typeof fetch = (address, sent) => {
    if (sent?.signal) signals.push(sent.signal);
    return fetch(address, sent);
  };
  const client = new Client(url, tokens, { fetch: watched });
  let last = "";
  for await (const event of client.follow()) {
    last = event.id;
    break;
  }
  assert.deepEqual(signals.map((signal) => signal.aborted), [true]);
  const giveUp = new AbortController();
  setTimeout(() => giveUp.abort(new Error("enough")), 100);
  await assert.rejects(async () => {
    for await (const event of client.follow({ lastId: last, signal: giveUp.signal })) assert.ok(event.id);
  }, /enough/);
  assert.deepEqual(signals.map((signal) => signal.aborted), [true, true]);
});

test("following goes on while the service is away, and ends for what does not heal", async () => {
  const tokens = (await login()).tokens;
  const quick = { attempts: 2, first: 1, longest: 5 };
  let lost = { stream: 20, refresh: 5 };
  const flaky: typeof fetch = async (address, sent) => {
    const what = String(address).endsWith("/refresh") ? "refresh" : "stream";
    if (lost[what] > 0) {
      lost = { ...lost, [what]: lost[what] - 1 };
      throw new TypeError("fetch failed");
    }
    return fetch(address, sent);
  };
  const client = new Client(url, { ...tokens, access: "old" }, { fetch: flaky, patience: quick });
  for await (const event of client.follow()) {
    assert.equal(event.type, "queue");
    break;
  }
  assert.deepEqual(lost, { stream: 0, refresh: 0 });
  const nobody = new Client("http://127.0.0.1:9", { access: "a" }, { patience: quick });
  await assert.rejects(nobody.follow({ giveUpAfter: 50 }).next(), Unreachable);
  await assert.rejects(new Client(`${url}/elsewhere`, client.tokens).follow().next(), NotFound);
  await assert.rejects(new Client(url, { ...tokens, access: "old" }).follow().next(), NotAuthenticated); // it is spent
});

test("what cannot be reached is said after so many attempts", async () => {
  let calls = 0;
  const away: typeof fetch = async () => {
    calls += 1;
    const problem = JSON.stringify({ type: "/problems/unavailable", detail: "away" });
    return new Response(problem, { status: 503, headers: { "Retry-After": "0" } });
  };
  const client = new Client("http://service", { access: "a" }, { fetch: away, patience: { attempts: 3, first: 1 } });
  const refused = await client.submit("demo.echo", 1).catch((error: unknown) => error);
  assert.ok(refused instanceof Unavailable && refused.detail === "away");
  assert.equal(calls, 3);
  await assert.rejects(client.pause(), Unavailable);
  assert.equal(calls, 4); // not by itself: nobody knows whether it was done
  const nobody = new Client("http://127.0.0.1:9", { access: "a" }, { patience: { attempts: 2, first: 1 } });
  await assert.rejects(nobody.queue(), Unreachable);
});
