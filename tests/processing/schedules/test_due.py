"""Each due time becomes one request: whoever looks, whatever is away, and at nobody else's expense."""

import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import User
from processing.dispatch import duties
from processing.dispatch.dispatcher import Dispatcher
from processing.dispatch.duties import Duty
from processing.schedules import due, writing
from processing.schedules.models import Missed, Schedule
from project.rest.problems import ServiceUnavailable
from queues import kinds
from queues.lifecycle.outbox import Shard
from queues.models import Request, UserQueue
from tests.processing.crew import Crew, new_user, queue_of, submit
from tests.processing.frozen import QUEUE, frozen
from tests.queues.threads import at_once
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_schedules(transactional_db: None) -> Iterator[None]:
    yield
    Schedule.objects.all().delete()


def scheduled(user: User, late: float = 0, every: int = 60, **fields: Any) -> Schedule:
    """One that is due since `late` seconds."""
    asked = {"name": f"s{Schedule.objects.count()}", "kind": "demo.echo", "every_seconds": every, **fields}
    made = writing.add(user.id, '{"n": 1.50}', asked)
    since = timezone.now() - timedelta(seconds=late)
    Schedule.objects.filter(id=made.id).update(next_at=since, look_at=since)
    made.refresh_from_db()
    return made


def submitted(user: User) -> int:
    return Request.objects.filter(queue__user=user).count()


def fresh(schedule: Schedule) -> Schedule:
    return Schedule.objects.get(id=schedule.id)


def all_due() -> int:
    count = 0
    while due.submit_next():
        count += 1
    return count


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


def test_a_dispatcher_that_dies_in_the_middle_has_submitted_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Death(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Death

    user = new_user()
    one = scheduled(user)
    monkeypatch.setattr(due, "_go_on", die)
    with pytest.raises(Death):
        due.submit_next()
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


def test_a_full_queue_is_told_and_the_due_time_is_submitted_when_there_is_room() -> None:
    full, other = new_user(), new_user()
    UserQueue.objects.create(user=full, waiting_limit=1)
    submit(full, "x", kind="demo.echo")
    one, theirs = scheduled(full, late=10), scheduled(other, late=5)
    assert all_due() == 2
    assert submitted(other) == 1
    waiting = fresh(one)
    assert waiting.next_at == one.next_at
    assert waiting.last_error == "1 requests are waiting; the limit is 1. It is tried again."
    assert waiting.look_at is not None
    assert waiting.look_at > timezone.now() + timedelta(seconds=20)
    UserQueue.objects.filter(user=full).update(waiting_limit=5)
    Schedule.objects.filter(id=one.id).update(look_at=timezone.now())
    assert all_due() == 1
    assert (submitted(full), fresh(one).last_error) == (2, "")
    assert fresh(theirs).last_error == ""


def test_a_locked_queue_holds_up_nobody_elses_schedules() -> None:
    stuck, other = new_user(), new_user()
    for user in (stuck, other):
        submit(user, "x", kind="demo.echo")
    one = scheduled(stuck, late=30)
    scheduled(other, late=10)
    with frozen(QUEUE, queue_of(stuck).id):
        began = time.monotonic()
        assert all_due() == 2
        assert time.monotonic() - began < 3
        assert submitted(other) == 2
        assert fresh(one).last_error == "Another transaction holds the queue. It is tried again."
        with pytest.raises(ServiceUnavailable, match="Another transaction holds the queue"):
            due.run_now(one)
    Schedule.objects.filter(id=one.id).update(look_at=timezone.now())
    assert all_due() == 1
    assert submitted(stuck) == 2


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


def test_a_schedule_that_breaks_the_code_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    user, other = new_user(), new_user()
    one = scheduled(user, late=20)
    scheduled(other, late=10)
    Schedule.objects.filter(id=one.id).update(time_zone="Nowhere/Any", cron="* * * * *", every_seconds=None)
    assert all_due() == 2
    assert submitted(other) == 1
    assert fresh(one).last_error == "WrongTiming It is tried again."


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
        cursor.execute(
            "EXPLAIN SELECT id FROM schedules_schedule WHERE look_at <= now() ORDER BY look_at LIMIT 1"
            " FOR NO KEY UPDATE SKIP LOCKED"
        )
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


def test_run_now_submits_beside_the_due_times() -> None:
    user = new_user()
    one = scheduled(user, late=-30)
    accepted = due.run_now(one)
    moved = fresh(one)
    assert (moved.last_request_id, moved.next_at) == (accepted.submission.id, one.next_at)
    assert moved.last_due_at is None
    assert isinstance(one.next_at, datetime)
