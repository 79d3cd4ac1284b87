"""Every two verbs that can meet, and each verb beside the machinery, at once: as if one had come after the other.

What two verbs may answer and leave behind is found by trying them in both orders on queues in the same state. At once,
nothing else may come of them: one wins, and the loser is told why.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import combinations_with_replacement
from typing import Any

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from accounts.models import User
from queues.exceptions import FencedOut, NotPossible
from queues.lifecycle import control, outbox
from queues.lifecycle.expiry import expire as expire_all
from queues.lifecycle.lease import Lease
from queues.lifecycle.outbox import Shard
from queues.lifecycle.recovery import recover
from queues.models import Request, UserQueue
from queues.states import AttemptOutcome, QueueState, Status
from queues.values import Outcome
from tests.queues.api import Caller
from tests.queues.rows import queue_of, request_in
from tests.queues.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)

HOLDER = 7


@dataclass
class Scene:
    """A user with one request that everybody wants something of, and another that waits behind it."""

    caller: Caller
    queue_id: int
    id: Any
    lease: Lease | None = None

    def answered(self, path: str) -> str:
        """What the API said to a POST; the reason goes with a refusal."""
        answer = self.caller.post(path)
        assert answer.status in (200, 202, 409), answer.content
        return f"{answer.status} {answer.json['detail'] if answer.status == 409 else ''}"

    def left(self) -> tuple[Any, ...]:
        """All that matters of the rows, whoever wrote them."""
        queue = UserQueue.objects.get(id=self.queue_id)
        rows = queue.requests.order_by("created_at", "id").values_list(
            "seq", "status", "attempt", "cancel_asked_at", "retry_of", "result"
        )
        requests = [(*row[:3], row[3] is not None, row[4] is not None, str(row[5])) for row in rows]
        counters = (queue.last_seq, queue.published_seq, queue.done_seq, queue.fence)
        return (queue.state, queue.paused, queue.operator_paused, counters, *requests)


def scene(state: str) -> Scene:
    """The head is .. `state`."""
    user = User.objects.create_user(f"user-{User.objects.count()}-{timezone.now().timestamp()}")
    past, kind = timezone.now() - timedelta(minutes=1), "demo.echo"
    if state == "scheduled":
        queue = queue_of(user)
        head = request_in(queue, None, Status.SCHEDULED, kind=kind, not_before=past)
        return Scene(Caller(user), queue.id, head.id)
    fields: dict[str, Any] = {"last_seq": 2, "published_seq": 2, "state": QueueState.READY}
    status, more = Status.QUEUED, {"expires_at": past}
    if state == "unpublished":
        fields.update(published_seq=0, state=QueueState.IDLE)
    elif state == "waiting":
        fields.update(state=QueueState.WAITING, wake_at=past)
        status, more = Status.RETRYING, {"attempt": 1}
    elif state == "blocked":
        fields.update(state=QueueState.BLOCKED)
        status, more = Status.RETRYING, {"attempt": 3, "on_failure": "block"}
    elif state == "failed":
        fields.update(done_seq=1, state=QueueState.READY)
        status, more = Status.FAILED, {"attempt": 3}
    elif state == "running":
        more = {}
    queue = queue_of(user, **fields)
    head = request_in(queue, 1, status, **more)
    request_in(queue, 2, Status.QUEUED)
    return Scene(Caller(user), queue.id, head.id, Lease.take(queue.id, HOLDER) if state == "running" else None)


def cancel(at: Scene) -> str:
    return at.answered(f"requests/{at.id}/cancel")


def retry(at: Scene) -> str:
    return at.answered(f"requests/{at.id}/retry")


def skip(at: Scene) -> str:
    return at.answered(f"requests/{at.id}/skip")


def purge(at: Scene) -> str:
    return at.answered("queue/purge")


def pause(at: Scene) -> str:
    return at.answered("queue/pause")


def resume(at: Scene) -> str:
    return at.answered("queue/resume")


def hold(at: Scene) -> str:
    """As an operator does it."""
    control.pause(at.queue_id, "ada: ticket 4711")
    return "held"


def republish(at: Scene) -> str:
    try:
        return str(control.republish(at.queue_id))
    except NotPossible as why:
        return str(why)


def expire(at: Scene) -> str:
    """As the dispatcher does it: a row that is locked is passed over, and looked at again."""
    until = time.monotonic() + 20
    lapsed = Request.objects.filter(id=at.id, lapses_at__lte=Now(), attempt=0)
    while lapsed.exclude(queue__state=QueueState.DRAINING).exists():
        if expire_all(ALL, 1000):
            return "given up"
        assert time.monotonic() < until, "it stays locked"
    return "too late"


def lease(at: Scene) -> str:
    taken = Lease.take(at.queue_id, HOLDER + 1)
    return "none" if taken is None else f"{taken.came_along[0].seq if taken.came_along else None}"


def record(at: Scene) -> str:
    assert at.lease is not None
    now = timezone.now()
    outcome = Outcome(1, Status.SUCCEEDED, 1, AttemptOutcome.SUCCEEDED, '"done"', None, now, now)
    try:
        at.lease.record(1, [outcome], QueueState.READY)
    except FencedOut:
        return "fenced out"
    return "recorded"


def lose(at: Scene) -> str:
    assert at.lease is not None
    return str(recover(at.queue_id, at.lease.fence))


def publish(at: Scene) -> str:
    """As the dispatcher does it: somebody was faster, so it reads again."""
    woken: list[int] = []
    while mine := [p for p in outbox.unpublished(ALL, at.queue_id - 1, 1) if p.queue_id == at.queue_id]:
        woken += outbox.mark_published(mine)[0]
    return "woken" if woken else "nothing"


def wake(at: Scene) -> str:
    """As the dispatcher does it: a row that is locked is passed over, and looked at again."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if at.queue_id in outbox.wake(ALL, 1000):
            return "woken"
        if UserQueue.objects.get(id=at.queue_id).state != QueueState.WAITING:
            return "nothing"
    raise AssertionError("it stays locked")


def enter(at: Scene) -> str:
    """As the dispatcher does it, likewise."""
    until = time.monotonic() + 20
    while Request.objects.filter(id=at.id, due_at__lte=Now()).exists():
        if outbox.enter_line(ALL, 1000):
            return "True"
        assert time.monotonic() < until, "it stays locked"
    return "False"


ALL = Shard(0, 1)
VERBS: list[Callable[[Scene], str]] = [cancel, retry, skip, purge, pause, resume]
MEET: dict[str, list[Callable[[Scene], str]]] = {
    "scheduled": [cancel, retry, purge, enter],
    "unpublished": [*VERBS, expire, publish, republish],
    "ready": [*VERBS, hold, expire, lease, republish],
    "running": [*VERBS, record, lose, lease],
    "waiting": [*VERBS, wake, lease],
    "blocked": [*VERBS, lease, wake],
    "failed": [cancel, retry, skip, purge, lease],
}


@pytest.mark.no_cover  # what it runs is covered elsewhere, and being watched takes half as long again
@pytest.mark.timeout(300)
@pytest.mark.parametrize("state", MEET)
def test_two_verbs_at_once_are_as_if_one_had_come_after_the_other(state: str) -> None:
    for pair in combinations_with_replacement(MEET[state], 2):
        possible = set()
        for first, second in (pair, pair[::-1]):
            here = scene(state)
            answers = (first(here), second(here))
            if first is not pair[0]:
                answers = answers[::-1]
            possible.add((answers, here.left()))
            if first is second:
                possible.add((answers[::-1], here.left()))
        here = scene(state)
        said = tuple(at_once(2, lambda n: pair[n](here)))  # noqa: B023  (it ends before the next pair's turn)
        names = " and ".join(verb.__name__ for verb in pair)
        assert (said, here.left()) in possible, f"{names}: {said} {here.left()}; possible: {possible}"


@pytest.mark.parametrize(
    ("state", "verb", "won"), [("ready", cancel, "200"), ("blocked", skip, "200"), ("blocked", cancel, "200")]
)
def test_of_many_at_once_exactly_one_wins_and_the_others_are_told_why(
    state: str, verb: Callable[[Scene], str], won: str
) -> None:
    here = scene(state)
    said = at_once(12, lambda _: verb(here))
    assert sorted(answer[:3] for answer in said) == [won, *["409"] * 11]
    assert all(len(answer) > 20 for answer in said if answer.startswith("409"))
    assert Request.objects.filter(queue=here.queue_id).count() == 2


def test_operators_who_retry_the_same_at_once_retry_it_once() -> None:
    user = User.objects.create_user("unlucky")
    queue = queue_of(user, last_seq=1, published_seq=1, done_seq=1)
    failed = request_in(queue, 1, Status.FAILED, kind="demo.echo", attempt=1)

    def refused(_: int) -> bool:
        try:
            control.retry_once(failed.id)
        except NotPossible:
            return True
        return False

    for _ in range(3):
        Request.objects.filter(retry_of=failed.id).delete()
        assert sorted(at_once(4, refused)) == [False, True, True, True]
        assert Request.objects.filter(retry_of=failed.id).count() == 1
