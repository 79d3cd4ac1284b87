"""RabbitMQ made anew from PostgreSQL: after its disk was lost, its queues crashed, or another broker took its place."""

from collections.abc import Iterator

from django.db.models import F, QuerySet

from processing import broker
from processing.rabbitmq import Publisher
from queues import interventions
from queues.interventions import NotPossible
from queues.models import UserQueue


def brought() -> QuerySet[UserQueue]:
    """The queues of which RabbitMQ should hold messages."""
    return UserQueue.objects.filter(active=True, published_seq__gt=F("done_seq")).order_by("id")


def rebuild(count: int) -> Iterator[tuple[int, int]]:
    """Delete each user's queue there and have it published again, `count` at a time; begun again, it does no harm.

    Yields how many of a batch are published again, and how many a worker has, which finds out itself what is missing.
    Raises BrokerUnavailable.
    """
    publisher = Publisher()
    try:
        broker.declare_token_queue()
        after = 0
        while ids := list(brought().filter(id__gt=after).values_list("id", flat=True)[:count]):
            after = ids[-1]
            left = sum(not _again(publisher, queue_id) for queue_id in ids)
            yield len(ids) - left, left
    finally:
        publisher.close()


def _again(publisher: Publisher, queue_id: int) -> bool:
    """False: a worker has it. One that takes it between the two steps meets no queue, and has it published again."""
    if not brought().filter(id=queue_id).exclude(state="draining").exists():
        return False
    publisher.delete(queue_id)
    try:
        interventions.republish(queue_id)
    except NotPossible:
        return False
    return True
