"""One token for many queues, whose turns share statements."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db.models.functions import Now

from accounts.models import User
from processing.broker import token_sender
from processing.broker import tokens as broker
from processing.broker.pointers import queue_name
from processing.dispatch import dispatcher, token_supply
from processing.handlers import HandlerRequest, RetryLater
from processing.worker import paces
from processing.worker.drain import drain_queues, fetcher
from processing.worker.recorder import Recording
from processing.worker.turn import Turn
from processing.worker.watchdog import Watchdog
from queues.lifecycle import lease as leases
from queues.models import UserQueue
from tests.processing.conftest import Script
from tests.processing.crew import Hand, elsewhere, new_user, queue_of, requests_of, statuses_of, submit
from tests.processing.token_runs.conftest import done, ids_of
from tests.waiting import until


def test_who_wakes_at_once_shares_tokens(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "STALE_SECONDS", 600.0)  # nobody runs those that woke before

    def woken(count: int) -> int:
        """How many tokens their queues get."""
        for _ in range(count):
            submit(new_user(), "anything")
        before = hand.wire.tokens()
        hand.dispatch()
        return hand.wire.tokens() - before

    assert woken(4) == 1
    assert woken(64) == 4, "more than a few are for several threads"
    crowd = hand.wire.tokens() + token_supply.CROWD_OF_TOKENS
    hand.wire.put_token(*[0] * token_supply.CROWD_OF_TOKENS)
    until(lambda: hand.wire.tokens() == crowd)  # these are not confirmed
    hand.dispatcher.sweep()
    assert woken(token_supply.LARGEST_BUNDLE + 1) == 2, "where a crowd of tokens waits, each is as large as may be"
    hand.wire.purge(broker.TOKEN_QUEUE)
    hand.dispatcher.sweep()
    assert woken(token_supply.NEW_BUNDLE + 1) == 2


def test_who_is_called_by_a_kinds_limit_shares_no_thread(hand: Hand, script: Script) -> None:
    """Two that may run at once would run one after the other."""

    @script
    def again(request: HandlerRequest) -> None:
        raise RetryLater(0)

    users = [new_user(), new_user()]
    for user in users:
        submit(user, "again")
    hand.dispatch()
    assert hand.work(1) == 1
    assert [queue_of(user).state for user in users] == ["waiting"] * 2
    hand.wire.purge(broker.TOKEN_QUEUE)
    UserQueue.objects.update(wake_at=Now())
    hand.dispatcher.wake()
    until(lambda: hand.wire.tokens() == 2, 5, "a token each")


@pytest.mark.parametrize(("pace", "tokens"), [(0.008, [2, 1]), (0.04, [1, 1, 1, 1]), (0.001, [])])
def test_who_would_wait_too_long_for_the_handlers_of_others_is_passed_on(
    hand: Hand, five: list[User], monkeypatch: pytest.MonkeyPatch, pace: float, tokens: list[int]
) -> None:
    """Before it is leased: as many as run one after another before an outcome is late stay together."""
    monkeypatch.setattr(paces, "_paces", {paces.ALL: pace})
    sent: list[int] = []
    send = token_sender.send
    monkeypatch.setattr(token_sender, "send", lambda *ids: sent.append(len(ids)) or send(*ids))
    drain_queues(ids_of(five))
    assert sent == tokens
    assert sum(done(five)) == 5 - sum(tokens)
    hand.settle()
    assert done(five) == [1] * 5


def test_a_few_slow_handlers_among_many_have_no_queue_run_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paces, "_paces", {})
    sizes = []
    for number in range(1, 1001):
        paces.note_thread(600.0 if number % 100 == 0 else 0.0001)
        sizes.append(paces.queues_in_time(32))
    assert min(sizes) > 16
    for _ in range(100):
        paces.note_thread(600.0)
    assert paces.queues_in_time(32) == 1, "where all are slow"


def test_what_is_committed_with_a_handlers_writes_keeps_its_thread(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    @script
    def fine(request: HandlerRequest) -> int:
        return 1

    committed = Recording.committed
    monkeypatch.setattr(Recording, "committed", lambda *told: time.sleep(0.01) or committed(*told))
    user = new_user()
    submit(user, "fine", "fine", kind="test.atomic")
    hand.dispatch()
    drain_queues([queue_of(user).id])
    assert paces.of("test.atomic", 1.0) < 0.01 <= paces.of(paces.ALL, 0.0)


@pytest.mark.usefixtures("undisturbed")
def test_the_queues_of_a_token_share_a_lease_a_record_and_a_round_of_acks(
    hand: Hand, five: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    recorded: list[int] = []
    take, record = leases.take_together, leases.record_together
    monkeypatch.setattr(leases, "take_together", lambda ids, worker_id: taken.append(len(ids)) or take(ids, worker_id))
    monkeypatch.setattr(leases, "record_together", lambda records: recorded.append(len(records)) or record(records))
    monkeypatch.setattr("django.conf.settings.ENV.record_after_ms", 10_000)  # however busy the machine is
    drain_queues(ids_of(five))
    assert [queue_of(user).state for user in five] == ["idle"] * 5
    assert (taken, recorded) == ([5], [5])
    fetcher().close()
    assert [hand.wire.depth(queue_name(id_)) for id_ in ids_of(five)] == [0] * 5, "what was not acked comes back"


@pytest.mark.usefixtures("undisturbed")
def test_many_requests_of_many_queues_are_recorded_together(hand: Hand, script: Script) -> None:
    ran: list[tuple[str, int]] = []

    @script
    def note(request: HandlerRequest) -> None:
        ran.append((str(request.user_id), request.sequence))

    users = [new_user() for _ in range(4)]
    for user in users:
        submit(user, *["note"] * 30)
    hand.dispatch()
    hand.wire.purge(broker.TOKEN_QUEUE)
    drain_queues(ids_of(users))
    assert [queue_of(user).state for user in users] == ["idle"] * 4
    for user in users:
        assert [seq for who, seq in ran if who == str(user.id)] == list(range(1, 31))
        assert queue_of(user).fence == 1


@pytest.mark.usefixtures("undisturbed")
def test_a_process_that_ends_begins_nothing_else(hand: Hand, five: list[User], watch: Watchdog, script: Script) -> None:
    @script
    def fine(request: HandlerRequest) -> int:
        watch.stopping.set()
        return 1

    drain_queues(ids_of(five))
    assert hand.wire.tokens() == len([user for user in five if queue_of(user).state == "ready"])
    assert {queue_of(user).state for user in five} <= {"idle", "ready"}
    assert [queue_of(user).claimed for user in five if queue_of(user).state == "ready"] == [0] * hand.wire.tokens()


@pytest.mark.usefixtures("fine")
def test_nobody_in_a_run_waits_for_a_slow_handler_before_them(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leased and not begun, they are given back, with their messages, to whoever takes the tokens."""

    @script
    def slow(request: HandlerRequest) -> int:
        until(lambda: elsewhere(lambda: hand.wire.tokens()) == 3, 5, "the others were not passed on")
        until(lambda: elsewhere(lambda: [hand.wire.depth(queue_name(id_)) for id_ in ids[1:]]) == [1] * 3, 5)
        assert elsewhere(lambda: [(queue_of(u).state, queue_of(u).claimed) for u in users[1:]]) == [("ready", 0)] * 3
        return 1

    users = [new_user() for _ in range(4)]
    submit(users[0], "slow")
    for user in users[1:]:
        submit(user, "fine")
    hand.dispatch()
    hand.wire.purge(broker.TOKEN_QUEUE)
    ids = ids_of(users)
    monkeypatch.setattr(Turn, "awaits", property(first_of(ids, Turn.awaits.fget)))  # type: ignore[attr-defined]
    drain_queues(ids)
    assert done(users)[0] == 1
    hand.settle()
    assert all(statuses_of(user) == ["succeeded"] for user in users)
    assert [request.attempt for user in users for request in requests_of(user)] == [1] * 4


def first_of(ids: list[int], awaits: Any) -> Callable[[Turn], bool]:
    """Nobody else begins before the first of them has."""

    def asked(turn: Turn) -> bool:
        first = turn.run.turns.get(ids[0])
        return bool(awaits(turn)) and (turn is first or first is None or first.ran > 0)

    return asked
