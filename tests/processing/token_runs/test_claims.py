"""What is claimed next, with a record or beside a handler: where that fails, nobody waits for the sweeper."""

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

from processing.broker import tokens
from processing.handlers import HandlerRequest
from processing.worker import paces, recorder, watchdog
from processing.worker.drain import drain_queues
from processing.worker.turn import Turn
from queues.lifecycle import control
from queues.lifecycle import lease as leases
from queues.lifecycle.lease import Lease
from queues.models import UserQueue
from tests.processing.conftest import Script
from tests.processing.crew import Hand, elsewhere, new_user, queue_of, requests_of, statuses_of, submit
from tests.processing.frozen import ITS_REQUESTS, frozen
from tests.processing.token_runs.conftest import ids_of
from tests.waiting import until


@pytest.mark.usefixtures("undisturbed", "fine")
def test_a_claim_that_fails_keeps_no_queue_without_a_token(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was recorded just before, one queue is ready and another was to go on."""
    claimed, init = leases.claimed, Turn.__init__

    def lost(claims: Any) -> Any:
        monkeypatch.setattr(leases, "claimed", claimed)
        raise OperationalError("the connection was lost")

    def of_different_lengths(turn: Turn, run: Any, lease: Lease, most: int) -> None:
        init(turn, run, lease, 1 if lease.queue_id == ids[0] else most)

    users = [new_user(), new_user()]
    for user in users:
        submit(user, "fine", "fine", "fine")
    hand.dispatch()
    hand.wire.purge(tokens.token_queue())
    ids = ids_of(users)
    monkeypatch.setattr(Turn, "__init__", of_different_lengths)
    monkeypatch.setattr(leases, "claimed", lost)
    monkeypatch.setattr("processing.worker.turn.FEW", 0)  # however few they are, they are read
    drain_queues(ids)
    assert [(queue_of(user).state, queue_of(user).done_seq) for user in users] == [("ready", 1), ("waiting", 1)]
    until(lambda: hand.wire.tokens() == 1, 2, "the sweeper has to find it")
    hand.settle()
    assert [request.attempt for user in users for request in requests_of(user)] == [1] * 6


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
