"""What a stream has to tell each time it is polled, and steps that change it."""

from typing import Any

from django.db.models.functions import Now

from accounts.tokens import read_access
from queues.live.change_feed import Follower
from queues.models import Request, UserQueue
from tests.queues.api import Caller
from tests.queues.events import Event, read


def follower(caller: Caller, last_id: str = "") -> Follower:
    return Follower(read_access(caller.token), last_id)


def poll(one: Follower) -> list[Event]:
    """All that is new by now."""
    told = read(one.next_events())
    while one.more:
        told += read(one.next_events())
    return told


def requests(told: list[Event]) -> list[tuple[Any, ...]]:
    return [event.summary[:2] for event in told if event.name == "request"]


def move(caller: Caller, **changes: Any) -> None:
    """Change the queue's row, as the machinery does."""
    UserQueue.objects.filter(user=caller.user).update(**changes)


def begin(caller: Caller, seq: int) -> None:
    move(caller, state="draining", published_seq=seq, claimed=1, claimed_at=Now(), wake_at=None)


def end(caller: Caller, seq: int, status: str = "succeeded") -> None:
    Request.objects.filter(queue__user=caller.user, seq=seq).update(status=status, finished_at=Now(), attempt=1)
    move(caller, state="idle", done_seq=seq, published_seq=seq, wake_at=None)


def postpone(caller: Caller, seq: int) -> None:
    Request.objects.filter(queue__user=caller.user, seq=seq).update(status="retrying", attempt=1)
    move(caller, state="waiting", wake_at=Now())
