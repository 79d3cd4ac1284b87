"""Where the process in which a last attempt is to run does not come about, or has nobody left to work for."""

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from processing.worker import drain, isolation, process
from queues.lifecycle.lease import Lease
from tests.processing.crew import Hand, new_user, queue_of, requests_of, statuses_of, submit_with_one_attempt_left
from tests.processing.journal import Journal
from tests.waiting import until

RUN = Path(__file__).parent / "run.py"


def test_where_no_process_can_be_started_the_last_attempt_waits(
    hand: Hand, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError("as asked for: too many processes")

    monkeypatch.setattr(isolation.subprocess, "Popen", refused)
    monkeypatch.setattr(drain, "isolation", isolation.Isolation(drain.watch))
    user = new_user()
    submit_with_one_attempt_left(user, journal.payload())
    hand.dispatch()
    assert until(hand.work) == 1
    assert (queue_of(user).state, statuses_of(user), requests_of(user)[0].attempt) == ("waiting", ["retrying"], 2)
    monkeypatch.setattr(drain, "isolation", None)
    hand.settle()
    assert [(r.status, r.attempt) for r in requests_of(user)] == [("succeeded", 3)]


@pytest.mark.parametrize("threads", [1, 2])
def test_with_one_thread_nothing_runs_beside_what_may_crash(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    class Made(Exception): ...

    class NoThreads:
        def __init__(self, *_: object, **__: object) -> None:
            raise Made

    monkeypatch.setattr(drain, "watch", SimpleNamespace(start=lambda *_: None, worker_id=1))
    monkeypatch.setattr(process, "keep_shown", lambda _: None)
    monkeypatch.setattr(drain, "isolation", None)
    monkeypatch.setattr(drain, "coroutines", None)
    monkeypatch.setattr(process, "Threads", NoThreads)
    with pytest.raises(Made):
        process.run(threads, threading.Event())
    assert [drain.isolation is not None, drain.coroutines is not None] == [threads > 1] * 2


HANGS = ["sh", "-c", "sleep 60"]
DIES = ["sh", "-c", "exit 1"]


@pytest.mark.parametrize("command", [DIES, HANGS], ids=["dies", "hangs"])
def test_a_process_that_never_takes_the_lease_left_to_it_is_started_again_after_a_while(
    hand: Hand, journal: Journal, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    real = subprocess.Popen
    monkeypatch.setattr(isolation, "START_SECONDS", 0.3)
    monkeypatch.setattr(isolation.subprocess, "Popen", lambda *_: real(command))
    monkeypatch.setattr(drain, "isolation", isolation.Isolation(drain.watch))
    user = new_user()
    submit_with_one_attempt_left(user, journal.payload())
    hand.dispatch()
    for _ in range(2):
        assert until(hand.work) == 1
        assert (queue_of(user).state, statuses_of(user), requests_of(user)[0].attempt) == ("waiting", ["retrying"], 2)
        until(lambda: hand.dispatch() or hand.wire.tokens(), 5, "it is not tried again")
    monkeypatch.setattr(drain, "isolation", None)
    hand.settle()
    assert [(r.status, r.attempt) for r in requests_of(user)] == [("succeeded", 3)]


def test_a_process_whose_worker_died_meanwhile_runs_nothing(hand: Hand, journal: Journal) -> None:
    user = new_user()
    submit_with_one_attempt_left(user, journal.payload())
    hand.dispatch()
    lease = Lease.take(queue_of(user).id, drain.watch.worker_id)
    assert lease is not None
    nobody = subprocess.Popen(["true"])
    nobody.wait()
    alone = [sys.executable, str(RUN), "work", "--alone", str(lease.queue_id), str(lease.fence), str(nobody.pid)]
    assert subprocess.run(alone, check=False, timeout=60).returncode == 0
    assert queue_of(user).fence == lease.fence
    assert journal.begun(user) == []
