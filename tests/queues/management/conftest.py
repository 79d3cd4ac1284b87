"""Queues and requests for operators to look at and to control."""

from datetime import timedelta
from typing import Any

from django.utils import timezone

from accounts.models import User
from queues.models import UserQueue
from queues.states import QueueState, Status
from tests.queues.rows import queue_of, request_in

AGES_AGO = timezone.now() - timedelta(days=100)


def a_queue(user: User, waiting: int, **fields: Any) -> UserQueue:
    queue = queue_of(user, last_seq=waiting, published_seq=waiting, state=QueueState.READY, **fields)
    for seq in range(1, waiting + 1):
        request_in(queue, seq, Status.QUEUED, timezone.now() - timedelta(minutes=waiting))
    return queue
