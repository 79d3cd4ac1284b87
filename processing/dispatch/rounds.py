"""Whose turn it is to be published: everybody's comes, however many ask and wherever their queues are."""

from collections.abc import Callable, Sequence

from processing.broker.pointers import queue_name
from processing.broker.rabbitmq import Publisher
from queues.lifecycle import outbox
from queues.lifecycle.outbox import PublishBatch, Shard

QUEUES_A_STEP = 500
LEAST_NEW, MOST_NEW = 25, 200  # of them, whose queues RabbitMQ has to make first ..
NEW_SECONDS = 1.0  # .. in about this time: after each step the lead is renewed, which ends after 3.5


class Rounds:
    """Steps through the queues of a shard that have something unpublished, by their ids, and begins again.

    From the first as soon as the last is done: while many ask there is always one beyond. Whose queue RabbitMQ has
    does not wait either while those of others are made.
    """

    def __init__(self, shard: Shard, publisher: Publisher) -> None:
        self.shard, self.publisher = shard, publisher
        self.behind = False  # whether more was unpublished than the last step took
        self._after = 0  # the queue id from which the next step goes on
        self._came_after = 0
        self._published = False  # anything in this round

    def next(
        self, but: Sequence[int], held: Callable[[PublishBatch], bool], beside: Callable[[PublishBatch], bool]
    ) -> list[PublishBatch]:
        """What is to be published in this step: none of the queues `but`, nor what is `held`; some goes `beside`."""
        after = self._came_after = self._after
        found = outbox.unpublished(self.shard, after, QUEUES_A_STEP, but)
        due = [batch for batch in found if not held(batch)]
        later = [batch for batch in due if not beside(batch) and not self._is_declared(batch)][self._new_a_step() :]
        self.behind = bool(later) or len(found) == QUEUES_A_STEP
        if later:
            self._after = later[0].queue_id - 1
            cut = set(later)
            due = [batch for batch in due if batch not in cut]
        else:
            self._after = found[-1].queue_id if self.behind else 0
        if after:
            earlier = outbox.unpublished(self.shard, 0, QUEUES_A_STEP, but)
            due += [b for b in earlier if b.queue_id <= after and not held(b) and self._is_declared(b)]
        return due

    def _new_a_step(self) -> int:
        return max(LEAST_NEW, min(MOST_NEW, int(NEW_SECONDS * self.publisher.declared_a_second)))

    def _is_declared(self, batch: PublishBatch) -> bool:
        return queue_name(batch.queue_id, batch.generation) in self.publisher.declared

    def more(self, published: bool) -> bool:
        """After a step that published something or not: whether the next one is due at once."""
        self._published = published or (self._came_after > 0 and self._published)
        return self.behind or self._published
