"""Requests whose time passes before they begin: many end together, each queue goes on as if each had ended alone."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from queues.lifecycle import control, expiry, outbox
from queues.lifecycle.expiry import expire
from queues.lifecycle.lease import Lease
from queues.lifecycle.outbox import Shard
from queues.models import Request, UserQueue
from queues.states import QueueState, Status
from tests.metrics import counted
from tests.processing.crew import Hand, new_user, queue_of, statuses_of, submit
from tests.queues.rows import queue_of as queue_with
from tests.queues.rows import request_in

pytestmark = pytest.mark.usefixtures("declared_kinds")

ALL = Shard(0, 1)
PAST = timezone.now() - timedelta(minutes=1)


def rows(user: Any) -> tuple[Any, ...]:
    queue = queue_of(user)
    return (queue.state, queue.last_seq, queue.published_seq, queue.done_seq, queue.wake_at is not None)


def test_a_thousand_that_expire_together_end_in_a_few_statements() -> None:
    user, other = new_user(), new_user()
    submit(user, *["note"] * 1000, expires_at=PAST)
    submit(other, "note")
    began, parts = time.monotonic(), 0
    while expire(ALL, 200):
        parts += 1
    took = time.monotonic() - began
    print(f"1,000 ended in {parts} parts, {took:.2f} s")
    assert parts == 5
    assert set(statuses_of(user)) == {"expired"}
    assert rows(user) == ("idle", 1000, 1000, 1000, False)
    assert statuses_of(other) == ["queued"], "others' stay"
    assert took < 5, "one by one it took 9 s"


def test_what_is_not_expired_behind_it_becomes_the_head() -> None:
    user = new_user()
    submit(user, "note", expires_at=PAST)
    submit(user, "note")
    submit(user, "note", expires_at=PAST)
    outbox.mark_published(outbox.unpublished(ALL, 0, 10))
    assert expire(ALL, 10) == 2
    assert statuses_of(user) == ["expired", "queued", "expired"]
    assert rows(user) == ("ready", 3, 3, 1, False)


@pytest.mark.parametrize("state", [QueueState.IDLE, QueueState.READY, QueueState.WAITING, QueueState.BLOCKED])
def test_a_queue_goes_on_as_after_its_owner_had_cancelled_the_same(state: QueueState) -> None:
    """Whatever state it is in: cancelling is done one by one, by another way."""
    left = []
    for way in ("expire", "cancel"):
        user = new_user()
        published = 0 if state == QueueState.IDLE else 3
        wakes = {"wake_at": PAST} if state == QueueState.WAITING else {}
        queue = queue_with(user, last_seq=4, published_seq=published, state=state, **wakes)
        for seq in (1, 2, 4):
            request_in(queue, seq, Status.QUEUED, expires_at=PAST)
        request_in(queue, 3, Status.QUEUED)
        if way == "expire":
            assert expire(ALL, 10) == 3
        else:
            for request in Request.objects.filter(queue=queue, expires_at__isnull=False).order_by("seq"):
                control.cancel(request.id)
        left.append(rows(user))
        Request.objects.filter(queue=queue).delete()
    assert left[0] == left[1]


def test_what_a_worker_has_claimed_is_left_to_it() -> None:
    user = new_user()
    submit(user, *["note"] * 3, expires_at=PAST)
    outbox.mark_published(outbox.unpublished(ALL, 0, 10))
    assert Lease.take(queue_of(user).id, 1) is not None
    assert expire(ALL, 10) == 2
    assert statuses_of(user) == ["queued", "expired", "expired"]
    assert rows(user)[0] == "draining"
    assert queue_of(user).done_seq == 0, "its worker moves it"


def test_a_long_line_behind_a_head_that_expires_takes_nobody_elses_time(
    hand: Hand, script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of its places is passed over at once. Its worker passes over the rest."""
    monkeypatch.setattr(expiry, "MOST_PASSED", 6)

    @script
    def last(request: Any) -> None: ...

    stuck, other = new_user(), new_user()
    submit(stuck, "last", expires_at=timezone.now() + timedelta(hours=1))
    for one in submit(stuck, *["last"] * 9):
        control.cancel(one.submission.id)
    submit(stuck, "last")
    submit(other, "last", expires_at=timezone.now() + timedelta(hours=1))
    submit(other, "last")
    Request.objects.filter(expires_at__isnull=False).update(expires_at=PAST)
    assert expire(ALL, 10) == 2
    assert (rows(stuck)[3], rows(other)[3]) == (3, 1)
    hand.settle()
    assert statuses_of(stuck) == ["expired", *["cancelled"] * 9, "succeeded"]
    assert statuses_of(other) == ["expired", "succeeded"]
    assert queue_of(stuck).given_up_ahead == 0


def test_what_began_once_does_not_expire() -> None:
    user = new_user()
    submit(user, "note", expires_at=PAST)
    Request.objects.filter(queue__user=user).update(attempt=1, status="retrying")
    assert expire(ALL, 10) == 0


def test_scheduled_ones_expire_without_a_place_and_leave_the_counters() -> None:
    user = new_user()
    submit(user, "note", not_before=PAST - timedelta(minutes=5), expires_at=PAST)
    submit(user, "note")
    assert expire(ALL, 10) == 1
    assert rows(user) == ("idle", 1, 0, 0, False)
    assert sorted(statuses_of(user)) == ["expired", "queued"]


def test_what_expires_is_counted_and_told_to_those_who_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(expiry, "finished", told.append)

    def finished() -> float:
        return counted("finished_total", kind="test.script", status="expired")

    users = [new_user(), new_user()]
    before = finished()
    for user in users:
        submit(user, *["note"] * 3, expires_at=PAST)
    assert expire(ALL, 10) == 6
    assert finished() - before == 6
    assert sorted(told) == sorted(UserQueue.objects.values_list("id", flat=True))


def test_a_shard_ends_its_own() -> None:
    user = new_user()
    submit(user, "note", expires_at=PAST)
    number = queue_of(user).id % 2
    assert (expire(Shard(1 - number, 2), 10), expire(Shard(number, 2), 10)) == (0, 1)
