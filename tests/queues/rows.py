"""Rows as the statements leave them, for tests that look at them and run nothing."""

import itertools
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from accounts.models import User
from queues.models import Leadership, Request, UserQueue
from queues.states import FINAL, QueueState, Status

_numbers = itertools.count(1)

NOW = timezone.now().replace(microsecond=0)


def queue_of(user: User, **fields: Any) -> UserQueue:
    queue, _ = UserQueue.objects.get_or_create(user=user)
    for name, value in fields.items():
        setattr(queue, name, value)
    queue.save()
    return queue


def a_leader(shard: int = 0) -> Leadership:
    """Somebody leads that shard, and has just shown it."""
    now = timezone.now()
    values = {"holder": "somebody", "epoch": 1, "lead_until": now + timedelta(seconds=60), "renewed_at": now}
    return Leadership.objects.update_or_create(shard=shard, defaults=values)[0]


def with_queues(count: int) -> list[User]:
    """Users who have asked before: the first time, a queue has to be made."""
    users = [User.objects.create(username=f"asker-{next(_numbers)}") for _ in range(count)]
    UserQueue.objects.bulk_create(UserQueue(user=user) for user in users)
    return users


def request_in(queue: UserQueue, seq: int | None, status: Status, created_at: datetime = NOW, **fields: Any) -> Request:
    final = {"finished_at": created_at + timedelta(seconds=1)} if status in FINAL else {}
    values = {"kind": "demo.echo", "payload": {"n": seq}, "max_attempts": 3, **final, **fields}
    return Request.objects.create(queue=queue, seq=seq, status=status, created_at=created_at, **values)


def a_long_story(user: User) -> UserQueue:
    """Twelve in line, seven of them final, the eighth running; three scheduled, two given up before they were due."""
    queue = queue_of(
        user, last_seq=12, published_seq=10, done_seq=7, state=QueueState.DRAINING, claimed=1, claimed_at=NOW
    )
    how = [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.EXPIRED, Status.SUCCEEDED, Status.FAILED]
    how += [Status.SUCCEEDED] + [Status.QUEUED] * 3 + [Status.CANCELLED, Status.QUEUED]
    for seq, status in enumerate(how, 1):
        kind = "demo.steps" if seq % 3 == 0 else "demo.echo"
        request_in(queue, seq, status, NOW + timedelta(minutes=seq), kind=kind)
    for minute in (13, 14, 15):
        created_at = NOW + timedelta(minutes=minute)
        request_in(queue, None, Status.SCHEDULED, created_at, not_before=NOW + timedelta(hours=1))
    request_in(queue, None, Status.CANCELLED, NOW + timedelta(minutes=16))
    request_in(queue, None, Status.EXPIRED, NOW + timedelta(minutes=17))
    return queue
