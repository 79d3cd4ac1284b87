"""A handler has its kind's time; whoever is slow keeps nobody's outcome waiting."""

import threading
import time

import pytest
from django.db import OperationalError, connection, connections

from processing.handlers import HandlerRequest
from processing.worker import attempt, recorder
from processing.worker.turn import Turn
from processing.worker.watchdog import Watchdog
from project.postgresql.limits import Limits, of_role
from queues.lifecycle import control
from queues.models import Attempt
from tests.processing.conftest import Script
from tests.processing.crew import Hand, attempts_of, elsewhere, new_user, queue_of, requests_of, statuses_of, submit
from tests.waiting import until


def test_a_handler_that_overruns_its_time_limit_is_stopped_and_counted(hand: Hand, script: Script) -> None:
    @script
    def slow(request: HandlerRequest) -> int:
        began = time.monotonic()
        while request.attempt == 1 and time.monotonic() - began < 20:
            time.sleep(0.001)
        return 1

    user = new_user()
    submit(user, "slow", kind="test.limited")
    began = time.monotonic()
    hand.settle()
    assert time.monotonic() - began < 5
    (request,) = requests_of(user)
    assert attempts_of(request) == [(1, "timed_out"), (2, "succeeded")]
    first = Attempt.objects.get(request=request, number=1)
    assert first.error["message"] == "The handler overran its time limit of 0.2 s."


def test_a_time_limit_holds_while_postgresql_is_away(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, stopped = threading.Event(), threading.Event()
    took: list[float] = []
    check = Watchdog._check_all

    def away(watch: Watchdog) -> None:
        if runs.is_set() and not stopped.is_set():
            raise OperationalError("the server is away")
        check(watch)

    @script
    def slow(request: HandlerRequest) -> int:
        began = time.monotonic()
        if request.attempt == 1:
            runs.set()
        try:
            while request.attempt == 1 and time.monotonic() - began < 20:
                time.sleep(0.001)
        finally:
            took.append(time.monotonic() - began)
            stopped.set()
        return 1

    monkeypatch.setattr(Watchdog, "_check_all", away)
    user = new_user()
    submit(user, "slow", kind="test.limited")
    hand.settle()
    assert took[0] < 5
    (request,) = requests_of(user)
    assert attempts_of(request) == [(1, "timed_out"), (2, "succeeded")]


def test_a_time_limit_hits_nobody_but_the_handler_that_overran_it(hand: Hand, script: Script) -> None:
    """Handlers that end just when their limit is reached: the exception arrives late, or never."""

    @script
    def just_in_time(request: HandlerRequest) -> int:
        until_ = time.monotonic() + 0.2 + (request.sequence - 6) * 0.003
        while time.monotonic() < until_:
            pass
        return 1

    user = new_user()
    submit(user, *["just_in_time"] * 12, kind="test.limited")
    hand.settle(40)
    found = requests_of(user)
    assert [r.seq for r in found] == list(range(1, 13))
    assert {r.status for r in found} <= {"succeeded", "failed"}
    assert {o for r in found for _, o in attempts_of(r)} <= {"timed_out", "succeeded"}


def test_a_statement_that_overruns_is_counted_and_leaves_a_usable_connection(hand: Hand, script: Script) -> None:
    @script
    def sleepy(request: HandlerRequest) -> int:
        if request.attempt == 1:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(0.6)")
        return 1

    user = new_user()
    submit(user, "sleepy", "sleepy", kind="test.limited")
    hand.settle()
    assert [attempts_of(r) for r in requests_of(user)] == [[(1, "timed_out"), (2, "succeeded")]] * 2


@pytest.mark.parametrize("kind", ["test.script", "test.atomic"])
def test_a_handlers_own_statements_have_its_kinds_time_and_no_less(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    short = Limits(0.3, 0.3, 0.3)
    monkeypatch.setattr(attempt, "of_role", lambda: short)
    monkeypatch.setattr(connections["default"], "wanted", short)

    @script
    def thorough(request: HandlerRequest) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1)")
        return 1

    user = new_user()
    submit(user, "thorough", kind=kind)
    hand.settle()
    assert [attempts_of(r) for r in requests_of(user)] == [[]]
    assert statuses_of(user) == ["succeeded"]
    monkeypatch.undo()
    connections["default"].wanted = of_role()  # type: ignore[attr-defined]
    connection.close()


def test_finished_work_is_recorded_while_a_slow_handler_runs(hand: Hand, script: Script) -> None:
    waited = []

    @script
    def fast(request: HandlerRequest) -> int:
        return 1

    @script
    def slow(request: HandlerRequest) -> int:
        began = time.monotonic()
        until(lambda: queue_of(user).done_seq == request.sequence - 1, 5)
        waited.append(time.monotonic() - began)
        return 1

    user = new_user()
    submit(user, *["fast"] * 6, "slow", "fast")
    hand.settle()
    assert statuses_of(user) == ["succeeded"] * 8
    print(f"recorded {waited[0] * 1000:.0f} ms after the slow handler began (20 ms and the watch's tick)")
    assert waited[0] < 0.3


@pytest.mark.usefixtures("fine")
def test_nothing_is_claimed_beside_a_slow_handler(hand: Hand, script: Script) -> None:
    """What waits behind it can be taken away at once, wherever it stands in its claim."""

    @script
    def slow(request: HandlerRequest) -> int:
        until(lambda: elsewhere(lambda: queue_of(user).claimed) == 1, 5, "others are still claimed")
        elsewhere(lambda: control.purge(queue_of(user).id))
        return 1

    user = new_user()
    submit(user, "fine", "slow", *["fine"] * 10)
    hand.dispatch()
    hand.settle()
    assert statuses_of(user) == ["succeeded"] * 2 + ["cancelled"] * 10


@pytest.mark.usefixtures("fine")
def test_claims_follow_what_ran_not_what_was_claimed(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    next_size = Turn._next_size

    @script
    def slow(request: HandlerRequest) -> int:
        until(lambda: elsewhere(lambda: queue_of(user).claimed) == 1, 5)
        return 1

    def noted(turn: Turn) -> int:
        sizes.append(next_size(turn))
        return sizes[-1]

    monkeypatch.setattr(Turn, "_next_size", noted)
    user = new_user()
    submit(user, "fine", "slow", *["fine"] * 30)
    hand.dispatch()
    hand.work(1)
    assert sizes[0] > 16
    assert sizes[1] == 1


def test_an_owner_who_gives_up_is_heard_by_the_running_handler(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "RENEW_SECONDS", 0.05)

    @script
    def patient(request: HandlerRequest) -> str:
        control.cancel(request.id)
        until(lambda: request.cancelled, 5)
        return "as far as I came"

    @script
    def fine(request: HandlerRequest) -> bool:
        return request.cancelled

    user = new_user()
    submit(user, "patient", "fine")
    hand.settle()
    first, second = requests_of(user)
    assert (first.status, first.result) == ("cancelled", "as far as I came")
    assert (second.status, second.result) == ("succeeded", False)
