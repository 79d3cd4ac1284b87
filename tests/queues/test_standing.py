"""How all queues stand: right figures, from active queues alone."""

import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import connection
from django.utils import timezone

from queues.lifecycle.lease import WORKERS
from queues.operations import backlog
from queues.operations.backlog import BY_STATE, Recent, measure
from queues.states import QueueState, Status
from tests.processing.crew import new_user
from tests.processing.frozen import QUEUE, frozen
from tests.queues.rows import a_leader, queue_of, request_in
from tests.waiting import until

pytestmark = pytest.mark.django_db


def test_depth_age_and_states_are_told_by_state_and_pause() -> None:
    now = timezone.now()
    fresh = queue_of(new_user(), last_seq=2, published_seq=1, state=QueueState.READY)
    request_in(fresh, 1, Status.QUEUED, now - timedelta(seconds=100))
    request_in(fresh, 2, Status.QUEUED, now - timedelta(seconds=40))
    draining = queue_of(new_user(), last_seq=5, published_seq=5, done_seq=2, state=QueueState.DRAINING)
    request_in(draining, 3, Status.QUEUED, now - timedelta(seconds=5000))  # runs: it does not wait
    request_in(draining, 4, Status.CANCELLED, now - timedelta(seconds=4000))
    request_in(draining, 5, Status.QUEUED, now - timedelta(seconds=200))
    paused = queue_of(new_user(), last_seq=1, published_seq=1, state=QueueState.READY, paused=True)
    request_in(paused, 1, Status.QUEUED, now - timedelta(seconds=9000))
    just_now = queue_of(new_user(), last_seq=1)  # idle, and the dispatcher has not seen it
    request_in(just_now, 1, Status.QUEUED, now - timedelta(days=9), not_before=now - timedelta(seconds=7))
    queue_of(new_user(), last_seq=9, published_seq=9, done_seq=9)  # rests
    queue_of(new_user(), paused=True)  # rests too

    found = measure()
    assert (found.depth, found.deepest, found.unpublished, found.paused) == (2 + 3 + 1 + 1, 3, 2, 2)
    assert {state: found.queues(state) for state in QueueState} == {
        "idle": 1, "ready": 2, "draining": 1, "waiting": 0, "blocked": 0,
    }  # fmt: skip
    assert found.oldest_waiting(lambda group: not group.paused) == pytest.approx(200, abs=30)
    assert found.oldest_waiting(lambda group: group.paused) == pytest.approx(9000, abs=30)
    assert found.lag["publish"] == pytest.approx(40, abs=30), "a scheduled one counts from its not_before"
    assert (found.lag["schedule"], found.lag["wake"]) == (0, 0)


def test_what_the_dispatcher_is_late_with_is_told() -> None:
    now = timezone.now()
    queue = queue_of(
        new_user(), last_seq=1, published_seq=1, state=QueueState.WAITING, wake_at=now - timedelta(seconds=60)
    )
    request_in(queue, 1, Status.RETRYING)
    request_in(queue, None, Status.SCHEDULED, not_before=now - timedelta(seconds=600))
    request_in(queue, None, Status.SCHEDULED, not_before=now + timedelta(hours=1))
    lag = measure().lag
    assert (lag["schedule"], lag["wake"]) == (pytest.approx(600, abs=30), pytest.approx(60, abs=30))


def test_those_alive_are_counted_by_their_leases_and_locks() -> None:
    a_leader()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, 7), pg_advisory_xact_lock(%s, 8)", [WORKERS, WORKERS])
    found = measure()
    assert (found.dispatchers, found.workers) == (1, 2)


@pytest.mark.django_db(transaction=True)
def test_the_age_is_told_of_the_oldest_transaction_that_keeps_dead_rows() -> None:
    queue = queue_of(new_user())
    with frozen("SELECT 1"):  # it wrote nothing, and its snapshot is over
        began = time.monotonic()
        with frozen(QUEUE, queue.id):
            until(lambda: measure().oldest_transaction > 0.2)
            assert measure().oldest_transaction <= time.monotonic() - began
    with frozen("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1"):
        until(lambda: measure().oldest_transaction > 0.2)


def test_nobody_anywhere_is_nothing_wrong() -> None:
    found = measure()
    assert (found.depth, found.deepest, found.unpublished, found.dispatchers, found.workers) == (0, 0, 0, 0, 0)
    assert found.oldest_waiting(lambda group: not group.paused) == 0


def test_idle_users_are_not_read() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accounts_user (id, username, email, password, is_active, is_staff, is_superuser, created_at)"
            " SELECT gen_random_uuid(), 'idle-' || n, '', '', true, false, false, now()"
            " FROM generate_series(1, 5000) n"
        )
        cursor.execute(
            "INSERT INTO queues_userqueue (user_id, last_seq, published_seq, done_seq)"
            " SELECT id, 3, 3, 3 FROM accounts_user WHERE username LIKE 'idle-%'"
        )
        cursor.execute("ANALYZE queues_userqueue")
        cursor.execute("EXPLAIN " + BY_STATE.text)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "queue_active" in plan
    assert "queue_unpublished" in plan
    assert "Seq Scan on queues_userqueue" not in plan


def test_those_who_ask_at_once_share_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    recent = Recent()
    first = recent.latest()
    assert recent.latest() is first
    later = time.monotonic() + backlog.CACHED_SECONDS + backlog.CACHED_TIMES * first.took + 1
    monkeypatch.setattr(backlog, "time", SimpleNamespace(monotonic=lambda: later))
    assert recent.latest() is not first
