"""Erases a user: nothing of them is left but lines of the audit trail that name nobody.

Killed in the middle, or stopped because a server is away, it is begun again: each step finds what is left of it.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from uuid import UUID

from accounts import retention
from accounts.models import User
from processing.broker.pointers import names_of
from processing.broker.rabbitmq import Publisher
from queues.exceptions import NotPossible
from queues.models import UserQueue
from queues.operations import erasure
from queues.sql.locks import TRY_LOCK, UNLOCK

LOCK_CLASS = 0x6F776572  # "ower": the advisory locks of erasures


def erase(user: User, *, patience: float, count: int, by: str, tell: Callable[[str], None]) -> int:
    """Do all of it, `count` rows at a time; how many requests went. `patience` is for what runs, in seconds.

    Raises BrokerUnavailable; then the user is locked out, their work has ended, and the rest is done by another call.
    Raises NotPossible while somebody else does it, and User.DoesNotExist when it was done.
    """
    with _alone(user.id):
        return _erase(user, patience, count, by, tell)


@contextmanager
def _alone(user_id: UUID) -> Iterator[None]:
    """Two at once would take away from each other what they look for."""
    lock = {"lock_class": LOCK_CLASS, "key": str(user_id)}
    taken = TRY_LOCK.row(**lock)
    if taken is None or not taken.locked:
        raise NotPossible("This user is being erased just now.")
    try:
        yield
    finally:
        UNLOCK.row(**lock)


def _erase(user: User, patience: float, count: int, by: str, tell: Callable[[str], None]) -> int:
    retention.shut_out(user.id)  # from here on no token works, no stream goes on and nothing more is accepted
    queue = UserQueue.objects.filter(user=user).first()
    requests = 0
    if queue is not None:
        if not erasure.end_work(queue.id, patience):
            tell(f"A handler did not end within {patience:g} s; nothing of what it still does is recorded.")
        for removed in _parts(partial(erasure.remove_requests, queue.id, count)):
            requests += removed
            tell(f"{requests} requests removed")
        _remove_from_rabbitmq(queue, tell)
    for step in (*erasure.others, erasure.remove_keys, retention.remove_sessions, retention.make_nameless):
        deque(_parts(partial(step, user.id, count)), maxlen=0)
    if not erasure.remove_limits(user.id):
        tell("Redis does not answer; what it keeps of the user ends by itself, within an hour.")
    erasure.remove_mentions(user.id, user.username)
    retention.remove_user(user.id, by=by)
    return requests


def _parts(step: Callable[[], int]) -> Iterator[int]:
    """Do a step until it finds nothing more; how much it found each time."""
    while found := step():
        yield found


def _remove_from_rabbitmq(queue: UserQueue, tell: Callable[[str], None]) -> None:
    """Nobody else would: the dispatcher removes the queues of idle users, and soon this one is no user's."""
    publisher = Publisher()
    try:
        for name in publisher.delete(names_of(queue.id, queue.generation)):
            tell(f"RabbitMQ says nothing of its queue {name}; once that answers again, delete it by hand.")
    finally:
        publisher.close()
