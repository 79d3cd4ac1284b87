"""A queue's row, locked, changed and written back in one transaction: for verbs, recovery and corrections alike.

What moves many queues at once, or takes part in a turn, is a statement of its own in `queues/sql/`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from queues.models import UserQueue
from queues.notify.changes import finished
from queues.notify.hints import work_waits
from queues.sql.control import WRITE_LOCKED, WRITTEN
from queues.sql.locks import with_patience


@contextmanager
def locked(queue_id: int) -> Iterator[Any]:
    """The queue's row, locked until the block ends and written then; the dispatcher is told afterwards."""
    with transaction.atomic():
        queue = lock(queue_id)
        if queue is None:
            raise UserQueue.DoesNotExist
        yield queue
        write(queue)
        transaction.on_commit(work_waits)
        transaction.on_commit(partial(finished, queue_id))


def lock(queue_id: int, **guard: Any) -> Any | None:
    """The queue's row, locked until the transaction ends, with `now`, the database's clock since then.

    None: there is none that meets the guard.
    """
    with with_patience():
        queue: Any = UserQueue.objects.select_for_update(no_key=True).filter(id=queue_id, **guard).first()
    if queue is not None:
        now: datetime = UserQueue.objects.filter(id=queue_id).values_list(Now(), flat=True)[0]
        queue.now, queue.state_before = now, queue.state
    return queue


def write(queue: Any) -> None:
    """Write a row that `lock` returned, as it was changed since."""
    if queue.state != queue.state_before:
        queue.state_since = queue.now
    values = {name: getattr(queue, name) for name in WRITTEN}
    WRITE_LOCKED.rows(id=queue.id, **values | {"state": str(queue.state)})
