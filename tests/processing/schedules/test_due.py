"""Each due time becomes one request: whoever looks, and whatever is away."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import User
from processing.dispatch import duties
from processing.dispatch.dispatcher import Dispatcher
from processing.dispatch.duties import Duty
from processing.schedules import due
from processing.schedules.models import Missed, Schedule
from processing.schedules.statements import ROUND
from project.telemetry import tracing
from queues import kinds
from queues.enqueue.accept import open_queue
from queues.lifecycle.outbox import Shard
from queues.models import Request, UserQueue
from tests.processing.crew import Crew, new_user, queue_of, submit
from tests.processing.schedules.due_times import all_due, fresh, in_order, scheduled, submitted
from tests.queues.threads import at_once
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_schedules")]


def test_a_due_time_becomes_a_request_of_its_user() -> None:
    user = new_user()
    one, later = scheduled(user), scheduled(user, late=-30)
    assert all_due() == 1
    request = Request.objects.get(queue__user=user)
    assert (request.kind, request.payload, request.seq) == ("demo.echo", {"n": 1.5}, 1)
    assert request.trace == f"schedule-{one.id}"
    moved = fresh(one)
    assert (moved.last_request_id, moved.last_due_at, moved.last_error) == (request.id, one.next_at, "")
    assert one.next_at is not None
    assert moved.next_at == moved.look_at == one.next_at + timedelta(seconds=60)
    assert fresh(later).last_request_id is None


def test_however_many_look_each_due_time_is_submitted_once() -> None:
    users = [new_user() for _ in range(5)]
    for user in users:
        for _ in range(4):
            scheduled(user, late=400, every=100, missed="all")
    taken = at_once(6, lambda _: all_due())
    assert sum(taken) == 5 * 4 * 5
    assert [submitted(user) for user in users] == [20] * 5
    assert sorted(Request.objects.filter(queue__user=users[0]).values_list("seq", flat=True)) == list(range(1, 21))


def test_a_users_due_times_are_submitted_in_their_order() -> None:
    user = new_user()
    scheduled(user, late=50, every=20, name="often")
    scheduled(user, late=40, every=1000, name="second")
    scheduled(user, late=20, every=1000, name="fourth")
    at_once(4, lambda _: all_due())
    assert in_order(user) == ["often", "second", "often", "fourth", "often"]


def test_whoever_comes_later_with_the_same_round_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The due times that are next have their turn in the next round: behind others' that come first by now."""
    user = new_user()
    scheduled(user, late=50, every=20, name="often")
    scheduled(user, late=40, every=1000, name="second")
    seen = ROUND.rows(most=due.MOST_IN_ROUND)
    assert due.submit_round() == 1
    monkeypatch.setattr(ROUND, "rows", lambda **_: seen)
    assert due.submit_round() == 0
    monkeypatch.undo()
    all_due()
    assert in_order(user) == ["often", "second", "often", "often"]


def test_a_dispatcher_that_dies_in_the_middle_has_submitted_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Death(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Death

    user = new_user()
    one = scheduled(user)
    monkeypatch.setattr(due, "_move", die)
    with pytest.raises(Death):
        due.submit_round()
    monkeypatch.undo()
    assert submitted(user) == 0
    assert fresh(one).next_at == one.next_at
    assert all_due() == 1
    assert submitted(user) == 1


@pytest.mark.parametrize(
    ("missed", "late", "every", "count"),
    [
        ("skip", 30, 100, 1),
        ("skip", 250, 1000, 0),
        ("one", 250, 1000, 1),
        ("all", 100 * 1000 + 50, 100, 100),
        *((missed, 35, 10, 4) for missed in Missed.values),  # four fresh due times: none is missed
        ("skip", 95, 10, 6),  # four were missed, and six are fresh
        ("one", 95, 10, 1 + 6),
        ("all", 95, 10, 4 + 6),
    ],
)
def test_missed_due_times_are_submitted_by_their_policy_and_fresh_ones_each(
    missed: str, late: float, every: int, count: int
) -> None:
    user = new_user()
    UserQueue.objects.create(user=user, waiting_limit=2000)
    one = scheduled(user, late=late, every=every, missed=missed)
    all_due()
    assert submitted(user) == count
    moved = fresh(one)
    assert moved.next_at is not None
    assert moved.next_at > timezone.now()
    assert moved.next_at == moved.look_at


def test_what_was_late_because_others_had_their_turn_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    user, away = new_user(), new_user()
    monkeypatch.setattr(due, "_begun", time.monotonic() - 200)
    monkeypatch.setattr(due, "_looked", time.monotonic() - 9)
    assert all_due() == 0
    assert time.monotonic() - due._looked < 5, "it looked, though nothing was due"
    scheduled(user, late=150, every=1000, missed="skip")
    one = scheduled(away, late=250, every=1000, missed="skip")
    assert all_due() == 2
    assert (submitted(user), submitted(away)) == (1, 0)
    assert fresh(one).last_error == f"Skipped: {one.next_at:%Y-%m-%d %H:%M:%S} UTC was missed."


def test_what_would_be_refused_again_waits_for_its_next_due_time() -> None:
    inactive, changed = new_user(), new_user()
    one = scheduled(inactive)
    two = scheduled(changed)
    User.objects.filter(id=inactive.id).update(is_active=False)
    Schedule.objects.filter(id=two.id).update(kind="demo.gone")
    assert all_due() == 2
    assert fresh(one).last_error == "The user is not active."
    assert fresh(two).last_error.startswith("kind: This kind is not known; there is demo.echo")
    for schedule in (one, two):
        moved = fresh(schedule).next_at
        assert moved is not None
        assert moved > timezone.now()
    assert not Request.objects.exists()


def test_a_paused_schedule_is_not_due_and_what_it_was_paused_for_is_not_missed() -> None:
    user = new_user()
    one = scheduled(user, late=1000, missed="all")
    assert one.pause()
    assert not one.pause()
    assert all_due() == 0
    assert fresh(one).resume()
    assert all_due() == 0
    moved = fresh(one).next_at
    assert moved is not None
    assert timezone.now() < moved < timezone.now() + timedelta(seconds=61)


def test_the_look_for_what_is_due_reads_an_index() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {ROUND.text}", {"most": due.MOST_IN_ROUND})
        plan = " ".join(row[0] for row in cursor.fetchall())
    assert "schedule_due" in plan


@pytest.mark.usefixtures("watch")
def test_dispatchers_submit_and_publish_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duties, "registered", {"schedules": duties.registered["schedules"]})
    users = [new_user() for _ in range(3)]
    for user in users:
        scheduled(user, late=1)
    with Crew(workers=1, dispatchers=2, with_duties=True):
        until(lambda: Request.objects.filter(status="succeeded").count() == 3)
    assert [submitted(user) for user in users] == [1, 1, 1]


def test_a_duty_that_hangs_or_breaks_stalls_no_dispatcher(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, free, broken = threading.Event(), threading.Event(), []

    def hang() -> None:
        hanging.set()
        free.wait(60)

    def fail() -> None:
        broken.append(True)
        raise KeyError("a defect")

    monkeypatch.setattr(duties, "registered", {"hang": Duty("hang", 0.01, hang), "fail": Duty("fail", 0.01, fail)})
    dispatcher = Dispatcher(Shard(0, 1))
    user = new_user()
    try:
        dispatcher.step()
        assert hanging.wait(20)
        submit(user, "x", kind="demo.echo")
        dispatcher.step()
        assert queue_of(user).published_seq == 1

        def twice() -> bool:
            dispatcher.step()
            return len(broken) > 1

        until(twice, 20)
    finally:
        free.set()
        dispatcher.publisher.close()


def test_the_newest_version_of_a_kind_is_asked_for_when_it_is_due() -> None:
    user = new_user()
    scheduled(user)
    all_due()
    assert Request.objects.get(queue__user=user).version == kinds.find("demo.echo").version


def test_each_request_has_a_span_of_its_own_and_what_has_no_room_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    class Tracer:
        @contextmanager
        def submit(self, kind: str, request_id: UUID | None, count: int) -> Iterator[str]:
            with suppress(tracing.LeftToOthers):
                yield f"00-{request_id}"
                ended.append(request_id)

    users, full = [new_user() for _ in range(3)], new_user()
    for user in users[1:]:
        open_queue(user.id)
    UserQueue.objects.create(user=full, waiting_limit=1)
    submit(full, "x", kind="demo.echo")
    for user in (*users, full):
        scheduled(user)
    monkeypatch.setattr(tracing, "tracer", Tracer())
    all_due()
    found = {one.id: one.traceparent for one in Request.objects.filter(queue__user__in=users)}
    assert found == {request_id: f"00-{request_id}" for request_id in found}
    assert sorted(ended) == sorted(found)


def test_run_now_submits_beside_the_due_times() -> None:
    user = new_user()
    one = scheduled(user, late=-30)
    accepted = due.run_now(one)
    moved = fresh(one)
    assert (moved.last_request_id, moved.next_at) == (accepted.submission.id, one.next_at)
    assert moved.last_due_at is None
    assert isinstance(one.next_at, datetime)
