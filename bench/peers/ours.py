"""This project: its dispatcher and its workers, as `manage.py` starts them; accepted in the bench's own process."""

import sys
import time
from collections.abc import Sequence
from typing import Any

import orjson

from bench.handlers import KIND
from bench.peers.base import Job, Peer
from bench.place import Place, wait_for
from bench.users import users, waiting
from queues.enqueue.accept import accept
from queues.kinds import find
from queues.notify import hints
from queues.values import Submission
from scripts.place import ROOT
from scripts.servers.process import Process

MANAGE = [sys.executable, str(ROOT / "manage.py")]


class Ours(Peer):
    """No control process: enqueueing is the verb that the API calls, and the rows are the records."""

    keep_others = False  # the tables hold what is not ours to forget
    dispatcher: Process | None = None

    def start(self, here: Place, users: int) -> None:
        self.dispatcher = here.start("dispatcher", [*MANAGE, "dispatch"], **self.variables)
        super().start(here, users)

    def _start_control(self) -> None:
        self.ids = users(self.here, "bench", max(self.users, 16))

    def add(self, jobs: Sequence[Job]) -> float:
        kind, moment = find(KIND, 1), time.monotonic()
        of_user: dict[int, list[Job]] = {}
        for job in jobs:
            of_user.setdefault(job["user"], []).append(job)
        for user, own in of_user.items():
            for first in range(0, len(own), 100):
                some = [Submission(kind, orjson.dumps(job).decode()) for job in own[first : first + 100]]
                accept(self.ids[user], some, session_id=None)
        hints.work_waits()
        return moment

    def brought(self) -> None:
        """Wait until RabbitMQ has all that was enqueued."""
        unpublished = "SELECT count(*) FROM queues_userqueue WHERE unpublished"
        wait_for(lambda: self.here.one(unpublished) == 0, "the backlog in RabbitMQ", every=0.05)

    def settled(self, jobs: int, what: str) -> None:
        wait_for(lambda: waiting(self.here) == 0, f"the records of {what}", self.limit, 0.01)

    def outcomes(self) -> int | None:
        found: Any = self.here.one(
            "SELECT count(*) FROM queues_request r JOIN queues_userqueue q ON q.id = r.queue_id"
            " WHERE r.kind = %s AND r.status = 'succeeded' AND q.user_id = ANY(%s)",
            KIND,
            self.ids,
        )
        return int(found)

    def clear(self) -> None:
        if self.keep_others:
            self.here.sql.execute(
                "DELETE FROM queues_request r USING queues_userqueue q"
                " WHERE q.id = r.queue_id AND q.user_id = ANY(%s) AND r.kind = %s",
                [self.ids, KIND],
            )
            self.here.sql.execute("VACUUM ANALYZE queues_userqueue")
        else:
            self.here.empty()
        self.trace.clear()

    def stop(self) -> None:
        super().stop()
        if self.dispatcher and self.dispatcher in self.here.started:
            self.here.stop(self.dispatcher)
        self.dispatcher = None


def peer(name: str) -> Ours:
    work = [*MANAGE, "work", "--processes", "1", "--threads", "8"]
    return Ours("this project", "per user", "PostgreSQL", work, [], {})
