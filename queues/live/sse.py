"""The open streams of this process, and the two threads that serve all of them.

One hears the hints of Redis (queues/notify/changes.py). The other asks PostgreSQL, over the one connection for all
streams: what is new in the queues that hints named, and once a second which queues have moved at all, in case that a
hint was lost or Redis is gone, and which sessions still live. Both threads live only while a stream is open.

A stream keeps no more than the events of one look: nobody looks for it before they are taken.
"""

import re
import threading
import time
from collections.abc import Callable

import structlog
from django.db import Error as DatabaseError
from django.db import connection

from project.redis import hint
from project.rest.problems import ServiceUnavailable, TooManyRequests
from queues.exceptions import SessionOver
from queues.live.change_feed import Follower
from queues.metrics import STREAMS
from queues.notify.hints import Listener, channel
from queues.sql.reads import PULSE

PULSE_SECONDS = 1.0
GAP_SECONDS = 0.05  # between two looks at one queue: what happens meanwhile is told together
OPEN_SECONDS = 5.0  # for the first look
SLOW_SECONDS = 30.0  # who takes nothing for so long is let go
LINGER_SECONDS = 1.0  # the threads stay for so long after the last stream has gone

CHANGE = re.compile(r"(\d+)(?: (\S+) (.+))?", re.DOTALL)  # of the channels `changed` and `finished`


log = structlog.get_logger()


class Stream:
    """One client's stream: the events that wait to be taken, until it ends.

    `wake` is called, from any thread, when there is something to take. `abort`, where there is one, ends a client that
    does not take; the thread of one that has none stays with it until it does.
    """

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.events = b""
        self.ended = ""  # why, once it is over
        self.failure: Exception | None = None
        self.looked = threading.Event()  # for the first time
        self.wake: Callable[[], None] = lambda: None
        self.abort: Callable[[], None] | None = None
        self.news = True  # something may be new ..
        self.progress: tuple[str, bytes] | None = None  # .. or nothing but this, of this request
        self.version: str | None = None
        self.not_before = 0.0
        self.since = time.monotonic()  # when the events that wait were put there

    def end(self, why: str) -> None:
        """Nothing more comes."""
        self.ended, self.since = self.ended or why, time.monotonic()
        self.wake()


class Streams:
    """Everybody in this process who streams."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._streams: set[Stream] = set()
        self._of_queue: dict[int, set[Stream]] = {}
        self._waiting: set[Stream] = set()  # for a look
        self._alive = False
        self._begun = 0  # how often the threads were begun
        self._last_seen = 0.0
        self._stopping = False

    def open(self, follower: Follower, most: int, most_each: int) -> Stream:
        """A stream that has had its first look; no more than `most`, and of one user `most_each`.

        Raises TooManyRequests, ServiceUnavailable, and what looking raises.
        """
        stream = Stream(follower)
        self._enter(stream, most, most_each)
        if not stream.looked.wait(OPEN_SECONDS):
            stream.failure = ServiceUnavailable()
        if stream.failure is not None:
            self.leave(stream)
            raise stream.failure
        return stream

    def _enter(self, stream: Stream, most: int, most_each: int) -> None:
        user_id = stream.follower.claims.user_id
        with self._changed:
            if self._stopping or len(self._streams) >= most:
                raise ServiceUnavailable("No further stream can be opened here at the moment; try again.")
            if sum(other.follower.claims.user_id == user_id for other in self._streams) >= most_each:
                raise TooManyRequests(f"You have {most_each} streams open.", name="too-many-streams", retry_after=15)
            self._streams.add(stream)
            self._waiting.add(stream)
            STREAMS.set(len(self._streams))
            if not self._alive:
                self._alive = True
                self._begun += 1
                threading.Thread(target=self._serve, name="streams", daemon=True).start()
                threading.Thread(target=self._hear, args=(self._begun,), name="streams' hints", daemon=True).start()
            self._changed.notify()

    def take(self, stream: Stream) -> bytes:
        """What there is to send; the next look may come."""
        with self._changed:
            events, stream.events = stream.events, b""
            if events and stream in self._waiting:
                self._changed.notify()
        return events

    def leave(self, stream: Stream) -> None:
        """Nobody takes from it any more."""
        with self._changed:
            self._streams.discard(stream)
            self._waiting.discard(stream)
            self._of_queue.get(stream.follower.queue_id, set()).discard(stream)
            if not self._of_queue.get(stream.follower.queue_id, True):
                del self._of_queue[stream.follower.queue_id]
            STREAMS.set(len(self._streams))

    def stop(self) -> None:
        """End all streams and open no more: the process stops."""
        with self._changed:
            self._stopping = True
        for stream in tuple(self._streams):
            stream.end("the server stops; come again")

    def __len__(self) -> int:
        return len(self._streams)

    # The thread that asks PostgreSQL.

    def _serve(self) -> None:
        next_pulse = 0.0
        try:
            while self._somebody():
                if time.monotonic() >= next_pulse:
                    next_pulse = time.monotonic() + PULSE_SECONDS
                    try:
                        self._feel_pulse()
                    except Exception:  # all streams hang on this thread
                        log.exception("streams cannot be looked through for changes")
                for stream in self._due():
                    self._look(stream)
                self._sleep(next_pulse)
        finally:
            connection.close()

    def _somebody(self) -> bool:
        """Whether somebody streams, or did a moment ago; if not, the threads end."""
        with self._changed:
            now = time.monotonic()
            if self._streams:
                self._last_seen = now
            elif now > self._last_seen + LINGER_SECONDS:
                self._alive = False
            return self._alive

    def _feel_pulse(self) -> None:
        """End what must end, and look at what has moved."""
        streams = tuple(self._streams)
        self._let_go_of_slow(streams)
        hint(channel("watch"), " ".join({str(stream.follower.queue_id) for stream in streams}))
        try:
            sessions = [stream.follower.claims.session_id for stream in streams]
            versions = {row.session: row.version for row in PULSE.rows(sessions=sessions)} if sessions else {}
        except DatabaseError as error:
            log.warning("streams cannot look", error=str(error).strip().splitlines()[:1])
            connection.close()
            return
        for stream in streams:
            claims = stream.follower.claims
            if time.time() >= claims.expires_at:
                stream.end("the access token has expired")
            elif claims.session_id not in versions:
                stream.end("the session has ended")
            elif stream.version != versions[claims.session_id]:
                stream.version = versions[claims.session_id]
                self._tell({stream})

    def _let_go_of_slow(self, streams: tuple[Stream, ...]) -> None:
        for stream in streams:
            if (stream.events or stream.ended) and time.monotonic() - stream.since > SLOW_SECONDS:
                stream.end("too slow")
                if stream.abort is not None:
                    stream.abort()
                    self.leave(stream)

    def _due(self) -> list[Stream]:
        """Those to look for now."""
        now = time.monotonic()
        with self._changed:
            due = [stream for stream in self._waiting if not stream.events and stream.not_before <= now]
            self._waiting.difference_update(due)
        return due

    def _look(self, stream: Stream) -> None:
        """Give it what is new."""
        stream.not_before = time.monotonic() + GAP_SECONDS
        with self._changed:
            (news, stream.news), (progress, stream.progress) = (stream.news, False), (stream.progress, None)
        follower = stream.follower
        try:
            events = None if news or progress is None else follower.progress(*progress)
            if events is None:
                events = follower.next_events()
        except (SessionOver, DatabaseError) as failure:
            self._failed(stream, failure)
            return
        except Exception as defect:
            log.exception("a stream cannot be looked for")
            self._failed(stream, defect)
            return
        if events:
            with self._changed:  # a client whose heartbeat is due may be taking
                stream.events, stream.since = events, time.monotonic()
            stream.wake()
        if follower.more:
            self._tell({stream})
        if not stream.looked.is_set():
            with self._changed:
                if stream in self._streams:  # nobody waits for ever: it may be too late
                    self._of_queue.setdefault(follower.queue_id, set()).add(stream)
            hint(channel("watch"), str(follower.queue_id))
            stream.looked.set()

    def _failed(self, stream: Stream, failure: Exception) -> None:
        """Its first look answers with the failure; later PostgreSQL may be back at the next look."""
        if isinstance(failure, DatabaseError) and stream.looked.is_set():
            connection.close()
            stream.not_before = time.monotonic() + PULSE_SECONDS
            self._tell({stream})
            return
        if isinstance(failure, DatabaseError):
            connection.close()
        stream.failure = failure
        stream.looked.set()
        stream.end("the session has ended" if isinstance(failure, SessionOver) else "something broke on our side")

    def _sleep(self, next_pulse: float) -> None:
        with self._changed:
            able = [stream.not_before for stream in self._waiting if not stream.events]
            self._changed.wait(max(0.0, min([next_pulse, *able]) - time.monotonic()))

    # The thread that hears hints.

    def _hear(self, begun: int) -> None:
        listener = Listener("changed", "finished")
        try:
            while self._alive and self._begun == begun:  # others may have begun while this one listened
                for text in listener.hear(PULSE_SECONDS):
                    self._heard(text)
        finally:
            listener.close()

    def _heard(self, text: str) -> None:
        found = CHANGE.match(text)
        if found is None:
            return
        queue, request_id, progress = found.groups()
        with self._changed:
            concerned = set(self._of_queue.get(int(queue), ()))
        if request_id is None:
            self._tell(concerned)
            return
        with self._changed:
            for stream in concerned:
                stream.progress = (request_id, progress.encode())
        self._tell(concerned, news=False)

    def _tell(self, streams: set[Stream], news: bool = True) -> None:
        """Have these looked for."""
        with self._changed:
            for stream in streams & self._streams:
                stream.news = stream.news or news
                self._waiting.add(stream)
            self._changed.notify()


streams = Streams()
