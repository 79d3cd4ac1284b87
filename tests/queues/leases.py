"""Queues to lease and to record, of kinds that need no handler."""

from typing import Any

from django.utils import timezone

from queues.lifecycle import outbox
from queues.lifecycle.outbox import Shard
from queues.sql import accept as accepting
from queues.sql import dispatch, permits, protocol
from queues.sql.statement import Statement
from queues.states import AttemptOutcome, Status
from queues.values import Outcome
from tests.processing.crew import new_user, submit

ALL = Shard(0, 1)
HOT = {
    name: one
    for module in (accepting, protocol, dispatch, permits)
    for name, one in vars(module).items()
    if isinstance(one, Statement) and name != "DROP_STARTS"
}


def published(count: int) -> Any:
    """A user with so many requests that RabbitMQ has, as far as PostgreSQL knows."""
    user = new_user()
    submit(user, *[None] * count)
    outbox.mark_published(outbox.unpublished(ALL, 0, 100))
    return user


def succeeded(seq: int) -> Outcome:
    now = timezone.now()
    return Outcome(seq, Status.SUCCEEDED, 1, AttemptOutcome.SUCCEEDED, "1", None, now, now)
