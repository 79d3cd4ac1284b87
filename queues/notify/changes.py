"""Tells those who watch a queue what happens in it, at next to no cost while nobody does.

Who waits for a request, or streams a queue's events, says so about the queue, again every second, on the channel
`watch`. Processes that move requests listen there and publish only about queues that are being watched.
"""

import threading
import time
from uuid import UUID

from project.redis import hint
from queues.notify.hints import Listener, channel

WATCHED_SECONDS = 3.0  # so long after it was last said, a queue counts as watched


class Watched:
    """The queues that somebody watches, as this process has heard."""

    def __init__(self) -> None:
        self._until: dict[int, float] = {}
        self._listening = False

    def listen(self) -> None:
        """Listen from now on, in a thread of its own. A process that never does counts every queue as watched."""
        if not self._listening:
            self._listening = True
            threading.Thread(target=self._listen, name="watched", daemon=True).start()

    def __contains__(self, queue_id: int) -> bool:
        return not self._listening or self._until.get(queue_id, 0.0) > time.monotonic()

    def _listen(self) -> None:
        listener = Listener("watch")
        while True:
            heard = listener.hear(WATCHED_SECONDS)
            now = time.monotonic()
            told = {int(queue): now + WATCHED_SECONDS for text in heard for queue in text.split()}
            # A new dictionary: others look into this one meanwhile.
            self._until = {queue: until for queue, until in self._until.items() if until > now} | told


watched = Watched()


# Each is to be called after the commit, never raises, and costs a look into a dictionary while nobody watches, a
# publication at the most.


def finished(queue_id: int, done_seq: int | None = None) -> None:
    """Requests of this queue have become final: all up to `done_seq`, or some."""
    if queue_id in watched:
        hint(channel("finished"), f"{queue_id}:{done_seq or ''}")


def changed(queue_id: int) -> None:
    """Something else is new in this queue: a request accepted, begun or to be tried again; paused."""
    if queue_id in watched:
        hint(channel("changed"), str(queue_id))


def progressed(queue_id: int, request_id: UUID, progress: bytes) -> None:
    """The running request of this queue has come so far: its progress as JSON."""
    if queue_id in watched:
        hint(channel("changed"), f"{queue_id} {request_id} {progress.decode()}")
