"""What is claimed next, after a record: where that fails, nobody waits for the sweeper, and nobody begins another's."""

import threading
import time
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from django.db.models import F

from processing.broker import tokens
from processing.handlers import HandlerRequest
from processing.worker.drain import drain_queues
from processing.worker.turn import Turn
from processing.worker.watchdog import Watchdog
from queues.lifecycle import lease as leases
from queues.lifecycle.lease import Lease
from queues.models import UserQueue
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, queue_of, requests_of, submit
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


@pytest.mark.parametrize("first", ["test.script", "test.atomic"])
def test_whoever_waited_for_postgresql_for_longer_than_a_lease_begins_nothing_that_is_others_by_now(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setattr(settings.ENV, "lease_seconds", 0.5)
    monkeypatch.setattr(settings.ENV, "record_after_ms", 0)
    away, back = threading.Event(), threading.Event()
    record, check = leases.record_together, Watchdog._check_all
    ran: list[int] = []

    def lost(records: Any) -> Any:
        if not back.is_set():
            away.set()
            raise OperationalError("the server is away")
        return record(records)

    def checked(watch: Watchdog) -> None:
        if away.is_set() and not back.is_set():
            raise OperationalError("the server is away")
        check(watch)

    def others_have_them() -> None:
        away.wait(10)
        since = time.monotonic()
        until(lambda: time.monotonic() - since > 2 * settings.ENV.lease_seconds)
        for queue_id in ids:
            UserQueue.objects.filter(id=queue_id).update(state="ready", fence=F("fence") + 1)
            Lease.take(queue_id, 999)
        connection.close()
        back.set()

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.queue_id)

    users = [new_user(), new_user()]
    submit(users[0], "note", kind=first)
    submit(users[1], "note")
    hand.dispatch()
    hand.wire.purge(tokens.token_queue())
    ids = ids_of(users)
    monkeypatch.setattr(leases, "record_together", lost)
    monkeypatch.setattr(Watchdog, "_check_all", checked)
    others = threading.Thread(target=others_have_them)
    others.start()
    drain_queues(ids)
    others.join(10)
    assert ids[1] not in ran
