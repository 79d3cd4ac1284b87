"""Doing together what many ask for at the same time, in one thread: its cost is that of a few.

While one group is being served the next gathers, and then until it is as large as the one before, for at most a
millisecond, as PostgreSQL's commit_delay does. Who is alone waits for nobody.
"""

import asyncio
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from django.db import connection

LARGEST_GROUP = 64
GATHERING_SECONDS, LOOKS = 0.001, 4
QUIET_SECONDS = 1.0  # after so long PostgreSQL may have been restarted: a look first

Ask = TypeVar("Ask")


class Waiting(Generic[Ask]):
    """Somebody who waits for what becomes of an ask: one answer, which may be an exception."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.answer: Any = None
        self.again = False  # it is to be served once more


class Together(ABC, Generic[Ask]):
    """Where the requests of a process bring what they ask. A fork begins with a thread of its own."""

    name: str

    def __init__(self) -> None:
        self._process = 0
        self._lock = threading.Lock()
        self._used = 0.0
        self._again = 0  # how many of the last group are to be served once more: not without a pause

    @abstractmethod
    def serve(self, group: list[Waiting[Ask]]) -> None:
        """Give each of them its answer. What it raises is the answer of all."""

    def committed(self, served: list[Waiting[Ask]]) -> None:
        """They have their answers."""

    def left(self, unserved: list[Waiting[Ask]]) -> None:
        """They were to be served once more, and this ends: their answer is None."""

    async def bring(self, waiting: Waiting[Ask]) -> Any:
        """Its answer, once its group was served."""
        self._queue().put(waiting)
        return await waiting.future

    def close(self) -> None:
        """End the thread, once all who came before have their answers. The next ask begins another."""
        with self._lock:
            if self._process == os.getpid():
                self._process = 0
                self._waiting.put(None)
                self._thread.join()

    def _queue(self) -> "SimpleQueue[Waiting[Ask] | None]":
        if self._process != os.getpid():
            with self._lock:
                if self._process != os.getpid():
                    self._waiting: SimpleQueue[Waiting[Ask] | None] = SimpleQueue()
                    self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
                    self._thread.start()
                    self._process = os.getpid()
        return self._waiting

    def _run(self) -> None:
        waiting = self._waiting
        for group in self._groups(waiting):
            try:
                self._look_at_connection()
                self.serve(group)
            except BaseException as failure:  # whatever it is, nobody may wait for ever
                for one in group:
                    one.answer, one.again = failure, False
                with suppress(Exception):
                    connection.close()
            self._again = 0
            for one in group:
                if one.again:
                    one.again = False
                    waiting.put(one)
                    one.answer = waiting  # no answer yet
                    self._again += 1
            served = [one for one in group if one.answer is not waiting]
            _deliver(served)
            with suppress(Exception):
                self.committed(served)
        left = []
        while not waiting.empty():
            if unserved := waiting.get():
                unserved.answer = None
                left.append(unserved)
        with suppress(Exception):
            self.left(left)
        _deliver(left)
        connection.close()

    def _look_at_connection(self) -> None:
        if time.monotonic() - self._used > QUIET_SECONDS:
            connection.close_if_unusable_or_obsolete()
            connection.close_if_health_check_failed()
        self._used = time.monotonic()

    def _groups(self, waiting: "SimpleQueue[Waiting[Ask] | None]") -> Iterator[list[Waiting[Ask]]]:
        """Whoever waits, as soon as somebody does, until `close`."""
        size = 1
        while (first := waiting.get()) is not None:
            expected = max(size, self._again + 1)
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


def _deliver(answered: list[Waiting[Any]]) -> None:
    """Leave the answers with the loops that wait for them: each is woken once for the group."""
    for loop in {one.loop for one in answered}:
        theirs = [one for one in answered if one.loop is loop]
        with suppress(RuntimeError):  # it is closed: nobody waits any more
            loop.call_soon_threadsafe(_put, theirs)


def _put(answered: list[Waiting[Any]]) -> None:
    for one in answered:
        if not one.future.done():  # its client may have gone
            if isinstance(one.answer, BaseException):
                one.future.set_exception(one.answer)
            else:
                one.future.set_result(one.answer)
