"""Whatever makes a request final beside a worker, the signal that it is final is sent once, after the commit."""

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

import queues
from accounts.models import User
from queues import signals
from queues.lifecycle import control, correction, expiry
from queues.lifecycle.lease import Lease
from queues.lifecycle.outbox import Shard
from queues.lifecycle.recovery import recover
from queues.models import Request, UserQueue
from queues.signals import FinishedRequest, request_finished
from scripts.place import ROOT
from tests.processing.crew import Hand, new_user, queue_of, requests_of, submit

SOON = timedelta(hours=1)
PAST = timezone.now() - timedelta(minutes=1)


def cancel(user: User) -> list[Any]:
    submit(user, "fine", "fine")
    control.cancel(requests_of(user)[1].id)
    return [(2, "cancelled", 0)]


def cancel_a_scheduled_one(user: User) -> list[Any]:
    (one,) = submit(user, "fine", not_before=timezone.now() + SOON)
    control.cancel(one.submission.id)
    return [(None, "cancelled", 0)]


def purge(user: User) -> list[Any]:
    submit(user, "fine", not_before=timezone.now() + SOON)
    submit(user, "fine", "fine")
    assert control.purge(queue_of(user).pk) == 3
    return [(None, "cancelled", 0), (1, "cancelled", 0), (2, "cancelled", 0)]


def skip(user: User) -> list[Any]:
    submit(user, "fine", "fine", kind="test.block")
    UserQueue.objects.filter(user=user).update(state="blocked", published_seq=2)
    Request.objects.filter(queue__user=user, seq=1).update(attempt=1, status="retrying")
    control.skip_head(queue_of(user).pk)
    return [(1, "failed", 1)]


def expire(user: User) -> list[Any]:
    submit(user, "fine", not_before=timezone.now() + SOON, expires_at=PAST)
    submit(user, "fine", "fine", expires_at=PAST)
    assert expiry.expire(Shard(0, 1), 10) == 3
    return [(None, "expired", 0), (1, "expired", 0), (2, "expired", 0)]


def die(user: User) -> list[Any]:
    submit(user, "fine", kind="test.once")
    UserQueue.objects.filter(user=user).update(state="ready", published_seq=1)
    lease = Lease.take(queue_of(user).pk, 1)
    assert lease is not None
    recover(lease.queue_id, lease.fence)
    return [(1, "failed", 1)]


def be_passed(user: User) -> list[Any]:
    submit(user, "fine", "fine")
    UserQueue.objects.filter(user=user).update(state="ready", published_seq=2, done_seq=1)
    correction.correct(queue_of(user).pk)
    return [(1, "failed", 0)]


@pytest.mark.parametrize("way", [cancel, cancel_a_scheduled_one, purge, skip, expire, die, be_passed])
def test_what_ends_without_a_worker_is_told_once_too(
    hand: Hand, finished: list[FinishedRequest], way: Callable[[User], list[Any]]
) -> None:
    seen: list[str] = []

    def note(finished: FinishedRequest, **_: Any) -> None:
        seen.append(Request.objects.get(id=finished.id).status)

    request_finished.connect(note)
    user = new_user()
    try:
        expected = way(user)
        signals._sending.flush(15)
    finally:
        request_finished.disconnect(note)
    told = {(one.sequence, str(one.status), one.attempt): one for one in finished}
    assert (len(finished), {*told}) == (len(expected), {*expected})
    assert seen == [one.status for one in finished], "the rows were final when they were called"
    for one in finished:
        row = Request.objects.get(id=one.id)
        assert (one.user_id, one.kind, one.version, one.result) == (user.id, row.kind, 1, None)
        assert (one.error, one.started_at, one.finished_at) == (row.error, row.started_at, row.finished_at)


def test_what_is_rolled_back_is_not_told(hand: Hand, finished: list[FinishedRequest]) -> None:
    user = new_user()
    (one, scheduled) = [*submit(user, "fine"), *submit(user, "fine", not_before=timezone.now() + SOON)]
    with transaction.atomic():
        queues.cancel(user, one.submission.id)
        queues.cancel(user, scheduled.submission.id)
        transaction.set_rollback(True)
    with transaction.atomic():
        queues.cancel(user, one.submission.id)
        assert not finished
    signals._sending.flush(15)
    assert [told.id for told in finished] == [one.submission.id]


@pytest.mark.usefixtures("fine")
def test_what_was_cancelled_while_it_waited_is_not_told_again_by_the_worker(
    hand: Hand, finished: list[FinishedRequest]
) -> None:
    user = new_user()
    submit(user, "fine", "fine", "fine")
    control.cancel(requests_of(user)[1].id)
    hand.settle()
    signals._sending.flush(15)
    assert sorted((one.sequence, str(one.status)) for one in finished) == [
        (1, "succeeded"),
        (2, "cancelled"),
        (3, "succeeded"),
    ]


ENDING = """
import sys, time, django
django.setup()
from queues.lifecycle import control
from queues.signals import request_finished

def slow(finished, **_):
    time.sleep(0.5)
    print("told of", finished.id)

request_finished.connect(slow)
control.cancel(sys.argv[1])
"""


def test_a_command_waits_at_its_end_for_its_receivers(hand: Hand) -> None:
    (one,) = submit(new_user(), "fine")
    id_ = str(one.submission.id)
    ended = subprocess.run([sys.executable, "-c", ENDING, id_], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert f"told of {id_}" in ended.stdout, ended.stderr
