"""What is claimed next, after a record: where that fails, nobody waits for the sweeper."""

from typing import Any

import pytest
from django.db import OperationalError

from processing.broker import tokens
from processing.worker.drain import drain_queues
from processing.worker.turn import Turn
from queues.lifecycle import lease as leases
from queues.lifecycle.lease import Lease
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
