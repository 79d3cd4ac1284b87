"""`async def` handlers that nothing ends, and processes that end before they do."""

import asyncio
import threading

import pytest

from accounts.models import User
from processing.handlers import HandlerRequest
from processing.worker.coroutines import run as coroutine_run
from processing.worker.coroutines.run import CoroutineRun
from processing.worker.watchdog import Watchdog
from queues.models import Attempt
from tests.processing.conftest import Script
from tests.processing.coroutines.conftest import Gate
from tests.processing.crew import Hand, all_done, attempts_of, new_user, queue_of, requests_of, statuses_of, submit
from tests.waiting import until


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coroutine_run, "UNINTERRUPTIBLE_SECONDS", 0.6)


@pytest.mark.usefixtures("_impatient")
def test_one_that_goes_on_after_its_time_is_given_up_with_its_process(
    hand: Hand, script: Script, gate: Gate, watch: Watchdog
) -> None:
    ends = threading.Event()

    @script
    async def stubborn(request: HandlerRequest) -> None:
        while not ends.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    user, other = new_user(), new_user()
    submit(user, "stubborn", kind="test.async.limited")
    submit(other, "wait", kind="test.async")
    hand.dispatch()
    hand.work()
    assert watch._end_process.wait(10)
    until(lambda: [attempts_of(one) for one in requests_of(user)] == [[(1, "timed_out")]])
    ends.set()
    gate.open()
    until(lambda: statuses_of(other) == ["succeeded"], why="the others have their grace time")
    assert len(attempts_of(requests_of(user)[0])) == 1


def blocked_beside_one_that_is_late(hand: Hand, gate: Gate) -> tuple[User, User]:
    """The loop is blocked by the first one's handler; the second one's waits, and its time will be over."""
    guilty, late = new_user(), new_user()
    submit(late, "wait", kind="test.async.limited")
    hand.dispatch()
    hand.work()
    until(lambda: gate.waiting)
    submit(guilty, "blocks", kind="test.async")
    hand.dispatch()
    hand.work()
    return guilty, late


@pytest.mark.usefixtures("_impatient")
def test_who_blocks_the_loop_is_given_up_and_no_neighbour_of_his(
    hand: Hand, script: Script, gate: Gate, watch: Watchdog
) -> None:
    ends = threading.Event()

    @script
    async def blocks(request: HandlerRequest) -> None:
        ends.wait(20)

    guilty, _ = blocked_beside_one_that_is_late(hand, gate)
    assert watch._end_process.wait(10)
    ends.set()
    (attempt,) = Attempt.objects.filter(request=requests_of(guilty)[0])
    assert attempt.outcome == "timed_out"
    assert "ends.wait(20)" in attempt.traceback
    assert "blocked its event loop" in attempt.error["message"]
    gate.open()


@pytest.mark.usefixtures("_impatient")
def test_who_blocks_the_loop_in_a_task_that_he_made_is_found(
    hand: Hand, script: Script, gate: Gate, watch: Watchdog
) -> None:
    ends = threading.Event()

    async def child() -> None:
        await asyncio.sleep(0)
        ends.wait(20)

    @script
    async def blocks(request: HandlerRequest) -> None:
        await asyncio.gather(child(), asyncio.sleep(0))

    guilty, late = blocked_beside_one_that_is_late(hand, gate)
    assert watch._end_process.wait(10)
    assert attempts_of(requests_of(late)[0]) == [], "somebody else is given up for it"
    ends.set()
    (attempt,) = Attempt.objects.filter(request=requests_of(guilty)[0])
    assert attempt.outcome == "timed_out"
    assert "ends.wait(20)" in attempt.traceback
    assert "asyncio" not in attempt.traceback
    gate.open()


def test_where_no_event_loop_can_be_had_nothing_is_half_begun(
    hand: Hand, gate: Gate, on_loop: CoroutineRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise RuntimeError("can't start new thread")

    user = new_user()
    submit(user, "wait", kind="test.async")
    hand.dispatch()
    with monkeypatch.context() as patch:
        patch.setattr(coroutine_run, "event_loop", refused)
        with pytest.raises(RuntimeError):
            hand.work()
        assert not on_loop._attempts
    until(lambda: queue_of(user).state == "ready", why="its lease is not given back")
    assert requests_of(user)[0].attempt == 0
    hand.wire.put_token(queue_of(user).id)
    hand.work()
    until(lambda: gate.waiting)
    gate.open()
    until(all_done)


def test_a_process_that_ends_gives_them_back_with_no_attempt_counted(hand: Hand, gate: Gate, watch: Watchdog) -> None:
    users = [new_user() for _ in range(5)]
    for user in users:
        submit(user, "wait", kind="test.async")
    hand.dispatch()
    hand.work()
    until(lambda: len(gate.waiting) == len(users))
    assert not watch.stop(0.1)
    assert {queue_of(user).state for user in users} == {"waiting"}
    assert {(one.attempt, one.started_at is not None) for user in users for one in requests_of(user)} == {(0, True)}
    gate.open()
    until(lambda: not gate.waiting)
    assert {one.status for user in users for one in requests_of(user)} == {"queued"}, "it wrote beside the next holder"


def test_a_process_that_ends_lets_them_finish(hand: Hand, gate: Gate, watch: Watchdog) -> None:
    user = new_user()
    submit(user, "wait", kind="test.async")
    hand.dispatch()
    hand.work()
    until(lambda: gate.waiting)
    threading.Timer(0.2, gate.open).start()
    assert watch.stop(20)
    assert statuses_of(user) == ["succeeded"]
