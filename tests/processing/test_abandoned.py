"""A process that ends before its handlers do: nothing of it begins once its queues are others'."""

import threading
from collections.abc import Sequence

import pytest

from processing.handlers import HandlerRequest
from processing.worker import drain
from processing.worker.shares import Shares
from processing.worker.watchdog import Watchdog
from queues.kinds import Kind
from queues.lifecycle import lease as leases
from queues.lifecycle.lease import Record, Recorded
from tests.processing.conftest import Script
from tests.processing.crew import Hand, elsewhere, new_user, queue_of, requests_of, submit


def test_what_is_about_to_begin_when_the_process_gives_its_queues_back_does_not(
    hand: Hand, watch: Watchdog, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would run beside whoever takes the queue next."""
    ran: list[int] = []

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.sequence)

    class Ending(Shares):
        def enter(self, kind: Kind) -> float | None:
            ending = threading.Thread(target=watch.stop, args=[0])
            ending.start()
            ending.join(10)
            return None

    monkeypatch.setattr(drain, "shares", Ending())
    user = new_user()
    submit(user, "note")
    hand.dispatch()
    hand.work()
    assert ran == []
    assert (queue_of(user).state, requests_of(user)[0].attempt) == ("waiting", 0)


def test_a_queue_waits_until_the_process_that_gave_it_back_has_ended(
    hand: Hand, watch: Watchdog, script: Script
) -> None:
    """Its handler runs on until then."""

    @script
    def slow(request: HandlerRequest) -> None:
        watch.stop(0)
        found.append(elsewhere(lambda: queue_of(user)))

    found: list = []  # type: ignore[type-arg]
    user = new_user()
    submit(user, "slow")
    hand.dispatch()
    hand.work()
    (queue,) = found
    assert queue.state == "waiting"
    assert (queue.wake_at - queue.state_since).total_seconds() >= 0.9


def test_a_row_that_a_renewal_has_locked_is_given_back_all_the_same(
    hand: Hand, watch: Watchdog, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the end of the process would count an attempt."""
    real, refusals = leases.record_together, [1]

    def locked_once(records: Sequence[Record]) -> Recorded:
        return Recorded([], list(records)) if refusals and refusals.pop() else real(records)

    @script
    def slow(request: HandlerRequest) -> None:
        monkeypatch.setattr(leases, "record_together", locked_once)
        watch.stop(0)
        states.append(elsewhere(lambda: queue_of(user).state))

    states: list[str] = []
    user = new_user()
    submit(user, "slow")
    hand.dispatch()
    hand.work()
    assert (states, refusals) == (["waiting"], [])
