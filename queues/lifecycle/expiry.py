"""Ends requests whose `expires_at` passed before they began: many in two statements, whosesoever they are."""

from collections import Counter

from django.db import transaction

from queues import event_log
from queues.lifecycle.outbox import Shard
from queues.metrics import count_given_up
from queues.notify.changes import finished
from queues.sql.control import EXPIRE, PASS_OVER
from queues.sql.permits import DROP_OF
from queues.states import Status


def expire(shard: Shard, count: int) -> int:
    """End up to `count` requests whose time is over before they began, whosesoever; how many.

    Queues that are locked are left out, and have their turn another time.
    """
    with transaction.atomic():
        rows = EXPIRE.rows(shards=shard.of, shard=shard.number, count=count)
        if not rows:
            return 0
        ended = Counter(row.queue_id for row in rows if row.seq is not None)
        # A statement of its own: it has to see what was accepted before the queues were locked.
        PASS_OVER.rows(ids=list(ended), ended=list(ended.values()))
        DROP_OF.rows(queues=list(ended))
    count_given_up(Counter(row.kind for row in rows), Status.EXPIRED)
    event_log.expired(rows)
    for queue_id in {row.queue_id for row in rows}:
        finished(queue_id)
    return len(rows)
