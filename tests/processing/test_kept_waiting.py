"""What a run waits for, or cannot record, is one queue's: the others go on, and so does the process that is to end."""

import threading
import time
from typing import Any, cast

import pytest

from processing.broker import token_sender
from processing.broker import tokens as broker
from processing.broker.fetcher import Fetcher
from processing.broker.pointers import queue_name
from processing.handlers import HandlerRequest
from processing.worker import attempt, recorder
from processing.worker.shares import Shares
from processing.worker.token_run import TokenRun, WorkerProcess
from processing.worker.turn import Turn
from processing.worker.watchdog import Watchdog
from queues.lifecycle.lease import Lease
from tests.processing.conftest import Script
from tests.processing.crew import Hand, elsewhere, new_user, queue_of, requests_of, statuses_of, submit
from tests.processing.frozen import QUEUE, frozen
from tests.processing.token_runs.test_faults import drain_and_close
from tests.processing.token_runs.test_sharing import first_of
from tests.waiting import until


@pytest.mark.parametrize("when", ["before the handler", "after it"])
def test_a_locked_row_under_an_atomic_handler_keeps_no_other_queue_waiting(
    hand: Hand, script: Script, fine: None, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr("project.postgresql.limits._playing", "worker")
    users = [new_user() for _ in range(4)]
    ids = []
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with frozen(QUEUE, ids[0]):
            held.set()
            let_go.wait(20)

    locker = threading.Thread(target=hold)

    def lock(*_: Any) -> None:
        locker.start()
        assert held.wait(10)

    @script
    def stuck(request: HandlerRequest) -> int:
        if when == "after it":
            lock()
        return 1

    if when == "before the handler":
        monkeypatch.setattr(
            attempt.event_log, "started", lambda _, work: lock() if work.kind == "test.atomic" else None
        )
    submit(users[0], "stuck", kind="test.atomic")
    for user in users[1:]:
        submit(user, "fine")
    hand.dispatch()
    hand.wire.purge(broker.TOKEN_QUEUE)
    ids += [queue_of(user).id for user in users]
    monkeypatch.setattr(Turn, "awaits", property(first_of(ids, Turn.awaits.fget)))  # type: ignore[attr-defined]
    run = threading.Thread(target=lambda: drain_and_close(ids))
    run.start()
    try:
        until(lambda: hand.wire.tokens() == 3, 5, "the others wait for a row that is locked")
        assert [elsewhere(lambda u=u: queue_of(u).state) for u in users[1:]] == ["ready"] * 3  # type: ignore[misc]
        assert run.is_alive()
    finally:
        let_go.set()
        locker.join(20)
        run.join(20)
    hand.settle()
    assert [request.attempt for user in users for request in requests_of(user)] == [1] * 4


def test_a_process_that_ends_waits_for_no_record(
    hand: Hand, watch: Watchdog, fine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While PostgreSQL is away a record is tried for as long as a lease: the grace of a stopping process is over."""
    recording, released = threading.Event(), threading.Event()
    record = recorder.record

    def waits(*told: Any, **more: Any) -> Any:
        recording.set()
        released.wait(20)
        return record(*told, **more)

    user = new_user()
    submit(user, "fine")
    hand.dispatch()
    monkeypatch.setattr(recorder, "record", waits)
    run = threading.Thread(target=lambda: drain_and_close([queue_of(user).id]))
    run.start()
    try:
        assert recording.wait(10)
        began = time.monotonic()
        assert not watch.stop(0)
        assert time.monotonic() - began < 5
    finally:
        released.set()
        run.join(20)
    assert statuses_of(user) == ["succeeded"]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL does not take what a handler of the payload "bad" returns."""
    returned = attempt.returned

    def broken(work: Any, request: Any, result: str, *told: Any) -> Any:
        return returned(work, request, '{"' if work.payload == '"bad"' else result, *told)

    monkeypatch.setattr(attempt, "returned", broken)


@pytest.fixture
def ran(script: Script) -> list[int]:
    """The sequence numbers of what ran."""
    ran: list[int] = []

    def note(request: HandlerRequest) -> int:
        ran.append(request.sequence)
        return 1

    for name in ("bad", "good"):
        note.__name__ = name
        script(note)
    return ran


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize("after", ["test.script", "test.atomic"])
def test_an_outcome_that_postgresql_refuses_is_a_failure_and_runs_once(hand: Hand, ran: list[int], after: str) -> None:
    user, other = new_user(), new_user()
    submit(user, "good", "bad", "good")
    submit(user, "good", kind=after)
    submit(other, "good")
    hand.settle()
    assert statuses_of(user) == ["succeeded", "failed", "succeeded", "succeeded"]
    assert (requests_of(user)[1].error or {})["type"] == "InvalidResult"
    assert statuses_of(other) == ["succeeded"]
    assert sorted(ran) == [1, 1, 2, 3, 4]


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize("after", ["test.script", "test.atomic"])
def test_an_outcome_that_postgresql_refuses_blocks_a_queue_that_is_to_stop(
    hand: Hand, ran: list[int], after: str
) -> None:
    user = new_user()
    submit(user, "good")
    submit(user, "bad", kind="test.block")
    submit(user, "good", kind=after)
    hand.dispatch()
    hand.work()
    assert (queue_of(user).state, queue_of(user).done_seq) == ("blocked", 1)
    assert statuses_of(user)[2] == "queued"


def test_a_job_that_hangs_in_rabbitmq_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    released, sent = threading.Event(), list[list[int]]()

    def pass_on(queue_ids: list[int]) -> None:
        if queue_ids == [1]:
            released.wait(20)
        sent.append(queue_ids)

    monkeypatch.setattr(token_sender, "pass_on", pass_on)
    later = token_sender.Later()
    monkeypatch.setattr(token_sender, "_later", later)
    try:
        for n in range(1, 31):
            token_sender.pass_on_later([n])
        until(lambda: len(sent) == 29, 5, "the others' tokens wait for one that hangs")
        assert later._threads <= token_sender.MOST_THREADS
    finally:
        released.set()


def test_a_source_is_not_told_of_what_another_brought(hand: Hand, script: Script) -> None:
    """Delivery tags of a channel that was closed mean other messages on the next one."""

    @script
    def good(request: HandlerRequest) -> int:
        return 1

    user = new_user()
    submit(user, *["good"] * 6)
    hand.dispatch_singly(user)
    lease = Lease.take(queue_of(user).id, 1)
    assert lease is not None
    fetcher = Fetcher()
    run = TokenRun(WorkerProcess(Watchdog(), Shares()), fetcher, [])
    turn = Turn(run, lease, 10)

    def open_source() -> None:
        (source,) = fetcher.open_sources([(turn.name, 6)])
        turn.read(source)
        fetcher._serve(lambda: len(source.come) == 6, 15)

    open_source()
    for seq in range(1, 4):
        assert turn._has_message(seq)
        turn._tag, turn._message = cast(Any, turn._message).tag, None
    fetcher.close()  # nothing is acked: all come back
    until(lambda: hand.wire.depth(queue_name(lease.queue_id)) == 6)
    open_source()
    turn.recorded()
    cast(Any, turn.source).close()
    fetcher.settle()
    fetcher.close()
    until(lambda: hand.wire.depth(queue_name(lease.queue_id)) == 6, 5, "messages were acked that nobody has run")
