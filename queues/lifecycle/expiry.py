"""Ends requests whose `expires_at` passed before they began: many in two statements, whosesoever they are."""

from collections import Counter

from django.db import transaction

from queues import event_log
from queues.lifecycle.ending import ended
from queues.lifecycle.outbox import Shard
from queues.notify.changes import finished
from queues.sql.control import EXPIRE, PASS_OVER
from queues.sql.permits import DROP_OF
from queues.states import Status

MOST_PASSED = 100_000  # places in line that are looked at in one statement, of all queues together


def expire(shard: Shard, count: int) -> int:
    """End up to `count` requests whose time is over before they began, whosesoever; how many.

    Queues that are locked are left out, and have their turn another time.
    """
    with transaction.atomic():
        rows = EXPIRE.rows(shards=shard.of, shard=shard.number, count=count)
        if not rows:
            return 0
        passed = Counter(row.queue_id for row in rows if row.seq is not None)
        # A statement of its own: it has to see what was accepted before the queues were locked.
        most = MOST_PASSED // max(1, len(passed))
        PASS_OVER.rows(ids=list(passed), ended=list(passed.values()), most=most)
        DROP_OF.rows(queues=list(passed))
        ended(rows, Status.EXPIRED)
    event_log.expired(rows)
    for queue_id in {row.queue_id for row in rows}:
        finished(queue_id)
    return len(rows)
