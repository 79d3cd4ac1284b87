"""The bystanders: users whom no staying fault concerns. Each asks for a small thing every half second.

They are never behind by their own doing, so that how long one of their requests takes is not just a backlog.
"""

import http.client
import json
import secrets
import threading
import time
from dataclasses import dataclass

from scripts.chaos.clients import Counts, Speaker, User, register

BYSTANDERS = 4
EVERY_SECONDS = 0.5
ANSWER_SECONDS = 2.0


@dataclass
class Probe:
    """One request of a bystander. `asked`: when it was due, on the monotonic clock; without `request` never accepted.

    It counts from when it was due, not from when its turn came after one that got no answer for long.
    """

    user: str
    asked: float
    request: str = ""


class Probes:
    """Submits them from `start` to `stop`, always with an Idempotency-Key and until they are accepted."""

    def __init__(self, port: int, count: int = BYSTANDERS) -> None:
        self.port = port
        self.users = [User(f"bystander-{n}", meddles=False) for n in range(count)]
        self.counts = Counts()
        self.all: list[Probe] = []
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.give_up_at = float("inf")
        self.errors: list[BaseException] = []
        self.programs = [
            threading.Thread(target=self._run, args=(user, EVERY_SECONDS * n / count), name=user.name, daemon=True)
            for n, user in enumerate(self.users)
        ]

    def start(self) -> None:
        """Register everybody and begin."""
        for user in self.users:
            register(self.port, user)
        for program in self.programs:
            program.start()

    def stop(self, patience: float) -> Counts:
        """No new ones; those under way are tried for `patience` seconds more."""
        self.give_up_at = time.monotonic() + patience
        self.stopped.set()
        for program in self.programs:
            program.join(patience + 2 * ANSWER_SECONDS)
        return self.counts

    def _run(self, user: User, offset: float) -> None:
        try:
            speaker = Speaker(self.port, user.token)
            speaker.connection.timeout = ANSWER_SECONDS
            due = time.monotonic() + offset
            while not self.stopped.wait(max(0.0, due - time.monotonic())):
                probe = Probe(user.id, due)
                with self.lock:
                    self.all.append(probe)
                self._submit(speaker, user, probe)
                due += EVERY_SECONDS
        except BaseException as error:
            self.errors.append(error)
            raise

    def _submit(self, speaker: Speaker, user: User, probe: Probe) -> None:
        body, key = json.dumps({"kind": "chaos.work", "payload": {}}).encode(), secrets.token_hex(8)
        counts = Counts(attempted=1)
        while not probe.request:
            try:
                status, answer, replayed = speaker.say("POST", "/api/v1/requests", body, **{"Idempotency-Key": key})
            except (OSError, http.client.HTTPException):
                status, answer, replayed = 0, None, False
                counts.unanswered += 1
            counts.answers[(f"{status} replayed" if replayed else str(status)) if status else "none"] += 1
            if status == 202:
                user.accepted[answer["id"]] = answer["sequence"]
                counts.accepted, counts.found_accepted = 1, int(replayed)
                probe.request = answer["id"]
            elif time.monotonic() > self.give_up_at:
                counts.unresolved = 1
                break
            else:
                time.sleep(0.1)
        with self.lock:
            self.counts.add(counts)
