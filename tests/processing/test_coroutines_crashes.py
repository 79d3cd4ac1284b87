"""Processes that die or stop while `async def` handlers wait in them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from queues.models import Attempt
from tests.processing.crew import all_done, attempts_of, new_user, requests_of, statuses_of, submit
from tests.processing.journal import Journal
from tests.processing.service import START_SECONDS, Service
from tests.waiting import until

USERS = 40


@pytest.fixture
def service(transactional_db: None, tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.stop()
    print(service.output.read_text())


def test_a_killed_process_costs_each_that_waited_in_it_one_attempt(service: Service, journal: Journal) -> None:
    """Two processes of two threads; the kill, and then a stop, in one life of theirs."""
    users = [new_user() for _ in range(USERS)]
    for user in users:
        submit(user, *[journal.payload(ms=3000)] * 2, kind="test.async.journal")
    service.lead()
    until(lambda: len({one.user for one in journal.entries()}) == USERS, START_SECONDS)
    victim = journal.entries()[-1].pid
    os.kill(victim, signal.SIGKILL)
    until(all_done, START_SECONDS)
    assert journal.violations({str(user.id): 2 for user in users}, killed=[victim]) == []
    assert all(statuses_of(user) == ["succeeded"] * 2 for user in users)
    lost = [one for user in users for one in requests_of(user) if (1, "lost") in attempts_of(one)]
    began = [one for one in journal.entries() if one.what == "begin" and one.pid == victim]
    ended = [one for one in journal.entries() if one.what == "end" and one.pid == victim]
    assert len(lost) == len(began) - len(ended)
    assert lost

    submit(users[0], journal.payload(ms=6000), kind="test.async.journal")
    begun = until(lambda: [one for one in journal.begun(users[0]) if one.seq == 3], START_SECONDS)[0]
    Attempt.objects.all().delete()
    os.kill(begun.pid, signal.SIGTERM)
    until(all_done, START_SECONDS)
    assert statuses_of(users[0]) == ["succeeded"] * 3
    assert not Attempt.objects.exists(), "no attempt was counted"
    assert [one.attempt for one in journal.begun(users[0]) if one.seq == 3] == [1, 1]
    assert not [one for one in journal.entries() if (one.what, one.seq, one.pid) == ("end", 3, begun.pid)]
