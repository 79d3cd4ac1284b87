"""Tells those who wait for a request that it is final, at next to no cost while nobody does.

Who waits for a request says so about its queue, again every second, on the channel `watch`. A process that finishes
requests listens there and publishes on `finished` only about queues that are being watched.
"""

import threading
import time

from project.redis_client import hint
from queues.hints import Listener, channel

WATCHED_SECONDS = 3.0  # so long after it was last said, a queue counts as watched


class Watched:
    """The queues that somebody waits for, as this process has heard."""

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


def finished(queue_id: int, done_seq: int | None = None) -> None:
    """Requests of this queue have become final: all up to `done_seq`, or some. To be called after the commit.

    Never raises. Costs a look into a dictionary while nobody waits, a publication at the most.
    """
    if queue_id in watched:
        hint(channel("finished"), f"{queue_id}:{done_seq or ''}")
