"""Deletes RabbitMQ's queues of users who are idle, and the earlier names of queues that were renamed.

To make a queue and to delete it costs RabbitMQ ten to twenty times what a request does (`./run bench end-to-end`). So
it keeps those of users who may soon be back, as many as take little of its memory (`./run bench memory`).
"""

import time

from processing.broker.pointers import names_of
from processing.broker.rabbitmq import Publisher
from processing.dispatch.beside import Deletion
from processing.dispatch.set_aside import SetAside
from queues.lifecycle import outbox
from queues.lifecycle.outbox import Shard

REAP_SECONDS = 600.0  # RabbitMQ keeps the queue of an idle user for so long ..
KEPT = 2_000  # .. and those of so many users, who became idle last, for longer
QUEUES_A_STEP = 100
LOOK_SECONDS = 10.0  # from a look that found none to the next


class Reaper:
    """The deletions of one shard, beside publishing. What RabbitMQ has no word of is tried again later."""

    def __init__(self, shard: Shard, publisher: Publisher) -> None:
        self.shard, self.publisher = shard, publisher
        self._deletion = Deletion()
        self._leftovers: SetAside[str] = SetAside(first=10.0, longest=600.0, most=10_000)
        self._found_none = float("-inf")  # when, on the monotonic clock

    def add(self, name: str) -> None:
        """That name is not used any more; delete it when RabbitMQ has a word of it again."""
        self._leftovers.add(name)

    def step(self) -> None:
        """Begin to delete the next ones, unless a deletion is under way."""
        if self._deletion.busy:
            return
        for name in self._deletion.names:
            if name in self._deletion.left:
                self._leftovers.add(name)
            else:
                self._leftovers.forget(name)
        self._deletion.names = []
        names = [name for queue in self._idle() for name in names_of(*queue)]
        names += self._leftovers.due(QUEUES_A_STEP)
        if names:
            self.publisher.forget(names)  # or it would know them for ever, and publish in vain
            self._deletion.begin(names)

    def _idle(self) -> list[tuple[int, int]]:
        if time.monotonic() - self._found_none < LOOK_SECONDS:
            return []
        idle = outbox.reap(self.shard, REAP_SECONDS, KEPT, QUEUES_A_STEP)
        if not idle:
            self._found_none = time.monotonic()
        return idle
