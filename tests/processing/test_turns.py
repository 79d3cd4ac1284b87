"""One turn of one user's queue: what a handler does, and what becomes of its request and of the ones behind it."""

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, connections
from django.utils import timezone

from processing.broker.fetcher import Source
from processing.broker.rabbitmq import queue_name
from processing.handlers import HandlerRequest, Reject, RetryLater
from processing.worker import attempt, drain, recorder
from processing.worker import turn as turns
from processing.worker.drain import drain_queue
from processing.worker.turn import Turn
from project.postgresql.limits import Limits, of_role
from queues.lifecycle import control
from queues.lifecycle import lease as leases
from queues.lifecycle.lease import WORKERS
from queues.models import Attempt, UserQueue
from tests.processing.crew import (
    Hand,
    attempts_of,
    elsewhere,
    new_user,
    queue_of,
    requests_of,
    statuses_of,
    submit,
    until,
)

Script = Callable[..., Any]


def test_a_request_is_run_and_its_result_kept(hand: Hand, script: Script) -> None:
    @script
    def answer(request: HandlerRequest) -> Any:
        return {"sequence": request.sequence, "attempt": request.attempt}

    user = new_user()
    submit(user, "answer", "answer")
    hand.settle()
    assert [r.result for r in requests_of(user)] == [{"sequence": n, "attempt": 1} for n in (1, 2)]
    assert statuses_of(user) == ["succeeded", "succeeded"]


@pytest.mark.parametrize("wrong", [timedelta(days=1), timedelta(days=-1)])
def test_a_wrong_clock_on_a_worker_changes_nothing(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch, wrong: timedelta
) -> None:
    leases = []

    @script
    def once_more(request: HandlerRequest) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT lease_until - clock_timestamp() FROM queues_userqueue WHERE state = 'draining'")
            leases.extend(left for (left,) in cursor.fetchall())
        if request.attempt == 1:
            raise RuntimeError("not yet")
        return 1

    before = database_now()
    right = time.time, timezone.now
    monkeypatch.setattr(time, "time", lambda: right[0]() + wrong.total_seconds())
    monkeypatch.setattr(timezone, "now", lambda: right[1]() + wrong)
    user = new_user()
    submit(user, "once_more")
    hand.settle()
    after = database_now()
    assert len(leases) == 2
    assert all(timedelta(0) < left <= timedelta(seconds=settings.ENV.lease_seconds) for left in leases)
    (request,) = requests_of(user)
    first, second = Attempt.objects.filter(request=request).order_by("number")
    moments = [before, first.started_at, first.finished_at, second.started_at, second.finished_at, after]
    assert moments == sorted(moments), "all of them by the database's clock"
    assert request.finished_at == second.finished_at


def database_now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    return now


# Failure


def test_a_failed_attempt_is_tried_again_at_the_head_and_holds_no_thread(hand: Hand, script: Script) -> None:
    begun = []

    @script
    def flaky(request: HandlerRequest) -> int:
        begun.append((request.sequence, request.attempt))
        if request.sequence == 1 and request.attempt < 3:
            raise RuntimeError("not yet")
        return request.sequence

    user = new_user()
    submit(user, "flaky", "flaky")
    hand.dispatch()
    assert hand.work() == 1, "the worker is free again, and no token is under way"
    assert queue_of(user).state == "waiting"
    assert statuses_of(user) == ["retrying", "queued"]
    hand.settle()
    assert begun == [(1, 1), (1, 2), (1, 3), (2, 1)]
    first, second = requests_of(user)
    assert attempts_of(first) == [(1, "failed"), (2, "failed"), (3, "succeeded")]
    assert attempts_of(second) == [], "succeeded at once: its own row says all"
    assert first.attempt == 3
    assert [a.error["message"] for a in Attempt.objects.filter(request=first, outcome="failed")] == ["not yet"] * 2


@pytest.mark.usefixtures("fine")
def test_after_its_last_attempt_a_request_is_failed_and_the_next_one_runs(hand: Hand, script: Script) -> None:
    @script
    def hopeless(request: HandlerRequest) -> int:
        raise RuntimeError("never")

    user = new_user()
    submit(user, "hopeless", "fine")
    hand.settle()
    assert statuses_of(user) == ["failed", "succeeded"]
    first = requests_of(user)[0]
    assert attempts_of(first) == [(1, "failed"), (2, "failed"), (3, "failed")]
    assert first.error["type"] == "RuntimeError"


def test_a_rejected_request_gets_no_other_attempt(hand: Hand, script: Script) -> None:
    @script
    def never(request: HandlerRequest) -> None:
        raise Reject("no such customer")

    user = new_user()
    submit(user, "never")
    hand.settle()
    (request,) = requests_of(user)
    assert (request.status, request.attempt, request.error["message"]) == ("failed", 1, "no such customer")
    assert attempts_of(request) == [(1, "rejected")]


def test_a_handler_chooses_when_it_is_tried_again(hand: Hand, script: Script) -> None:
    @script
    def later(request: HandlerRequest) -> int:
        if request.attempt == 1:
            raise RetryLater(3600, "the other side is closed")
        return 1

    user = new_user()
    submit(user, "later")
    hand.dispatch()
    hand.work()
    queue = queue_of(user)
    assert queue.wake_at is not None
    assert timedelta(minutes=59) < queue.wake_at - timezone.now() <= timedelta(hours=1)
    assert attempts_of(requests_of(user)[0]) == [(1, "postponed")]


@pytest.mark.parametrize("seconds", [1e300, float("inf"), float("nan"), 10**12])
def test_an_absurd_delay_is_still_a_recorded_attempt(hand: Hand, script: Script, seconds: float) -> None:
    @script
    def later(request: HandlerRequest) -> None:
        raise RetryLater(seconds)

    user = new_user()
    submit(user, "later")
    hand.dispatch()
    hand.work()
    assert queue_of(user).state == "waiting"
    assert statuses_of(user) == ["retrying"]


@pytest.mark.usefixtures("fine")
def test_a_blocking_kind_stops_the_queue_until_somebody_decides(hand: Hand, script: Script) -> None:
    @script
    def refused(request: HandlerRequest) -> None:
        raise RuntimeError("refused")

    user = new_user()
    submit(user, "refused", kind="test.block")
    submit(user, "fine")
    hand.dispatch()
    hand.work()
    hand.dispatch()
    assert hand.work() == 0
    assert queue_of(user).state == "blocked"
    assert statuses_of(user) == ["retrying", "queued"]
    control.skip(requests_of(user)[0].id)
    hand.settle()
    assert statuses_of(user) == ["failed", "succeeded"]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("nothing can be said of it")


def leaves_by(error: BaseException) -> Callable[[HandlerRequest], Any]:
    def leave(request: HandlerRequest) -> Any:
        raise error

    return leave


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize(
    "ends",
    [
        pytest.param(leaves_by(SystemExit(1)), id="SystemExit"),
        pytest.param(leaves_by(KeyboardInterrupt()), id="KeyboardInterrupt"),
        pytest.param(leaves_by(GeneratorExit()), id="GeneratorExit"),
        pytest.param(leaves_by(RuntimeError("x" * 5_000_000)), id="a message of 5 MB"),
        pytest.param(leaves_by(FileNotFoundError("caf\udce9\x00")), id="a surrogate and NUL in the message"),
        pytest.param(leaves_by(Unspeakable()), id="a message that raises"),
        pytest.param(lambda _: object(), id="a result that is no JSON"),
        pytest.param(lambda _: "\ud800", id="a surrogate in the result"),
        pytest.param(lambda _: "x" * 3_000_000, id="a result beyond the limit"),
        pytest.param(lambda _: 2**70, id="a number beyond 64 bits"),
    ],
)
def test_whatever_a_handler_does_its_attempt_is_recorded_and_the_thread_goes_on(
    hand: Hand, script: Script, ends: Callable[[HandlerRequest], Any]
) -> None:
    @script
    def bad(request: HandlerRequest) -> Any:
        return ends(request)

    user, other = new_user(), new_user()
    submit(user, "bad", kind="test.once")
    submit(user, "fine")
    submit(other, "fine")
    hand.settle()
    assert statuses_of(user) == ["failed", "succeeded"]
    assert statuses_of(other) == ["succeeded"]
    error = requests_of(user)[0].error
    assert set(error) == {"type", "message", "at"}
    assert len(error["message"]) <= 2000


def test_a_result_comes_back_to_the_letter(hand: Hand, script: Script) -> None:
    result = {"b": 1, "a": "nul \x00, é, \U0001f600", "number": 1e300, "deep": [[[[]]]]}

    @script
    def letters(request: HandlerRequest) -> Any:
        return result

    user = new_user()
    submit(user, "letters")
    hand.settle()
    (request,) = requests_of(user)
    assert request.result == result
    assert list(request.result) == list(result)


def test_a_kind_whose_handler_is_gone_waits_for_a_deploy(hand: Hand) -> None:
    user = new_user()
    submit(user, "anything", kind="test.gone")
    hand.dispatch()
    hand.work()
    queue = queue_of(user)
    assert queue.state == "waiting"
    assert queue.wake_at is not None
    assert queue.wake_at - timezone.now() > timedelta(seconds=20)
    assert requests_of(user)[0].error["type"] == "NoHandler"


# Time


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


def test_a_request_that_was_cancelled_or_expired_before_its_turn_is_not_run(hand: Hand, script: Script) -> None:
    ran = []

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.sequence)

    user = new_user()
    submit(user, "note", "note")
    submit(user, "note", expires_at=timezone.now() - timedelta(seconds=1))
    submit(user, "note")
    control.cancel(requests_of(user)[1].id)
    hand.settle()
    assert ran == [1, 4]
    assert statuses_of(user) == ["succeeded", "cancelled", "expired", "succeeded"]


def test_a_turn_ends_after_its_time_so_that_others_come_first(
    hand: Hand, script: Script, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "turn_seconds", 0.1)
    began = []

    @script
    def slow(request: HandlerRequest) -> None:
        time.sleep(0.03)

    @script
    def quiet(request: HandlerRequest) -> None:
        began.append(time.monotonic())

    alice, bob = new_user(), new_user()
    submit(alice, *["slow"] * 40)
    hand.dispatch()
    submit(bob, "quiet")
    hand.dispatch()
    sent = time.monotonic()
    hand.work()
    assert began[0] - sent < 0.1 + 0.03 + 0.3, "bob waited for more than one of alice's turns"
    assert queue_of(alice).done_seq >= 1
    hand.settle()


def test_a_turn_ends_after_so_many_requests(hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.ENV, "turn_requests", 10)

    @script
    def fine(request: HandlerRequest) -> None:
        return None

    user = new_user()
    submit(user, *["fine"] * 25)
    hand.dispatch()
    assert hand.work(turns=1) == 1
    assert queue_of(user).done_seq == 10
    until(lambda: hand.wire.tokens() == 1, 5, "the token did not go to the tail")
    hand.settle()
    assert queue_of(user).fence == 3


def test_a_turn_receives_no_message_that_it_will_not_run(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would go back to RabbitMQ, and come once more."""
    monkeypatch.setattr(settings.ENV, "turn_requests", 150)

    @script
    def fine(request: HandlerRequest) -> None:
        return None

    user = new_user()
    submit(user, *["fine"] * 400)
    hand.dispatch()
    assert hand.work(turns=1) == 1
    assert queue_of(user).done_seq == 150
    channel, name = hand.wire.open(), queue_name(queue_of(user).id)
    assert hand.wire.depth(name) == 250
    returned = [channel.basic_get(name)[0].redelivered for _ in range(250)]
    assert not any(returned)
    hand.wire.close()
    hand.settle()
    assert statuses_of(user) == ["succeeded"] * 400


@pytest.mark.usefixtures("fine")
def test_more_than_was_ahead_streams_on_without_a_pause(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "ACK_DUPLICATES", 5)
    monkeypatch.setattr(settings.ENV, "turn_seconds", 60)
    monkeypatch.setattr("processing.broker.fetcher.STREAM_SECONDS", 10)  # however busy RabbitMQ is
    user = new_user()
    ran: list[int] = []
    get, run_one = Source._get, Turn._run_one
    asked: list[str] = []

    def more(turn: Turn, work: Any) -> Any:
        ran.append(work.seq)
        if work.seq == 5:
            submit(user, *["fine"] * 300)
            while hand.dispatcher.dispatch_next():
                continue
        return run_one(turn, work)

    monkeypatch.setattr(Turn, "_run_one", more)
    monkeypatch.setattr(Source, "_get", lambda source: asked.append(source.name) or get(source))
    submit(user, *["fine"] * 20)
    hand.dispatch()
    assert hand.work(turns=1) == 1
    assert queue_of(user).done_seq == 320
    assert asked == [], "nothing came for a while"


def test_a_paused_queue_starts_nothing_and_goes_on_when_resumed(hand: Hand, script: Script) -> None:
    ran = []

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.sequence)
        if request.sequence == 2:
            UserQueue.objects.filter(user=user).update(paused=True)

    user = new_user()
    submit(user, *["note"] * 400)
    hand.dispatch()
    hand.work()
    stopped_at = len(ran)
    assert stopped_at < 400, "what was claimed together may be finished together, no more"
    hand.wire.put_token(queue_of(user).id)
    hand.work()
    assert len(ran) == stopped_at, "a token does not start it"
    submit(user, "note")
    hand.dispatch()
    hand.work()
    assert len(ran) == stopped_at
    control.resume(queue_of(user).id)
    hand.settle()
    assert ran == list(range(1, 402))


# The watch


def test_the_watch_outlives_a_connection_that_dies_while_it_records(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was about to record is kept: a number that moved without its outcome would be a lost request."""

    @script
    def fast(request: HandlerRequest) -> int:
        return request.sequence

    @script
    def slow(request: HandlerRequest) -> int:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s"
                " AND objid = %s",
                [WORKERS, drain.watch.holder],
            )
        time.sleep(0.1)
        return request.sequence

    user = new_user()
    submit(user, *["fast"] * 6, "slow", *["fast"] * 3)
    hand.settle()
    assert [(r.seq, r.status, r.result) for r in requests_of(user)] == [(n, "succeeded", n) for n in range(1, 11)]
    until(lambda: drain.watch.wait_until_known(0), 5, "the lock is taken again")


def test_a_turn_is_watched_at_once_whenever_it_begins(watch: Any) -> None:
    """`add` between the watch's look at its turns and its going to rest must not put it to rest."""

    class Looked:
        looks = 0

        def check(self) -> None:
            self.looks += 1

        def looked(self, often: int) -> bool:
            return self.looks >= often

        def renewals(self) -> list[Any]:
            return []

        def abandon(self) -> None: ...

    for _ in range(30):
        turn = Looked()
        watch.add(turn)
        until(partial(turn.looked, 2), 0.5, "the watch sleeps although there is a turn")
        watch.remove(turn)
        time.sleep(0.01)


def test_one_turn_that_cannot_be_looked_after_does_not_end_the_watch(watch: Any) -> None:
    class Broken:
        lease = SimpleNamespace(queue_id=0)

        def check(self) -> None:
            raise TypeError("a defect")

        def renewals(self) -> list[Any]:
            return []

        def abandon(self) -> None: ...

    class Looked:
        looks = 0

        def check(self) -> None:
            self.looks += 1

        def renewals(self) -> list[Any]:
            return []

        def abandon(self) -> None: ...

    broken, turn = Broken(), Looked()
    watch.add(broken)
    watch.add(turn)
    until(lambda: turn.looks > 3, 2, "the watch has died")
    watch.remove(turn)
    watch.remove(broken)


@pytest.mark.usefixtures("fine")
def test_a_stopping_worker_takes_no_turn_and_loses_no_token(hand: Hand) -> None:
    user = new_user()
    submit(user, "fine")
    hand.dispatch()
    run = hand.wire.get_token()
    assert run is not None
    drain.watch.stopping.set()
    run()
    assert statuses_of(user) == ["queued"]
    until(hand.wire.tokens, 2, "the token is lost: the queue waits for the sweeper")


@pytest.mark.usefixtures("fine")
def test_a_turn_with_a_defect_leaves_nothing_to_the_next_one(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader may still consume the one user's queue: another user's turn must not be given its messages."""

    alice, bob = new_user(), new_user()
    submit(alice, *["fine"] * 40)
    submit(bob, *["fine"] * 40)
    hand.dispatch()
    real = Turn._run_one

    def defective(turn: Turn, work: Any) -> Any:
        if turn.lease.user_id == alice.id and work.seq == 8:
            raise ZeroDivisionError("a defect")
        return real(turn, work)

    monkeypatch.setattr(Turn, "_run_one", defective)
    with pytest.raises(ZeroDivisionError):
        hand.work(1)
    assert hand.work(1) == 1
    assert queue_of(bob).done_seq == 40
    assert queue_of(bob).fence == 1


def test_only_one_of_many_tokens_gives_a_turn(hand: Hand, script: Script) -> None:
    running, most = threading.Semaphore(0), []
    lock = threading.Lock()
    count = 0

    @script
    def alone(request: HandlerRequest) -> None:
        nonlocal count
        with lock:
            count += 1
            most.append(count)
        time.sleep(0.01)
        with lock:
            count -= 1

    user = new_user()
    submit(user, *["alone"] * 10)
    hand.dispatch()
    queue_id = queue_of(user).id
    threads = [threading.Thread(target=lambda: elsewhere_drain(queue_id)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    hand.settle()
    assert most == [1] * 10
    del running


def elsewhere_drain(queue_id: int) -> None:
    from tests.processing.crew import forget_reader

    try:
        drain_queue(queue_id)
    finally:
        forget_reader()
        connection.close()


@pytest.mark.usefixtures("fine")
def test_claims_grow_while_handlers_are_fast_however_slow_rabbitmq_is(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine everything takes long; to record one by one then would make it busier still."""

    monkeypatch.setattr(settings.ENV, "turn_seconds", 60)
    user = new_user()
    submit(user, *["fine"] * 60)
    hand.dispatch()
    sizes: list[int] = []
    next_size, has_message = Turn._next_size, Turn._has_message

    def noted(turn: Turn) -> int:
        sizes.append(next_size(turn))
        return sizes[-1]

    def slowly(turn: Turn, seq: int) -> bool:
        time.sleep(0.006)  # RabbitMQ's share of a request; handlers that took so long would not be fast
        return has_message(turn, seq)

    monkeypatch.setattr(Turn, "_next_size", noted)
    monkeypatch.setattr(Turn, "_has_message", slowly)
    hand.work(1)
    assert queue_of(user).done_seq == 60
    assert max(sizes) > 16, sizes


def test_requests_begin_one_after_another_however_late_the_answer_to_the_lease_was(
    hand: Hand, fine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = leases.take_together

    def late(*values: Any) -> Any:
        taken, left_out = take(*values)
        for lease in taken:
            lease.received += 0.5  # as if the answer had been so long on its way
        return taken, left_out

    monkeypatch.setattr(leases, "take_together", late)
    user = new_user()
    submit(user, *["fine"] * 20)
    hand.settle()
    began = [request.started_at for request in requests_of(user)]
    assert began == sorted(began)
