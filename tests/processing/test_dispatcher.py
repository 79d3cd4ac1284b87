"""Whatever comes in between, what is published is marked once, and publishing goes on."""

import threading
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection

from accounts.models import User
from processing.broker.errors import BrokerUnavailable
from processing.broker.pointers import queue_name
from processing.broker.rabbitmq import Publisher
from processing.dispatch import dispatcher, rounds
from processing.dispatch.beside import DutyThread, named
from processing.dispatch.dispatcher import Dispatcher
from processing.dispatch.duties import Duty
from processing.dispatch.set_aside import SetAside
from processing.handlers import HandlerRequest
from queues.lifecycle import outbox
from queues.lifecycle.outbox import Shard
from queues.models import UserQueue
from tests.processing.conftest import Script
from tests.processing.crew import Hand, all_done, new_user, queue_of, submit
from tests.processing.silence import SilentQueues
from tests.waiting import until


def test_messages_published_but_never_marked_do_no_harm(hand: Hand, ran: list[int]) -> None:
    user = new_user()
    submit(user, *["note"] * 12)
    for _ in range(3):
        dead = Publisher()
        parcels = outbox.unpublished(Shard(0, 1), 0, 10)
        dead.publish(map(named, parcels))
        dead.close()
    hand.settle()
    assert ran == list(range(1, 13))


def test_a_dispatcher_that_was_overtaken_marks_nothing(hand: Hand, ran: list[int]) -> None:
    user = new_user()
    submit(user, "note", "note")
    zombie = outbox.unpublished(Shard(0, 1), 0, 10)
    assert [p.target for p in zombie] == [2]
    submit(user, "note")
    hand.dispatch()
    assert outbox.mark_published(zombie) == ([], [])
    assert queue_of(user).published_seq == 3
    hand.settle()
    assert ran == [1, 2, 3]


def new_a_step(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow or quick RabbitMQ is in making them."""
    monkeypatch.setattr(rounds, "LEAST_NEW", count)
    monkeypatch.setattr(rounds, "MOST_NEW", count)


def test_a_flood_is_published_as_quickly_as_one_request_of_each_of_600_queues(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_a_step(200, monkeypatch)
    flood = new_user()
    for _ in range(5):
        submit(flood, *["note"] * 100)
    users = User.objects.bulk_create(User(username=f"one of many {n}") for n in range(600))
    UserQueue.objects.bulk_create(UserQueue(user=user) for user in users)
    for user in users:
        submit(user, "note")
    for left in (401, 201, 1, 0):  # their queues are new to RabbitMQ
        assert hand.dispatcher.step()
        assert UserQueue.objects.filter(published_seq=0).count() == left
    for user in users:
        submit(user, "note")
    for left in (100, 0):  # now it has them: QUEUES_A_STEP
        assert hand.dispatcher.step()
        assert UserQueue.objects.filter(unpublished=True).count() == left


def test_who_was_passed_waits_no_longer_than_one_step_while_later_users_keep_asking(hand: Hand) -> None:
    first, second, *later = [new_user() for _ in range(4)]
    for user in (first, second, *later):
        submit(user, "note")  # their queues are made in this order
        hand.dispatch()
    submit(second, "note")
    assert hand.dispatcher.dispatch_next()
    submit(first, "note")
    submit(later[0], "note")
    assert hand.dispatcher.dispatch_next()
    assert queue_of(first).published_seq == 2


def test_whose_queue_rabbitmq_has_waits_for_no_round_of_those_whose_queues_it_makes(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_a_step(1, monkeypatch)
    first, *new, last = [new_user() for _ in range(5)]
    for user in (first, *new, last):
        submit(user, "note")
        hand.dispatch()
    hand.dispatcher.publisher.declared -= {queue_name(queue_of(user).id) for user in new}
    for user in (first, *new, last):
        submit(user, "note")
    assert hand.dispatcher.dispatch_next()
    assert [queue_of(user).published_seq for user in (first, *new, last)] == [2, 2, 1, 1, 2]
    submit(first, "note")
    assert hand.dispatcher.dispatch_next()
    assert [queue_of(user).published_seq for user in (first, *new, last)] == [3, 2, 2, 1, 2]
    hand.dispatch()
    assert not UserQueue.objects.filter(unpublished=True).exists()


def test_a_step_has_as_many_new_queues_as_rabbitmq_makes_well_within_the_lead(
    silence: SilentQueues, hand: Hand
) -> None:
    def published() -> int:
        """In the next step, of more than it may have."""
        for user in User.objects.bulk_create(User(username=uuid4().hex) for _ in range(210)):
            submit(user, "note")
        hand.dispatcher.dispatch_next()
        return UserQueue.objects.filter(published_seq=1).count()

    assert published() == rounds.MOST_NEW
    silence.declaring = 0.015
    slow = published()  # as many as before: now it knows
    slower = published()
    assert rounds.LEAST_NEW <= slower - slow <= 1 / silence.declaring
    silence.declaring = 0.0
    quick = published()
    assert published() - quick > slower - slow


def test_a_round_through_queues_that_are_all_set_aside_is_followed_by_a_rest(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "QUEUES_A_STEP", 1)
    monkeypatch.setattr(hand.dispatcher, "_set_aside", SetAside(first=60.0))
    for _ in range(3):
        submit(user := new_user(), "note")
        hand.dispatcher._set_aside.add(queue_of(user).id)
    assert [hand.dispatcher.dispatch_next() for _ in range(8)] == [True, True, True, False] * 2


def test_who_leads_anew_holds_no_queue_back_that_another_leader_may_have_repaired(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand.dispatcher, "_set_aside", SetAside(first=60.0, longest=60.0))
    submit(user := new_user(), "note")
    hand.dispatcher._set_aside.add(queue_of(user).id)
    hand.dispatcher.step()
    assert queue_of(user).published_seq == 0
    hand.dispatcher._stand_by()
    hand.dispatch()
    assert queue_of(user).published_seq == 1


def test_waking_and_sweeping_go_on_while_submissions_keep_coming(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "SWEEP_SECONDS", 0.0)
    swept = []
    monkeypatch.setattr(Dispatcher, "sweep", lambda self: swept.append(self))

    @script
    def flaky(request: HandlerRequest) -> int:
        if request.attempt == 1:
            raise RuntimeError("once")
        return 1

    user, busy = new_user(), new_user()
    submit(user, "flaky")
    hand.dispatch()
    hand.work()
    assert queue_of(user).state == "waiting"

    def one_more() -> bool:
        submit(busy, "flaky")
        assert hand.dispatcher.step(), "there is always more to publish"
        return queue_of(user).state == "ready"

    until(one_more, 5)
    assert swept


def test_a_dispatcher_outlives_a_broker_that_is_away(
    hand: Hand, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    user = new_user()
    away = threading.Event()
    away.set()
    real = Publisher.publish

    def publish(self: Publisher, batch: Any) -> Any:
        if away.is_set():
            raise BrokerUnavailable("as asked for")
        return real(self, batch)

    monkeypatch.setattr(Publisher, "publish", publish)
    stop = threading.Event()
    thread = threading.Thread(target=hand.dispatcher.run, args=(stop,))
    thread.start()
    try:
        submit(user, "note")
        until(lambda: hand.dispatcher._backoff.failures >= 3, 10)
        assert queue_of(user).published_seq == 0
        away.clear()
        until(lambda: queue_of(user).published_seq == 1, 10)
    finally:
        stop.set()
        thread.join(10)
    hand.work()
    assert ran == [1]
    assert all_done()


@pytest.mark.django_db(transaction=True)
def test_a_duty_that_rests_for_long_keeps_no_connection() -> None:
    used: list[Any] = []

    def job() -> None:
        connection.ensure_connection()
        used.append(connection.connection)

    DutyThread(Duty("rare", 60.0, job)).begin()
    until(lambda: used and used[0].closed, 5, "it holds one while it rests")
