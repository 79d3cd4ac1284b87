"""Counting and accepting together what many ask for at the same time: a round trip to Redis, and one commit.

A commit costs PostgreSQL about the same whether it keeps one request or twenty. So one thread commits for all others of
its process; while its statement is under way the next group gathers, and then until it is as large as the one before,
for at most a millisecond, as PostgreSQL's commit_delay does. Who is alone waits for nobody.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from uuid import UUID

import structlog
from django.db import DatabaseError, OperationalError, connection

from project.web import rate_limit
from queues.enqueue.accept import accept_together
from queues.notify import hints
from queues.notify.changes import changed
from queues.values import Accepted, Ask

LARGEST_GROUP = 64
TRIES = 2  # whoever has a queue's lock, most often the dispatcher, has it for a few milliseconds
GATHERING_SECONDS, LOOKS = 0.001, 4
QUIET_SECONDS = 1.0  # after so long PostgreSQL may have been restarted: a look first

log = structlog.get_logger()


class _Waiting:
    """Somebody who waits for what becomes of an ask: one answer, which may be an exception."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.fits: bool | None = None  # its user's limit; None: it is not counted yet
        self.counted: list[rate_limit.Taken] = []
        self.tries = 0
        self.answers: SimpleQueue[Accepted | BaseException | None] = SimpleQueue()  # a Future costs ten times as much


class GroupCommit:
    """Where the threads of a process bring what they want accepted. A fork begins with a thread of its own."""

    def __init__(self) -> None:
        self._process = 0
        self._lock = threading.Lock()
        self._used = 0.0

    def accept(self, ask: Ask) -> tuple[Accepted, list[rate_limit.Taken]] | None:
        """Its place in line, kept once this returns, and what it left of the limit. None: nothing was done or counted.

        Raises django.db.Error when nobody knows whether it was accepted.
        """
        waiting = _Waiting(ask)
        self._queue().put(waiting)
        answer = waiting.answers.get()
        if isinstance(answer, BaseException):
            raise answer
        if answer is None:
            rate_limit.give_back(waiting.counted)
            return None
        changed(answer.queue_id)
        return answer, waiting.counted

    def close(self) -> None:
        """End the thread, once all who came before have their answers. The next `accept` begins another."""
        with self._lock:
            if self._process == os.getpid():
                self._process = 0
                self._waiting.put(None)
                self._thread.join()

    def _queue(self) -> "SimpleQueue[_Waiting | None]":
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    self._waiting: SimpleQueue[_Waiting | None] = SimpleQueue()
                    self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
                    self._thread.start()
                    self._process = os.getpid()
        return self._waiting

    def _run(self) -> None:
        waiting = self._waiting
        for group in self._groups(waiting):
            try:
                accepted = self._accept(self._fitting(group))
            except BaseException as failure:  # whatever it is, nobody may wait for ever
                for one in group:
                    one.answers.put(failure)
                with suppress(Exception):
                    connection.close()
            else:
                for one in group:
                    answer = accepted.get(one.ask.submission.id)
                    if answer is None and one.fits and one.tries < TRIES:
                        waiting.put(one)
                    else:
                        one.answers.put(answer)
                if accepted:
                    hints.work_waits()
        while not waiting.empty():
            if left := waiting.get():
                left.answers.put(None)
        connection.close()

    def _groups(self, waiting: "SimpleQueue[_Waiting | None]") -> Iterator[list[_Waiting]]:
        """Whoever waits, as soon as somebody does, until `close`."""
        size = 1
        while (first := waiting.get()) is not None:
            expected = max(size, 2) if first.tries else size
            for _ in range(LOOKS):
                if waiting.qsize() + 1 < expected:
                    time.sleep(GATHERING_SECONDS / LOOKS)
            group = [first]
            while len(group) < LARGEST_GROUP:
                try:
                    another = waiting.get_nowait()
                except Empty:
                    break
                if another is None:
                    waiting.put(None)
                    break
                group.append(another)
            size = len(group)
            yield group

    def _fitting(self, group: list[_Waiting]) -> list[_Waiting]:
        """Those that fit their user's limit, and are counted from now on."""
        new = [one for one in group if one.fits is None]
        counted = rate_limit.count_each([rate_limit.SUBMIT.claim(str(one.ask.user_id)) for one in new]) if new else []
        for one, (fits, taken) in zip(new, counted, strict=True):
            one.fits, one.counted = fits, taken if fits else []
        return [one for one in group if one.fits]

    def _accept(self, group: list[_Waiting]) -> dict[UUID, Accepted]:
        """What of it could be accepted together. Raises django.db.Error when nobody knows."""
        if not group:
            return {}
        if time.monotonic() - self._used > QUIET_SECONDS:
            connection.close_if_unusable_or_obsolete()
            connection.close_if_health_check_failed()
        self._used = time.monotonic()
        for one in group:
            one.tries += 1
        try:
            return accept_together([one.ask for one in group])
        except DatabaseError as failure:
            # Only what PostgreSQL itself refused is known not to be kept. Each goes on alone, and gets its own answer.
            if isinstance(failure, OperationalError) or not getattr(failure.__cause__, "sqlstate", None):
                raise
            log.warning("group_refused", requests=len(group), error=str(failure).strip().splitlines()[:1])
            for one in group:
                one.tries = TRIES
            return {}
