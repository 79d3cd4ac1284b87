"""Programs of users: they submit over HTTP, try again with the same Idempotency-Key until they know, and look.

Half of the single requests go without a key, and once: what has no answer then stays in doubt.
"""

import http.client
import json
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from scripts.place import SetupError
from scripts.run.client import Client

FINAL = ("succeeded", "failed", "cancelled", "expired")
SINGLE, LARGEST_BATCH = 0.6, 40
ENOUGH_WAITING = 200  # a user with so many requests ahead lets the others submit
FULL_SECONDS = 5.0  # .. or when the queue is full
ANSWER_SECONDS = 10.0

Work = dict[str, Any]


@dataclass
class User:
    """A user and what they were told. A meddler also cancels, retries, pauses, purges and lets requests expire."""

    name: str
    meddles: bool
    token: str = ""
    id: str = ""
    accepted: dict[str, int | None] = field(default_factory=dict)  # id and sequence, in the order of the answers
    final: dict[str, dict[str, Any]] = field(default_factory=dict)  # as shown when first seen to be final
    doubtful: set[str] = field(default_factory=set)  # X-Request-IDs of submissions without key and without answer
    recent: list[str] = field(default_factory=list)
    busy_until: float = 0.0


@dataclass
class Counts:
    """What happened on the wire, for all users together."""

    attempted: int = 0  # requests submitted, each once however often it was sent
    accepted: int = 0  # 202 seen
    unanswered: int = 0  # tries that got no answer ..
    found_accepted: int = 0  # .. or a 503, and requests that turned out to have been accepted then
    refused: int = 0  # 4xx: the queue is full
    unresolved: int = 0  # nobody knows: still no answer at the end
    doubtful: int = 0  # nobody will know: sent once, without a key
    answers: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Counts") -> None:
        for name in ("attempted", "accepted", "unanswered", "found_accepted", "refused", "unresolved", "doubtful"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.answers += other.answers


class Speaker(Client):
    """A connection that may be asked with headers of its own, and says what the answer's headers were."""

    def __init__(self, port: int, token: str = "") -> None:
        super().__init__(port, token)
        self.connection.timeout = ANSWER_SECONDS

    def say(self, method: str, path: str, body: bytes | None, **headers: str) -> tuple[int, Any, bool]:
        """Status, JSON and whether the answer is a replay. Raises OSError or HTTPException when there is none."""
        try:
            self.connection.request(method, path, body, self.headers | headers)
            answer = self.connection.getresponse()
            content = answer.read()
        except BaseException:
            self.connection.close()  # it connects again by itself
            raise
        try:
            value = json.loads(content) if content else None
        except ValueError:
            value = None
        return answer.status, value, answer.getheader("Idempotent-Replayed") == "true"


def register(port: int, user: User) -> None:
    """Give the user an account and a token."""
    client = Client(port)
    login = {"username": user.name, "password": secrets.token_urlsafe(12)}
    user.id = client.get("POST", "/api/v1/auth/register", login)["id"]
    user.token = client.get("POST", "/api/v1/auth/token", login)["access"]


class Clients:
    """`threads` programs, each for some of the users, together about `rate` requests a second."""

    def __init__(self, ports: tuple[int, ...], users: int, threads: int, rate: float, seed: int) -> None:
        self.port = ports[0]
        self.ports = ports  # each program speaks to one of them
        self.rate = rate
        self.seed = seed
        self.users = [User(f"user-{n}", meddles=n % 6 == 5) for n in range(users)]
        self.counts = [Counts() for _ in range(threads)]
        self.submitting = threading.Event()
        self.give_up_at = float("inf")
        self.wanted: SimpleQueue[Work] = SimpleQueue()  # asked for by a fault, whoever submits next
        self.programs = [
            threading.Thread(target=self._run, args=(n, self.users[n::threads]), name=f"client-{n}", daemon=True)
            for n in range(threads)
        ]
        self.errors: list[BaseException] = []

    def start(self) -> None:
        """Register everybody and begin."""
        for user in self.users:
            register(self.port, user)
        self.submitting.set()
        for program in self.programs:
            program.start()

    def stop(self, patience: float) -> Counts:
        """No new submissions; those under way are tried until they are answered, `patience` seconds at most."""
        self.give_up_at = time.monotonic() + patience
        self.submitting.clear()
        for program in self.programs:
            program.join(patience + 2 * ANSWER_SECONDS)
        total = Counts()
        for counts in self.counts:
            total.add(counts)
        return total

    def want(self, kind: str, **task: Any) -> None:
        """Have one such request submitted soon."""
        self.wanted.put({"kind": kind, "payload": task})

    def release_all(self) -> None:
        """Resume and unblock every meddler's queue, so that all of it can end."""
        for user in self.users:
            if user.meddles:
                speaker = Speaker(self.port, user.token)
                _, queue, _ = speaker.say("POST", "/api/v1/queue/resume", b"")
                if queue and queue.get("blocked_by"):
                    speaker.say("POST", f"/api/v1/requests/{queue['blocked_by']}/skip", b"")

    def listed(self, user: User) -> dict[str, dict[str, Any]]:
        """What the API shows of the user's requests, by id."""
        return {request["id"]: request for request in Client(self.port, user.token).requests()}

    def _run(self, number: int, users: list[User]) -> None:
        try:
            dice, port = random.Random(f"{self.seed}/{number}"), self.ports[number % len(self.ports)]
            Program(self, users, self.counts[number], dice, port).run()
        except BaseException as error:
            self.errors.append(error)
            raise


class Program:
    """One thread, on a connection for each of its users, in the order of its own dice."""

    def __init__(self, clients: Clients, users: list[User], counts: Counts, dice: random.Random, port: int) -> None:
        self.clients = clients
        self.users = users
        self.counts = counts
        self.dice = dice
        self.speakers = {user.name: Speaker(port, user.token) for user in users}
        self.pause = len(clients.programs) * (SINGLE + (1 - SINGLE) * (2 + LARGEST_BATCH) / 2) / clients.rate

    def run(self) -> None:
        due = time.monotonic()
        while self.clients.submitting.is_set():
            due = max(due + self.pause * self.dice.uniform(0.5, 1.5), time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))
            user = self.dice.choice(self.users)
            if time.monotonic() < user.busy_until:
                continue
            self._submit(user, self._work(user))
            if self.dice.random() < 0.1:
                self._look(user)
            if user.meddles and self.dice.random() < 0.15:
                self._meddle(user)

    def _work(self, user: User) -> list[Work]:
        try:
            return [self.clients.wanted.get_nowait()]
        except Empty:
            count = 1 if self.dice.random() < SINGLE else self.dice.randint(2, LARGEST_BATCH)
            return [self._one(user) for _ in range(count)]

    def _one(self, user: User) -> Work:
        dice = self.dice.random()
        if dice < 0.78:
            return {"kind": "chaos.work", "payload": {}}
        if dice < 0.86:
            return {"kind": "chaos.work", "payload": {"ms": self.dice.choice([20, 50, 100, 300])}}
        if dice < 0.91:
            return {"kind": "chaos.work", "payload": {"failures": self.dice.choice([1, 1, 2])}}
        if dice < 0.985 or not user.meddles:
            return {"kind": "chaos.atomic", "payload": {"ms": self.dice.choice([0, 0, 10, 30])}}
        if dice < 0.99:
            return {"kind": "chaos.block", "payload": {"failures": 1}}
        later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.dice.choice([2, 3])))
        return {"kind": "chaos.work", "payload": {}, self.dice.choice(["expires_at", "not_before"]): later}

    def _submit(self, user: User, work: list[Work]) -> None:
        """Ask for it until it is known what became of it."""
        counts = self.counts
        counts.attempted += len(work)
        path, body = "/api/v1/requests", json.dumps(work[0]).encode()
        if len(work) > 1:
            path, body = "/api/v1/requests/batch", json.dumps({"requests": work}).encode()
        key = f"{user.name}-{self.dice.getrandbits(64):x}"
        once = len(work) == 1 and self.dice.random() < 0.5
        named = {"X-Request-ID" if once else "Idempotency-Key": key}
        while True:
            try:
                status, answer, replayed = self.speakers[user.name].say("POST", path, body, **named)
            except (OSError, http.client.HTTPException):
                counts.unanswered += 1
                counts.answers["none"] += 1
                status = 0
            else:
                counts.answers[f"{status} replayed" if replayed else str(status)] += 1
            if status == 202:
                self._accepted(user, answer["requests"] if len(work) > 1 else [answer])
                counts.found_accepted += len(work) if replayed else 0
                return
            if status and status < 500:
                counts.refused += len(work)
                user.busy_until = time.monotonic() + FULL_SECONDS
                return
            if once:
                counts.doubtful += 1
                user.doubtful.add(key)
                return
            if time.monotonic() > self.clients.give_up_at:
                counts.unresolved += len(work)
                return
            time.sleep(self.dice.uniform(0.1, 0.4))

    def _accepted(self, user: User, requests: Iterable[dict[str, Any]]) -> None:
        for request in requests:
            self.counts.accepted += 1
            user.accepted[request["id"]] = request["sequence"]
            user.recent = [*user.recent[-50:], request["id"]]
            if (request["position"] or 0) > ENOUGH_WAITING:
                user.busy_until = time.monotonic() + request["position"] / ENOUGH_WAITING

    def _look(self, user: User) -> None:
        """Look at a request of late; what is final now must be so at the end."""
        if user.recent:
            chosen = self.dice.choice(user.recent)
            status, shown = self._ask(user, "GET", f"/api/v1/requests/{chosen}")
            if status == 200 and shown["status"] in FINAL:
                user.final.setdefault(chosen, shown)

    def _meddle(self, user: User) -> None:
        status, queue = self._ask(user, "GET", "/api/v1/queue")
        if status != 200:
            return
        if queue["blocked_by"]:
            self._ask(user, "POST", f"/api/v1/requests/{queue['blocked_by']}/{self.dice.choice(['retry', 'skip'])}")
        elif queue["paused"]:
            self._ask(user, "POST", "/api/v1/queue/resume")
        elif user.recent:
            chosen = self.dice.choice(user.recent)
            verb = self.dice.choice(
                [f"requests/{chosen}/cancel"] * 3 + [f"requests/{chosen}/retry"] * 3 + ["queue/pause"]
            )
            status, answer = self._ask(user, "POST", f"/api/v1/{verb}")
            if status == 202 and answer["id"] not in user.accepted:  # a blocked head is tried again as itself
                self.counts.attempted += 1
                self._accepted(user, [answer])
        if self.dice.random() < 0.02:
            self._ask(user, "POST", "/api/v1/queue/purge")

    def _ask(self, user: User, method: str, path: str) -> tuple[int, Any]:
        try:
            status, answer, _ = self.speakers[user.name].say(method, path, None if method == "GET" else b"")
        except (OSError, http.client.HTTPException):
            status, answer = 0, None
        self.counts.answers[f"{method.lower()} {status}" if status else "none"] += 1
        return status, answer


def ask_patiently(seconds: float, ask: Any) -> Any:
    """What `ask` returns, tried again for so long. Raises SetupError with the last failure."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except (OSError, http.client.HTTPException, SetupError) as failure:
            if time.monotonic() > deadline:
                raise SetupError(f"The API does not answer: {failure}") from failure
            time.sleep(0.3)
