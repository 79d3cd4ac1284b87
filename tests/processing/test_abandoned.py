"""A process that ends before its handlers do: nothing of it begins once its queues are others'."""

import threading

import pytest

from processing.handlers import HandlerRequest
from processing.worker import drain
from processing.worker.shares import Shares
from processing.worker.watchdog import Watch
from queues.kinds import Kind
from tests.processing.conftest import Script
from tests.processing.crew import Hand, elsewhere, new_user, queue_of, requests_of, submit


def test_what_is_about_to_begin_when_the_process_gives_its_queues_back_does_not(
    hand: Hand, watch: Watch, script: Script, monkeypatch: pytest.MonkeyPatch
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


def test_a_queue_waits_until_the_process_that_gave_it_back_has_ended(hand: Hand, watch: Watch, script: Script) -> None:
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
