"""The watch outlives what goes wrong beside it, and so does the thread that it looks after."""

import time
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from processing.handlers import HandlerRequest
from processing.worker import drain
from processing.worker.turn import Turn
from queues.lifecycle.lease import WORKERS
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, queue_of, requests_of, statuses_of, submit
from tests.waiting import until


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
                [WORKERS, drain.watch.worker_id],
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


def test_what_begins_while_a_process_ends_is_abandoned_and_what_others_hand_over_to_comes_last(watch: Any) -> None:
    abandoned: list[str] = []

    class Going:
        def __init__(self, name: str, hands_over: bool = False) -> None:
            self.name, self.hands_over = name, hands_over

        def check(self) -> None: ...

        def renewals(self) -> list[Any]:
            return []

        def abandon(self) -> None:
            abandoned.append(self.name)
            if self.hands_over:
                watch.add(Going("what was handed over"), last=True)

    watch.add(Going("what many hand over to"), last=True)
    watch.add(Going("a run"))
    watch.add(Going("another run", hands_over=True))
    assert not watch.stop(0)
    assert set(abandoned[:2]) == {"a run", "another run"}
    assert set(abandoned[2:]) == {"what many hand over to", "what was handed over"}
    assert len(abandoned) == 4


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
    hand.dispatch_singly(alice)
    hand.dispatch_singly(bob)
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
