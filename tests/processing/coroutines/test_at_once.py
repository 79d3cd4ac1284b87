"""`async def` handlers hold no thread: what holds for those that do holds for them, hundreds at once."""

import asyncio
import threading
import time

import pytest
from django.conf import settings
from django.db import connection, transaction

from processing import handlers
from processing.broker.fetcher import Fetcher
from processing.broker.pointers import queue_name
from processing.broker.source import Source
from processing.handlers import HandlerRequest
from processing.worker.coroutines.run import CoroutineRun
from queues.limits import deployment
from queues.models import UserQueue
from tests.metrics import counted
from tests.processing import kinds
from tests.processing.conftest import Script
from tests.processing.coroutines.conftest import Gate
from tests.processing.crew import (
    Crew,
    Hand,
    all_done,
    attempts_of,
    new_user,
    queue_of,
    requests_of,
    statuses_of,
    submit,
)
from tests.waiting import until

USERS = 200
THREADS = 4


def test_200_users_wait_at_once_in_a_process_of_four_threads_and_plain_ones_run_beside_them(
    gate: Gate, script: Script
) -> None:
    threads: set[int] = set()

    @script
    def fast(request: HandlerRequest) -> int:
        threads.add(threading.get_ident())
        return 1

    users, others = [new_user() for _ in range(USERS)], [new_user() for _ in range(THREADS)]
    before = counted("async_handlers")
    for user in users:
        submit(user, "wait", kind="test.async")
    with Crew(workers=THREADS) as crew:
        until(lambda: len(gate.waiting) == USERS, 60, "they hold threads")
        assert counted("async_handlers") - before == USERS
        for user in others:
            submit(user, *["fast"] * 20)
        until(lambda: all(statuses_of(user) == ["succeeded"] * 20 for user in others), 10, "others wait for them")
        assert threads <= {thread.ident for thread in crew.threads}
        assert len(gate.waiting) == USERS
        gate.open()
        until(all_done, 30)
    assert {(one.status, one.attempt, one.result) for user in users for one in requests_of(user)} == {
        ("succeeded", 1, 1)
    }
    until(lambda: counted("async_handlers") == before)


def test_each_users_order_holds_whatever_runs_where(hand: Hand, script: Script) -> None:
    seen: list[int] = []

    @script
    async def waits(request: HandlerRequest) -> None:
        await asyncio.sleep(0.01)
        seen.append(request.sequence)

    @script
    def plain(request: HandlerRequest) -> None:
        seen.append(request.sequence)

    user = new_user()
    for name in ("plain", "plain", "waits", "plain", "waits", "waits", "plain"):
        submit(user, name, kind="test.async" if name == "waits" else "test.script")
    hand.settle()
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert {(one.status, one.attempt) for one in requests_of(user)} == {("succeeded", 1)}
    submit(user, *["waits"] * 30, kind="test.async")
    hand.dispatch_singly(user)
    hand.settle(30)
    assert hand.wire.depth(queue_name(queue_of(user).id)) <= 1, "their pointers pile up in RabbitMQ"


def test_beyond_the_ceiling_heads_are_given_back_and_no_attempt_is_counted(
    hand: Hand, gate: Gate, on_loop: CoroutineRun
) -> None:
    on_loop.shares.set_places(4)
    users = [new_user() for _ in range(6)]
    for user in users:
        submit(user, "wait", kind="test.async")
    hand.dispatch()
    hand.work()
    until(lambda: len(gate.waiting) == 3, why="three quarters of them are one kind's")
    assert UserQueue.objects.filter(state="waiting").count() == 3

    def round_() -> bool:
        gate.open()
        hand.dispatch()
        hand.work()
        return all_done()

    until(round_, 30)
    assert gate.most == 3
    assert {(one.status, one.attempt) for user in users for one in requests_of(user)} == {("succeeded", 1)}


def test_of_a_deep_queue_one_message_is_fetched_for_each(
    hand: Hand, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn ends with its head; the rest would be brought in vain."""
    ahead: list[int] = []
    real = Fetcher.open_sources

    def note(fetcher: Fetcher, wanted: list[tuple[str, int]]) -> list[Source]:
        ahead.extend(count for _, count in wanted)
        return real(fetcher, wanted)

    monkeypatch.setattr(Fetcher, "open_sources", note)
    submit(new_user(), *["wait"] * 300, kind="test.async")
    hand.dispatch()
    for _ in range(2):
        until(lambda: hand.work() or gate.waiting)
        gate.open()
        until(lambda: not gate.waiting)
    assert set(ahead) == {1}


def test_a_limit_of_their_kind_holds_across_them(hand: Hand, gate: Gate) -> None:
    with kinds.kept():
        handlers.handler("test.async.two", max_concurrency=2)(kinds.run_script_on_the_loop)
        deployment.declare()
        users = [new_user() for _ in range(5)]
        for user in users:
            submit(user, "wait", kind="test.async.two")

        def round_() -> bool:
            hand.dispatch()
            hand.work()
            if len(gate.waiting) == 2 or UserQueue.objects.exclude(state="idle").count() == 1:
                gate.open()
            return all_done()

        until(round_, 30)
    assert gate.most == 2
    assert {(one.status, one.attempt) for user in users for one in requests_of(user)} == {("succeeded", 1)}


def test_one_whose_row_is_locked_keeps_no_other_from_being_recorded(hand: Hand, gate: Gate) -> None:
    locked, other = new_user(), new_user()
    for user in (locked, other):
        submit(user, "wait", kind="test.async")
    hand.dispatch()
    hand.work()
    until(lambda: len(gate.waiting) == 2)
    with transaction.atomic():
        UserQueue.objects.select_for_update().get(user=locked)
        gate.open()
        until(lambda: statuses_of(other) == ["succeeded"])
        assert statuses_of(locked) == ["queued"]
    until(all_done)
    assert attempts_of(requests_of(locked)[0]) == []


def test_outcomes_outlive_the_connection_that_records_them(hand: Hand, gate: Gate) -> None:
    first, second = new_user(), new_user()
    for user in (first, second):
        submit(user, "wait", kind="test.async")
        hand.dispatch()
        hand.work()
        until(lambda: gate.waiting)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND datname = current_database()"
            )
        gate.open()
        until(all_done, 20)
    assert {(one.status, one.attempt) for user in (first, second) for one in requests_of(user)} == {("succeeded", 1)}


def test_they_keep_their_leases(hand: Hand, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.ENV, "lease_seconds", 2)
    user = new_user()
    submit(user, "wait", kind="test.async")
    hand.dispatch()
    hand.work()
    before = queue_of(user).lease_until
    until(lambda: time.monotonic() and queue_of(user).lease_until > before)
    gate.open()
    until(all_done)
