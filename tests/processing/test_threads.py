"""A worker process has more threads while slow handlers hold its own, and gives them up again."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from processing.broker import threads
from processing.broker.threads import Threads
from processing.broker.tokens import broker, token_queue
from processing.handlers import HandlerRequest
from processing.worker import drain
from processing.worker.shares import Shares
from tests.processing.conftest import Script
from tests.processing.crew import Crew, Hand, Wire, all_done, new_user, statuses_of, submit
from tests.waiting import until

LEAST, MOST = 4, 32


@pytest.fixture
def sizes() -> list[int]:
    """How many threads there were, one after the other."""
    return []


@pytest.fixture
def kept() -> list[Any]:
    """The connection to PostgreSQL that each thread still had when it ended."""
    return []


@pytest.fixture
def process(hand: Hand, sizes: list[int], kept: list[Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    """The threads of a process that looks often; its dispatcher runs beside it."""
    monkeypatch.setattr(drain, "shares", Shares())
    monkeypatch.setattr(threads, "SHRINK_SECONDS", 1.0)
    monkeypatch.setattr(broker, "middleware", [])
    monkeypatch.setattr(broker, "may_take", broker.may_take)  # as it was, afterwards
    over = threading.Event()

    def resized(number: int) -> None:
        drain.shares.set_threads(number)
        sizes.append(number)

    def release() -> None:
        drain.release()
        kept.append(connection.connection)

    process = Threads(
        LEAST,
        MOST,
        may_take=lambda: not over.is_set(),
        crowded=drain.shares.crowded,
        resized=resized,
        release=release,
    )

    def fit_on() -> None:
        while not over.wait(0.05):
            process.fit()

    looking = threading.Thread(target=fit_on)
    with Crew(workers=0):
        process.start()
        looking.start()
        yield process
        over.set()
        looking.join(10)
        process.stop(timeout=5000)


def consumers_of(wire: Wire) -> int:
    return int(wire.open().queue_declare(token_queue(), passive=True).method.consumer_count)


def test_slow_requests_of_many_users_keep_nobody_waiting_and_threads_end_again(
    process: Threads, sizes: list[int], kept: list[Any], script: Script, wire: Wire
) -> None:
    free = threading.Event()
    running: list[int] = []

    @script
    def slow(request: HandlerRequest) -> None:
        running.append(request.sequence)
        assert free.wait(60)

    @script
    def fast(request: HandlerRequest) -> int:
        return 1

    many, other = [new_user() for _ in range(16)], new_user()
    for user in many:
        submit(user, "slow")
    until(lambda: len(running) == 16, 40, "so many threads never came")
    assert sizes == [LEAST, MOST]
    submit(other, "fast")  # of the same kind
    until(lambda: statuses_of(other) == ["succeeded"], 10, "somebody else waits for slow requests")

    free.set()
    until(all_done, 30)
    until(lambda: sizes == [LEAST, MOST, LEAST], 20, "the threads stay")
    until(lambda: consumers_of(wire) == 1, 20, "somebody still takes tokens")
    until(lambda: len(kept) == MOST - LEAST, 20, "their threads stay")
    assert set(kept) == {None}, "their connections stay"
    submit(other, "fast")
    until(lambda: statuses_of(other) == ["succeeded"] * 2, 10)


def test_threads_that_have_ended_take_no_tokens_of_another_queue(
    process: Threads, sizes: list[int], script: Script
) -> None:
    """Where the tokens' queue gets another name, dramatiq would have every worker consume it that there ever was."""
    free = threading.Event()

    @script
    def slow(request: HandlerRequest) -> None:
        assert free.wait(60)

    for _ in range(3):
        submit(new_user(), "slow")
    until(lambda: sizes == [LEAST, MOST], 20)
    free.set()
    until(lambda: sizes == [LEAST, MOST, LEAST], 20)
    assert process._ending is not None
    process._ending.join(20)
    assert [one.worker for one in broker.middleware if hasattr(one, "worker")] == [process._usual]


def test_a_machine_that_gives_no_more_threads_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    sizes: list[int] = []
    monkeypatch.setattr(threads, "GROW_SECONDS", 0)
    monkeypatch.setattr(broker, "middleware", [])
    monkeypatch.setattr(Threads, "_worker", lambda *_: Refused())
    process = Threads(
        LEAST, MOST, may_take=lambda: True, crowded=lambda _: True, resized=sizes.append, release=lambda: None
    )
    process.fit()
    assert sizes == [MOST]
