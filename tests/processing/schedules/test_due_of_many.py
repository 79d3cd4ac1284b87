"""What one user has due is at nobody else's expense: neither how much it is, nor that it cannot be submitted."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError
from django.utils import timezone

from accounts.models import User
from processing.schedules import due
from processing.schedules.models import Schedule
from project.rest.problems import ServiceUnavailable
from queues.enqueue import permissions
from queues.enqueue.accept import open_queue
from queues.models import UserQueue
from tests.processing.crew import new_user, queue_of, submit
from tests.processing.frozen import QUEUE, frozen
from tests.processing.schedules.due_times import all_due, fresh, in_order, scheduled, submitted
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("no_schedules")]


def test_whoever_has_little_due_comes_before_the_rest_of_those_who_have_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due, "MOST_IN_ROUND", 20)
    crowd, other = [new_user() for _ in range(4)], new_user()
    for user in crowd:
        open_queue(user.id)
        for _ in range(12):
            scheduled(user, late=50)
    scheduled(other, late=1, missed="skip")
    due.submit_round()
    assert submitted(other) == 1
    assert [submitted(user) for user in crowd] == [4] * 4
    all_due()
    assert [submitted(user) for user in crowd] == [12] * 4


def test_in_a_round_everybody_has_a_turn_however_many_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due, "MOST_IN_ROUND", 3)
    monkeypatch.setattr(due, "TOGETHER", 2)
    users = [new_user() for _ in range(5)]
    for user in users:
        scheduled(user), scheduled(user)
    assert due.submit_round() == 5
    assert [submitted(user) for user in users] == [1] * 5


def test_behind_one_that_somebody_else_has_only_its_users_others_wait() -> None:
    user, other = new_user(), new_user()
    first = scheduled(user, late=20, name="first")
    scheduled(user, late=10, name="second")
    scheduled(other)
    with frozen("SELECT FROM schedules_schedule WHERE id = %s FOR UPDATE", first.id):
        assert all_due() == 1
        assert (submitted(user), submitted(other)) == (0, 1)
    assert all_due() == 2
    assert in_order(user) == ["first", "second"]


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


def test_as_many_as_there_is_room_for_are_submitted_and_the_rest_is_put_off_together() -> None:
    user = new_user()
    UserQueue.objects.create(user=user, waiting_limit=2)
    first, second, third, fourth = [scheduled(user, late=late) for late in (40, 30, 20, 10)]
    later = scheduled(user, late=-20)  # within the 30 s
    all_due()
    assert in_order(user) == [first.name, second.name]
    assert [fresh(one).last_error[:21] for one in (second, third, fourth, later)] == [
        "",
        *["2 requests are waiting"[:21]] * 2,
        "",
    ]
    put_off = {fresh(one).look_at for one in (third, fourth, later)}
    assert len(put_off) == 1
    UserQueue.objects.filter(user=user).update(waiting_limit=9)
    Schedule.objects.filter(user=user).filter(look_at__in=put_off).update(look_at=timezone.now())
    all_due()
    assert in_order(user)[2:4] == [third.name, fourth.name]


def test_a_locked_queue_holds_up_nobody_elses_schedules() -> None:
    stuck, other = new_user(), new_user()
    for user in (stuck, other):
        submit(user, "x", kind="demo.echo")
    theirs = [scheduled(stuck, late=30) for _ in range(100)]
    one = theirs[0]
    scheduled(other, late=10)
    with frozen(QUEUE, queue_of(stuck).id):
        due.submit_round()
        assert submitted(other) == 2
        for held in theirs:
            assert fresh(held).last_error == "Another transaction holds the queue. It is tried again."
            assert fresh(held).next_at == held.next_at
        with pytest.raises(ServiceUnavailable, match="Another transaction holds the queue"):
            due.run_now(one)
    until(lambda: bool(all_due()))
    until(lambda: submitted(stuck) == 1 + 100)


def test_a_schedule_that_breaks_the_code_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    user, other = new_user(), new_user()
    one = scheduled(user, late=20)
    scheduled(other, late=10)
    Schedule.objects.filter(id=one.id).update(time_zone="Nowhere/Any", cron="* * * * *", every_seconds=None)
    assert all_due() == 2
    assert submitted(other) == 1
    assert fresh(one).last_error == "WrongTiming It is tried again."


def test_what_postgresql_refuses_of_one_user_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    user, other = new_user(), new_user()
    one = scheduled(user, late=20)
    scheduled(other, late=10)

    def check(user_id: UUID, _: Any) -> None:
        if user_id == user.id:
            User.objects.extra(where=["1 / 0 = 1"]).exists()

    monkeypatch.setattr(permissions, "check", check)
    assert all_due() == 2
    assert submitted(other) == 1
    assert fresh(one).last_error == "DataError It is tried again."


def test_a_permission_that_asks_a_server_which_is_away_stops_nobody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user, other = new_user(), new_user()
    broken = scheduled(user, late=20)
    scheduled(other)
    check = permissions.check

    def asks(user_id: UUID, kinds: Any) -> None:
        if user_id == user.id:
            raise OperationalError("another server is away")
        check(user_id, kinds)

    monkeypatch.setattr(permissions, "check", asks)
    all_due()
    assert (submitted(user), submitted(other)) == (0, 1)
    assert fresh(broken).last_error == "OperationalError It is tried again."
