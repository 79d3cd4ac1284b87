"""Takes away what a user asked for: first the work ends, then its rows go, in parts. Each step can be done again."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from django.db import transaction

from project.redis import RedisUnavailable, call
from project.web import rate_limit
from queues.exceptions import NotPossible
from queues.lifecycle import control
from queues.lifecycle.recovery import recover
from queues.lifecycle.removal import remove
from queues.models import OperatorAction, Request, UserQueue
from queues.notify import progress
from queues.sql.idempotency import DELETE_KEYS_OF
from queues.states import QueueState

LOOK_SECONDS = 0.1

# An app that keeps much of users adds its own step: remove up to so many rows of one whose work has ended; how many.
others: list[Callable[[UUID, int], int]] = []


def end_work(queue_id: int, patience: float) -> bool:
    """Cancel what waits, ask what runs to end; whether it did within `patience` seconds.

    If it did not, the queue is taken from its worker: whatever that handler still does, nothing of it is recorded.
    """
    control.pause(queue_id, "the erasure of its user")
    control.purge(queue_id)
    for request_id in Request.objects.filter(queue=queue_id, finished_at=None).values_list("id", flat=True):
        with suppress(NotPossible):  # it has just ended
            control.cancel(request_id)
    deadline = time.monotonic() + patience
    in_time = True
    while (queue := UserQueue.objects.get(id=queue_id)).state == QueueState.DRAINING:
        if time.monotonic() >= deadline:
            in_time = False
            recover(queue_id, queue.fence)
        else:
            time.sleep(LOOK_SECONDS)
    control.purge(queue_id)
    return in_time


def remove_requests(queue_id: int, count: int) -> int:
    """Remove up to `count` requests with their attempts, here and in Redis; how many."""
    with transaction.atomic():
        UserQueue.objects.select_for_update(no_key=True).filter(id=queue_id).first()  # or `remove` might leave them
        ids = list(Request.objects.filter(queue=queue_id).values_list("id", flat=True)[:count])
        removed = remove(ids)
    if ids:
        progress.forget(ids)
    return removed


def remove_keys(user_id: UUID, count: int) -> int:
    """Remove up to `count` of the user's idempotency keys, and with them the answers they keep; how many."""
    return len(DELETE_KEYS_OF.rows(user=user_id, count=count))


def remove_mentions(user_id: UUID, username: str) -> None:
    """Write the user's id for their name in what operators' commands were kept as."""
    named = re.compile(rf"(?<![^ =]){re.escape(username)}(?![^ ])", re.IGNORECASE)  # a word, or what --queue= is
    for action in OperatorAction.objects.filter(command__icontains=username):
        OperatorAction.objects.filter(id=action.id).update(command=named.sub(str(user_id), action.command)[:1000])


def remove_limits(user_id: UUID) -> bool:
    """Remove what Redis counts of the user; whether it is there to do so. It forgets by itself within a minute."""
    try:
        call("DEL", rate_limit.SUBMIT.claim(str(user_id)).redis_key)
    except RedisUnavailable:
        return False
    return True
