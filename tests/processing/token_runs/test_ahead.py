"""What is recorded and claimed beside a handler that takes some ms: whatever comes in between, nobody is misled."""

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from processing.handlers import HandlerRequest
from processing.worker import drain, paces, recorder, watchdog
from processing.worker.drain import drain_queues
from processing.worker.outcomes import Ending
from processing.worker.recorder import Recording, Wanted
from processing.worker.watchdog import Ahead, recording_ahead
from queues import event_log
from queues.lifecycle import control
from queues.lifecycle.lease import Lease
from queues.lifecycle.recovery import recover
from queues.models import UserQueue
from queues.states import AttemptOutcome, QueueState, Status
from queues.values import Outcome, Work
from tests.processing.conftest import Script
from tests.processing.crew import Hand, elsewhere, new_user, queue_of, requests_of, statuses_of, submit
from tests.processing.frozen import ITS_REQUESTS, QUEUE, frozen
from tests.processing.token_runs.test_faults import drain_and_close
from tests.waiting import until


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that recorded outcomes of one queue, in order."""
    record, names = recorder.record, []

    def noted(wanted: Any, patience: float, **more: Any) -> Any:
        names.extend(threading.current_thread().name for one in wanted if one.recording.passed)
        return record(wanted, patience, **more)

    monkeypatch.setattr(recorder, "record", noted)
    monkeypatch.setattr(watchdog, "record", noted)
    return names


@pytest.fixture
def meanwhile() -> dict[int, Callable[[], object]]:
    """What happens while the handler of which request runs."""
    return {}


@pytest.fixture
def ran(
    monkeypatch: pytest.MonkeyPatch, script: Script, meanwhile: dict[int, Callable[[], object]]
) -> list[tuple[float, float]]:
    """When handlers "brisk" began and ended. They take 15 ms, as is known."""
    monkeypatch.setattr(paces, "_paces", {"test.script": 0.015})
    ran: list[tuple[float, float]] = []

    @script
    def brisk(request: HandlerRequest) -> int:
        began = time.monotonic()
        if request.sequence in meanwhile:
            elsewhere(meanwhile[request.sequence])
        time.sleep(0.015)
        ran.append((began, time.monotonic()))
        return request.sequence

    return ran


def test_a_brisk_handlers_thread_waits_for_no_record(
    hand: Hand, ran: list[tuple[float, float]], recorders: list[str]
) -> None:
    """The watch records what is over while the next one runs, and claims one more."""
    user = new_user()
    submit(user, *["brisk"] * 20)
    hand.dispatch()
    drain_queues([queue_of(user).id])
    assert [(one.status, one.result, one.attempt) for one in requests_of(user)] == [
        ("succeeded", number, 1) for number in range(1, 21)
    ]
    times = [(one.started_at, one.finished_at) for one in requests_of(user)]
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(times))
    assert recorders.count("watch") > recorders.count(threading.current_thread().name)


@pytest.mark.parametrize("what", ["paused", "fenced out"])
def test_nothing_begins_that_was_not_claimed_before(
    hand: Hand,
    ran: list[tuple[float, float]],
    recorders: list[str],
    meanwhile: dict[int, Callable[[], object]],
    what: str,
) -> None:
    """A queue that is paused, or another worker's, while the watch claims beside a handler."""
    user = new_user()
    submit(user, *["brisk"] * 20)
    hand.dispatch()
    queue = queue_of(user)
    found = UserQueue.objects.filter(id=queue.id)
    meanwhile[5] = {
        "paused": lambda: control.pause(queue.id),
        "fenced out": lambda: found.update(fence=queue.fence + 100),
    }[what]
    drain_queues([queue.id])
    assert "watch" in recorders
    assert 5 <= len(ran) <= 7
    assert queue_of(user).done_seq == (len(ran) if what == "paused" else pytest.approx(4, abs=1))


def test_what_a_locked_request_refuses_beside_its_handler_is_recorded_by_its_thread(
    hand: Hand, ran: list[tuple[float, float]], meanwhile: dict[int, Callable[[], object]]
) -> None:
    user = new_user()
    submit(user, *["brisk"] * 6)
    hand.dispatch()
    queue_id, locked = queue_of(user).id, threading.Event()

    def lock() -> None:
        with frozen(ITS_REQUESTS, queue_id):
            locked.set()
            released.wait(0.5)  # never set: for so long

    released = threading.Event()
    holder = threading.Thread(target=lock)
    meanwhile[3] = lambda: (holder.start(), locked.wait(10))
    drain_queues([queue_id])
    holder.join()
    assert statuses_of(user) == ["succeeded"] * 6
    assert len(ran) == 6


class Hanging:
    """A user's fifth request hangs until it is let go; what is to happen when it begins happens then."""

    def __init__(self, hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(paces, "_paces", {"test.script": 0.012})
        self.begun, self.let_go, self.ran = threading.Event(), threading.Event(), 0
        self.happens: Callable[[], object] = lambda: None

        @script
        def brisk(request: HandlerRequest) -> None:
            if request.sequence == 5:
                self.happens()
                self.begun.set()
                self.let_go.wait(20)
            else:
                time.sleep(0.012)
            self.ran += 1

        self.user = new_user()
        submit(self.user, *["brisk"] * 10)
        hand.dispatch()
        self.queue_id = queue_of(self.user).id

    def __enter__(self) -> "Hanging":
        self.thread = threading.Thread(target=lambda: drain_and_close([self.queue_id]))
        self.thread.start()
        assert self.begun.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()
        self.thread.join(20)


@pytest.fixture
def hanging(hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch) -> Hanging:
    return Hanging(hand, script, monkeypatch)


def locked_for(seconds: float, queue_id: int, after: float = 0.0) -> None:
    """Somebody has the queue's row, in a while, for a while."""
    has_it = threading.Event()

    def lock() -> None:
        time.sleep(after)
        with frozen(QUEUE, queue_id):
            has_it.set()
            time.sleep(seconds)

    threading.Thread(target=lock).start()
    assert after or has_it.wait(10)


@pytest.mark.parametrize("when", ["claiming", "leaving"])
def test_what_a_hanging_handler_keeps_waiting_can_be_purged(hanging: Hanging, when: str) -> None:
    """PostgreSQL believes for a moment that the next one runs, too: claimed beside, and given up where it hangs."""
    hanging.happens = {
        "claiming": lambda: elsewhere(lambda: control.pause(hanging.queue_id)),
        "leaving": lambda: locked_for(0.3, hanging.queue_id, after=0.014),
    }[when]
    with hanging:
        until(lambda: queue_of(hanging.user).done_seq == 4, 10)

        def purged() -> bool:
            control.purge(hanging.queue_id)
            return statuses_of(hanging.user)[5:] == ["cancelled"] * 5

        until(purged, 10, "it gives up the claim, though its handler hangs")
    assert hanging.ran == 5


def test_a_row_that_was_locked_for_a_moment_defers_no_record_for_long(hanging: Hanging) -> None:
    hanging.happens = lambda: locked_for(0.008, hanging.queue_id)
    with hanging:
        began = time.monotonic()
        until(lambda: queue_of(hanging.user).done_seq == 4, 10, "what was over before")
        assert time.monotonic() - began < watchdog.RECONCILE_SECONDS / 2  # the watch is not shut out for a second


def test_a_pause_ends_what_is_claimed_as_soon_as_something_is_recorded(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fast ones have many claimed; the ones after them take as long as outcomes may wait."""
    monkeypatch.setattr(paces, "_paces", {"test.script": 0.015})
    user, ran, ran_before = new_user(), [], []

    @script
    def brisk(request: HandlerRequest) -> None:
        time.sleep(0.001 if request.sequence < 6 else 0.019)
        ran.append(request.sequence)

    submit(user, *["brisk"] * 60)
    hand.dispatch()
    queue_id = queue_of(user).id

    def pause() -> None:
        until(lambda: len(ran) >= 8, 20)
        control.pause(queue_id)
        ran_before.extend(ran)
        connection.close()

    pausing = threading.Thread(target=pause)
    pausing.start()
    drain_queues([queue_id])
    pausing.join()
    assert len(ran) - len(ran_before) <= 4


def outcome_of(work: Work, result: str, lease: Lease) -> Outcome:
    now = lease.now()
    return Outcome(work.seq, Status.SUCCEEDED, 1, AttemptOutcome.SUCCEEDED, result, None, now, now, work)


@pytest.mark.parametrize("first", ["the lost one", "the new one"])
def test_a_lost_lease_writes_nothing_beside_the_new_one_of_its_queue(hand: Hand, fine: None, first: str) -> None:
    """Both are of one process, and recorded in one statement."""
    user = new_user()
    submit(user, *["fine"] * 5)
    hand.dispatch()
    queue_id = queue_of(user).id
    lost = Lease.take(queue_id, 1)
    assert lost is not None
    recover(queue_id, lost.fence)
    new = Lease.take(queue_id, 2)
    assert new is not None
    new.record(0, [], QueueState.DRAINING, 1)
    (work,) = new.claimed(1)
    recording = Recording(lost)
    recording.over(Ending(outcome_of(work, '"of the lost one"', lost)))
    told = {}
    with recording_ahead() as ahead:
        ahead += [
            Ahead(Wanted(recording, QueueState.DRAINING, 2), lambda kept: told.update(lost=kept)),
            Ahead(Wanted(Recording(new), QueueState.DRAINING, 1), lambda kept: told.update(new=kept)),
        ][:: 1 if first == "the lost one" else -1]
    assert told == {"lost": False, "new": True}
    assert queue_of(user).done_seq == 0
    assert statuses_of(user)[0] != "succeeded"


def test_a_defect_in_one_runs_record_ends_no_process(
    hand: Hand, ran: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [new_user(), new_user()]
    recorded, ended = event_log.recorded, threading.Event()

    def defective(lease: Any, outcomes: Any) -> None:
        if lease.user_id == users[0].id and threading.current_thread().name == "watch" and outcomes:
            raise RuntimeError("can't start new thread")
        recorded(lease, outcomes)

    monkeypatch.setattr(event_log, "recorded", defective)
    monkeypatch.setattr(drain.watch, "_end_process", ended)
    for user in users:
        submit(user, *["brisk"] * 20)
    hand.dispatch()
    runs = [threading.Thread(target=drain_and_close, args=([queue_of(user).id],)) for user in users]
    for run in runs:
        run.start()
    for run in runs:
        run.join(30)
    assert not ended.is_set()
    assert [set(statuses_of(user)) for user in users] == [{"succeeded"}] * 2
