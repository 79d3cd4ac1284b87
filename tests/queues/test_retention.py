"""What the dispatcher deletes by itself once it was kept long enough: a page at a time, never what still matters."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session as StaffSession
from django.db import connection
from django.utils import timezone

from accounts import retention
from accounts.models import User
from queues.bulk_action import BulkAction
from queues.models import Attempt, OperatorAction, Request, UserQueue
from queues.operations import retention as pruning
from queues.operations.retention import RETENTION_PAGE, Sweep
from queues.operations.selectors import first_id
from queues.states import QueueState, Status
from tests.processing.crew import new_user
from tests.processing.frozen import frozen
from tests.queues.rows import queue_of, request_in

pytestmark = pytest.mark.django_db(transaction=True)

NOW = timezone.now()
LONG_AGO = NOW - timedelta(days=100)


@pytest.fixture(autouse=True)
def ninety_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.ENV, "request_retention_days", 90.0)
    monkeypatch.setattr(settings.ENV, "admin_log_retention_days", 90.0)


def accepted(queue: UserQueue, seq: int | None, status: Status, days: float, number: int = 0, **fields: Any) -> UUID:
    """A request of so many days ago, with an id of that time; what is final ended a second later."""
    at = NOW - timedelta(days=days)
    id_ = UUID(int=(int(at.timestamp() * 1000) << 80) + (7 << 76) + (2 << 62) + (seq or 0) + 1000 * number)
    request_in(queue, seq, status, at, id=id_, **fields)
    return id_


def left() -> set[UUID]:
    return set(Request.objects.values_list("id", flat=True))


def sweep_all(count: int = 10) -> None:
    sweep = Sweep()
    while sweep.step(count):
        continue


def test_finished_requests_go_with_their_attempts_when_they_were_kept_long_enough() -> None:
    queue = queue_of(new_user(), last_seq=6, published_seq=6, done_seq=5, state=QueueState.READY)
    gone = [
        accepted(queue, seq, status, 100)
        for seq, status in enumerate((Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.EXPIRED), 1)
    ]
    Attempt.objects.create(request_id=gone[1], number=1, started_at=LONG_AGO, finished_at=LONG_AGO, outcome="failed")
    fresh = accepted(queue, 5, Status.SUCCEEDED, 89)
    waiting = accepted(queue, 6, Status.QUEUED, 100)
    late = accepted(queue, None, Status.CANCELLED, 100, finished_at=NOW)
    sweep_all()
    assert left() == {fresh, waiting, late}
    assert not Attempt.objects.exists()


def test_what_its_queue_has_not_passed_over_stays() -> None:
    queue = queue_of(new_user(), last_seq=2, published_seq=2, done_seq=0, state=QueueState.BLOCKED)
    kept = {accepted(queue, 1, Status.RETRYING, 100, attempt=3), accepted(queue, 2, Status.CANCELLED, 100)}
    sweep_all()
    assert left() == kept


def test_each_step_reads_a_page_however_little_of_it_is_to_go() -> None:
    queue = queue_of(new_user(), last_seq=20, published_seq=0, done_seq=0)
    for seq in range(1, 21):
        accepted(queue, seq, Status.QUEUED, 100)
    old = accepted(queue_of(new_user(), last_seq=1, published_seq=1, done_seq=1), 1, Status.SUCCEEDED, 95)
    sweep = Sweep()
    assert [sweep.step(8) for _ in range(3)] == [True, True, False]
    assert old not in left()
    assert len(left()) == 20
    assert sweep.step(8), "it begins anew"


def test_the_page_is_read_along_the_primary_key() -> None:
    with connection.cursor() as cursor:
        values = {
            "after": pruning.EARLIEST, "bound": first_id(NOW), "before": NOW, "count": 500,
            "statuses": ["succeeded"],
        }  # fmt: skip
        cursor.execute(f"EXPLAIN {RETENTION_PAGE.text}", values)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Seq Scan on queues_request" not in plan, plan


def test_zero_days_keep_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.ENV, "request_retention_days", 0.0)
    monkeypatch.setattr(settings.ENV, "admin_log_retention_days", 0.0)
    accepted(queue_of(new_user(), last_seq=1, published_seq=1, done_seq=1), 1, Status.SUCCEEDED, 5000)
    OperatorAction.objects.create(by="ada", command="queue pause", at=NOW - timedelta(days=5000))
    sweep_all()
    assert pruning.prune_actions(10) == 0
    assert len(left()) == 1


@pytest.mark.parametrize("what", ["itself", "a retry of it"])
def test_a_request_that_is_locked_stays_and_the_others_go(what: str) -> None:
    queue = queue_of(new_user(), last_seq=4, published_seq=4, done_seq=4)
    ids = [accepted(queue, seq, Status.FAILED, 100) for seq in (1, 2, 3)]
    again = accepted(queue, 4, Status.SUCCEEDED, 1, retry_of_id=ids[1])
    locked = ids[1] if what == "itself" else again
    with frozen("SELECT FROM queues_request WHERE id = %s FOR UPDATE", locked):
        sweep_all()
        assert left() == {ids[1], again}
    sweep_all()
    assert left() == {again}
    assert Request.objects.get().retry_of_id is None


def bulk_action(user: User, **when: Any) -> BulkAction:
    none: dict[str, Any] = {"given": {}, "skipped": {}, "failed": {}, "targets": [], "later": []}
    return BulkAction.objects.create(user=user, confirmation=uuid4(), name="retry", total=0, **none, **when)


def test_what_operators_did_and_the_staffs_sessions_go_in_time() -> None:
    user = new_user()
    for days in (1, 100, 200):
        at = NOW - timedelta(days=days)
        OperatorAction.objects.create(by="ada", command="queue pause", at=at)
        entry = LogEntry.objects.create(
            user_id=user.id, content_type=ContentType.objects.get_for_model(UserQueue), object_id="1",
            object_repr="user.1", action_flag=CHANGE, change_message="",
        )  # fmt: skip
        LogEntry.objects.filter(id=entry.id).update(action_time=at)
        StaffSession.objects.create(session_key=str(days), session_data="", expire_date=at + timedelta(days=50))
        bulk_action(user, finished_at=at)
    under_way = bulk_action(user, created_at=LONG_AGO)
    assert [pruning.prune_actions(1) for _ in range(3)] == [2, 2, 0]
    assert [retention.prune(10), retention.prune(10)] == [4, 0]
    assert OperatorAction.objects.count() == LogEntry.objects.count() == StaffSession.objects.count() == 1
    assert set(BulkAction.objects.values_list("id", "finished_at")) == {
        (under_way.id, None),
        (under_way.id - 3, NOW - timedelta(days=1)),
    }
