"""Long polls: tasks that sleep on an event loop until a request is final, and the one thread that wakes them.

They hold no thread and no connection to the database. The waker hears from the workers through Redis
(queues/notify/changes.py) and asks PostgreSQL about everybody's request in one query: at once when somebody begins to
wait, and once a second in case that a hint was lost or Redis is gone. It lives only while somebody waits.
"""

import asyncio
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from project.redis import hint
from queues.models import Request
from queues.notify.hints import Listener, channel
from queues.representation.rows import RequestRow

LOOK_SECONDS = 1.0
LINGER_SECONDS = 5.0  # the waker stays for so long after the last one has gone

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Waiter:
    """Somebody who waits for one request to be final."""

    request_id: UUID
    queue_id: int
    seq: int | None
    looked_at: bool = False
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    final: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """From any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits there
            self.loop.call_soon_threadsafe(self.final.set)


class Waiting:
    """Everybody in this process who waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: set[Waiter] = set()
        self._of_queue: Counter[int] = Counter()  # how many of them: a queue is a user's
        self._waker: threading.Thread | None = None
        self._last_seen = 0.0
        self._stopping = False

    async def for_final(self, request: RequestRow, seconds: float) -> None:
        """Sleep until `request` is final, or this process stops, for at most `seconds`.

        Comes back at once when as many wait in this process as it may have streams, or as many of this user as may.
        """
        waiter = Waiter(request.id, request.queue_id, request.seq)
        if not self._enter(waiter):
            return
        try:
            # Workers begin to tell about this queue; our waker hears it, too, and looks what happened before they did.
            watch = asyncio.to_thread(hint, channel("watch"), str(waiter.queue_id))
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await watch
                    await waiter.final.wait()
        finally:
            with self._lock:
                self._waiters.discard(waiter)
                self._of_queue[waiter.queue_id] -= 1
                if not self._of_queue[waiter.queue_id]:
                    del self._of_queue[waiter.queue_id]

    def stop(self) -> None:
        """Have all answered now, and nobody wait any more: the process stops."""
        self._stopping = True
        for waiter in tuple(self._waiters):
            waiter.wake()

    def _enter(self, waiter: Waiter) -> bool:
        with self._lock:
            if self._stopping or len(self._waiters) >= settings.ENV.streams:
                return False
            if self._of_queue[waiter.queue_id] >= settings.ENV.long_polls_per_user:
                return False
            self._waiters.add(waiter)
            self._of_queue[waiter.queue_id] += 1
            self._last_seen = time.monotonic()
            if self._waker is None:
                self._waker = threading.Thread(target=self._wake_them, name="long polls", daemon=True)
                self._waker.start()
            return True

    def _wake_them(self) -> None:
        listener = Listener("watch", "finished")
        next_look = 0.0
        try:
            listener.hear(0)  # subscribes: what ends after the first look is heard
            while (waiters := self._present()) is not None:
                now = time.monotonic()
                if waiters and now >= next_look:
                    next_look = now + LOOK_SECONDS
                    hint(channel("watch"), " ".join({str(waiter.queue_id) for waiter in waiters}))
                    _look(waiters)
                for text in listener.hear(max(0.01, next_look - now) if waiters else LOOK_SECONDS):
                    self._heard(text)
        finally:
            with self._lock:
                if self._waker is threading.current_thread():
                    self._waker = None
            listener.close()
            connection.close()

    def _present(self) -> set[Waiter] | None:
        """Who waits; None when nobody has for a while: the waker ends."""
        with self._lock:
            now = time.monotonic()
            if self._waiters:
                self._last_seen = now
            elif now > self._last_seen + LINGER_SECONDS:
                self._waker = None
                return None
            return set(self._waiters)

    def _heard(self, text: str) -> None:
        queue, told, done_seq = text.partition(":")
        with self._lock:
            if told:
                concerned = {waiter for waiter in self._waiters if waiter.queue_id == int(queue)}
            else:
                concerned = {waiter for waiter in self._waiters if not waiter.looked_at}  # somebody has just come
        passed = {w for w in concerned if done_seq and w.seq is not None and w.seq <= int(done_seq)}
        for waiter in passed:
            waiter.wake()
        if not done_seq and concerned:
            _look(concerned)


def _look(waiters: set[Waiter]) -> None:
    """Wake those whose request is final."""
    try:
        found = Request.objects.filter(id__in={waiter.request_id for waiter in waiters}, finished_at__isnull=False)
        final = set(found.values_list("id", flat=True))
    except DatabaseError as error:
        log.warning("long polls cannot look", error=str(error).strip().splitlines()[:1])
        connection.close()
        return
    for waiter in waiters:
        waiter.looked_at = True
        if waiter.request_id in final:
            waiter.wake()


waiting = Waiting()
