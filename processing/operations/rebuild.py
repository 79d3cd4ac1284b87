"""RabbitMQ made anew from PostgreSQL: after its disk was lost, its queues crashed, or another broker took its place."""

from collections.abc import Iterator
from contextlib import suppress

import structlog
from django.db.models import F, QuerySet

from processing.broker import tokens
from processing.broker.pointers import queue_name
from processing.broker.rabbitmq import Publisher
from queues.exceptions import NotPossible
from queues.lifecycle import control, outbox
from queues.models import UserQueue

log = structlog.get_logger()


def brought() -> QuerySet[UserQueue]:
    """The queues of which RabbitMQ should hold messages."""
    return UserQueue.objects.filter(active=True, published_seq__gt=F("done_seq")).order_by("id")


def rebuild(count: int) -> Iterator[tuple[int, int]]:
    """Delete each user's queue there and have it published again, `count` at a time; begun again, it does no harm.

    Yields how many of a batch are published again, and how many a worker has, which finds out itself what is missing.
    A queue that RabbitMQ has no word of gets another name. Raises BrokerUnavailable.
    """
    publisher = Publisher()
    try:
        tokens.declare_token_queue()
        after = 0
        while ids := list(brought().filter(id__gt=after).values_list("id", flat=True)[:count]):
            after = ids[-1]
            done = _again(publisher, ids)
            yield done, len(ids) - done
    finally:
        publisher.close()


def _again(publisher: Publisher, ids: list[int]) -> int:
    """How many were; a worker has the others. One that takes one between the two steps meets no queue, and has it
    published again.
    """
    resting = brought().filter(id__in=ids).exclude(state="draining")
    queues = {queue_name(*queue): queue for queue in resting.values_list("id", "generation")}
    silent = publisher.delete(list(queues))
    if silent:
        log.warning("RabbitMQ has no word of queues; they get other names", names=silent)
    done = len(outbox.rename([queues.pop(name) for name in silent]))
    for queue_id, _ in queues.values():
        with suppress(NotPossible):
            control.republish(queue_id)
            done += 1
    return done
