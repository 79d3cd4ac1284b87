"""What one user may keep here is limited in bytes, exactly and on every way in."""

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from accounts.models import User
from queues import kinds
from queues.enqueue.accept import accept
from queues.exceptions import TooManyBytes
from queues.lifecycle import correction
from queues.lifecycle.lease import Lease
from queues.lifecycle.removal import remove
from queues.models import Request, UserQueue
from queues.operations import integrity
from queues.operations.erasure import remove_requests
from queues.states import AttemptOutcome, QueueState, Status
from queues.values import Outcome, Submission
from tests.processing.crew import new_user, queue_of
from tests.queues.api import Caller
from tests.queues.rows import request_in
from tests.queues.threads import at_once, holding, in_thread

TEN = '"12345678"'  # bytes of JSON


@pytest.fixture
def user(transactional_db: None) -> User:
    return new_user()


def limited(monkeypatch: pytest.MonkeyPatch, waiting: int = 0, stored: int = 0) -> None:
    monkeypatch.setattr(settings.ENV, "bytes_waiting", waiting)
    monkeypatch.setattr(settings.ENV, "bytes_stored", stored)


def taken(user: User, *payloads: str, **fields: Any) -> int:
    """How many of them were accepted: all or none."""
    echo = kinds.find("demo.echo")
    try:
        return len(accept(user.id, [Submission(echo, payload, **fields) for payload in payloads], session_id=None))
    except TooManyBytes:
        return 0


def counted(queue: UserQueue) -> tuple[int, int]:
    """What the queue's row says it stores, and what its rows add up to."""
    queue.refresh_from_db()
    return queue.bytes_stored, sum(Request.objects.filter(queue=queue).values_list("bytes", flat=True))


@pytest.mark.parametrize("before", [0, 20])
def test_bytes_that_wait_are_limited_exactly_however_many_come_at_once(
    user: User, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where what is done already is more than may wait: then what waits is added up."""
    limited(monkeypatch, waiting=205)
    if before:
        taken(user, *[TEN] * before)
        Request.objects.update(status="succeeded", finished_at=timezone.now())
        UserQueue.objects.update(done_seq=before, published_seq=before)
    assert sum(at_once(8, lambda _: sum(taken(user, TEN) for _ in range(6)))) == 20
    queue = queue_of(user)
    assert queue.bytes_waiting() == 200
    assert counted(queue) == (before * 10 + 200,) * 2
    assert taken(user, "12345") == 1, "a smaller one fits"
    UserQueue.objects.update(done_seq=queue.done_seq + 1, published_seq=queue.done_seq + 1)
    assert taken(user, TEN) == 1, "what is done makes room"


def test_scheduled_requests_count_as_waiting(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, waiting=100)
    later = timezone.now() + timedelta(hours=1)
    scheduled = at_once(6, lambda n: sum(taken(user, TEN, not_before=later if n % 2 else None) for _ in range(4)))
    assert sum(scheduled) == 10
    Request.objects.filter(status="scheduled").update(status="cancelled", finished_at=timezone.now())
    in_line = Request.objects.filter(status="queued").count()
    assert sum(taken(user, TEN) for _ in range(20)) == 10 - in_line


def test_bytes_stored_are_limited_exactly_and_a_batch_fits_or_leaves_nothing(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, stored=250)
    assert sum(at_once(8, lambda _: sum(taken(user, TEN, TEN, TEN) for _ in range(6)))) == 24
    assert counted(queue_of(user)) == (240, 240)
    limited(monkeypatch)
    assert taken(user, TEN), "without limits all fits"


def test_results_count_and_what_is_removed_makes_room(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, stored=60)
    assert taken(user, TEN, TEN) == 2
    queue = queue_of(user)
    UserQueue.objects.update(published_seq=2, state="ready")
    lease = Lease.take(queue.id, 1)
    assert lease is not None
    now = timezone.now()
    done = [
        Outcome(seq, Status.SUCCEEDED, 1, AttemptOutcome.SUCCEEDED, '"ä5678"', started_at=now, finished_at=now)
        for seq in (1, 2)
    ]
    lease.record(2, done, QueueState.READY)
    assert counted(queue) == (36, 36)
    assert taken(user, *[TEN] * 3) == 0
    first = Request.objects.order_by("seq").first()
    assert first is not None
    assert remove([first.id]) == 1
    assert counted(queue) == (18, 18)
    assert taken(user, *[TEN] * 3) == 3


def test_pruning_waits_for_no_locked_queue_and_erasing_leaves_nothing(user: User) -> None:
    other = new_user()
    assert taken(user, TEN) + taken(other, TEN) == 2
    ids = list(Request.objects.values_list("id", flat=True))
    with holding("SELECT FROM queues_userqueue WHERE user_id = %s FOR UPDATE", user.id):
        assert in_thread(lambda: remove(ids))() == 1
        erased = in_thread(lambda: remove_requests(UserQueue.objects.get(user=user).id, 100))
    assert erased() == 1
    assert not Request.objects.exists()
    assert set(UserQueue.objects.values_list("bytes_stored", flat=True)) == {0}


def test_what_was_accepted_before_bytes_were_counted_counts_as_nothing(user: User) -> None:
    UserQueue.objects.create(user=user)
    old = request_in(queue_of(user), 1, Status.SUCCEEDED, payload="x" * 100)
    UserQueue.objects.update(last_seq=1, published_seq=1, done_seq=1)
    taken(user, TEN)
    remove([old.id])
    assert counted(queue_of(user)) == (10, 10)


def test_a_count_that_is_wrong_is_found_and_mended(user: User) -> None:
    taken(user, TEN)
    UserQueue.objects.update(bytes_stored=7)
    ((_, (wrong,)),) = integrity.compare(100, everywhere=True)
    assert "bytes_stored is 7, but its requests have 10" in str(wrong)
    correction.correct(wrong.queue_id)
    assert counted(queue_of(user)) == (10, 10)
    assert [found for _, found in integrity.compare(100, everywhere=True)] == [[]]


BIG = {"kind": "demo.echo", "payload": "x" * 98}  # 100 bytes


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("code", "limits"), [("bytes_waiting", {"waiting": 250}), ("bytes_stored", {"stored": 250})])
def test_the_api_says_which_limit_of_bytes_is_reached(
    code: str, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, **limits)
    alice = Caller()
    assert alice.post("requests/batch", {"requests": [BIG, BIG]}).status == 202
    UserQueue.objects.update(avg_service_seconds=30)
    failed = Request.objects.order_by("seq").first()
    assert failed is not None
    for path, body, headers in (
        ("requests", BIG, {}),
        ("requests", BIG, {"Idempotency_Key": "key"}),
        ("requests/batch", {"requests": [BIG]}, {}),
    ):
        refused = alice.post(path, body, **headers)
        assert (refused.status, refused.json["type"]) == (429, "/problems/too-many-bytes")
        assert refused.json["errors"][0]["code"] == code
        seconds = refused.headers["Retry-After"]
        assert seconds == ("15" if code == "bytes_waiting" else "3600")
        assert refused.headers["RateLimit-Policy"].endswith(f', "{code}";q=250;qu="content-bytes"')
        assert refused.headers["RateLimit"].endswith(f', "{code}";r=50;t={seconds}')
    assert alice.post("requests", {**BIG, "payload": ""}).status == 202
    too_large = alice.post("requests", {**BIG, "payload": "x" * 300})
    assert (too_large.status, too_large.errors) == (400, {"payload": code})
    Request.objects.filter(id=failed.id).update(status="failed", finished_at=timezone.now())
    UserQueue.objects.update(last_seq=3, published_seq=1, done_seq=1)
    limited(monkeypatch, **dict.fromkeys(limits, 150))
    again = alice.post(f"requests/{failed.id}/retry")
    assert (again.status, again.errors) == (429, {"payload": code})
    assert UserQueue.objects.get().last_seq == 3


@pytest.mark.django_db(transaction=True)
def test_the_short_way_leaves_the_refusal_to_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes what fits, also where what waits has to be added up, and nothing of what does not is counted."""
    from queues.enqueue.accept import accept_together
    from queues.values import SubmissionCall

    limited(monkeypatch, waiting=25)
    full, other = new_user(), new_user()
    asks = []
    for one in (full, other):
        session = Caller(one).user.sessions.get().id  # type: ignore[attr-defined]
        UserQueue.objects.create(user=one)
        asks.append([SubmissionCall(one.id, session, Submission(kinds.find("demo.echo"), TEN), "") for _ in range(4)])
    assert len(accept_together(asks[0][:2]).accepted) == 2
    queue = queue_of(full)
    found = accept_together([asks[0][2], asks[1][0]])
    assert set(found.accepted) == {asks[1][0].submission.id}
    assert not found.later
    queue.refresh_from_db()
    assert (queue.last_seq, queue.bytes_stored) == (2, 20)
    Request.objects.filter(queue=queue, seq=1).update(status="succeeded", finished_at=timezone.now())
    UserQueue.objects.filter(id=queue.id).update(done_seq=1, published_seq=1)
    assert len(accept_together([asks[0][2]]).accepted) == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(bytes) FROM queues_request WHERE queue_id = %s", [queue.id])
        assert cursor.fetchone()[0] == 30
