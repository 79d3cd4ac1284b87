"""`async def` handlers: what holds for plain ones holds for them, and all run on one loop."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections

from accounts.models import User
from processing.coroutines import wait_for
from processing.handlers import HandlerRequest, Reject, RetryLater, TimeLimitExceeded, handler
from processing.testing import drain, run
from processing.testing.limit import limited
from project.telemetry.logs import at_work
from queues.lifecycle import control
from queues.models import Attempt
from tests.processing import kinds
from tests.processing.conftest import Script
from tests.processing.crew import Crew, Hand, all_done, attempts_of, new_user, requests_of, statuses_of, submit
from tests.waiting import until

AT_ONCE = 8


@pytest.fixture
def _no_connection_stays() -> Iterator[None]:
    yield
    wait_for(sync_to_async(connections.close_all)())


def test_one_is_called_as_a_plain_one() -> None:
    with kinds.kept():

        @handler("test.awaited", time_limit=0.2)
        async def work(request: HandlerRequest, payload: Any) -> Any:
            await asyncio.sleep(0)
            request.progress(1, 2)
            if payload == "later":
                raise RetryLater(7)
            if payload == "never":
                raise Reject("no")
            if payload == "exit":
                raise SystemExit
            if payload == "long":
                await asyncio.sleep(30)
            request.submit("demo.echo", 1)
            return [payload, request.cancelled, (at_work.get() or dict)().get("kind")]

        fine = run(work, "x", cancelled=True)
        assert (fine.status, fine.progress) == ("cancelled", [(1, 2, "")])
        fine = run("test.awaited", "x")
        assert (fine.result, len(fine.submitted)) == (["x", False, "test.awaited"], 1)
        assert run(work, "later").delay == 7
        assert run(work, "never").outcome == "rejected"
        assert isinstance(run(work, "exit").exception, SystemExit)
        assert run(work, "long").outcome == "timed_out"
        assert run(work, "x").status == "succeeded"


def test_its_traceback_shows_the_handler_and_nothing_of_ours(hand: Hand, script: Script) -> None:
    @script
    async def fails(request: HandlerRequest) -> None:
        if request.attempt == 1:
            await asyncio.sleep(30)  # here it stands
        raise RuntimeError("as asked for")

    user = new_user()
    submit(user, "fails", kind="test.limited")
    hand.settle()
    first, second, *_ = Attempt.objects.filter(request=requests_of(user)[0]).order_by("number")
    assert (first.outcome, second.outcome) == ("timed_out", "failed")
    for one, line in ((first, "here it stands"), (second, 'raise RuntimeError("as asked for")')):
        assert line in one.traceback
        assert "coroutines.py" not in one.traceback.replace("test_coroutines.py", "")


@pytest.mark.usefixtures("watch")
def test_many_wait_at_once_in_one_thread(script: Script) -> None:
    loops: set[asyncio.AbstractEventLoop] = set()
    threads: set[int] = set()
    waiting: list[asyncio.Event] = []

    @script
    async def meet(request: HandlerRequest) -> int:
        threads.add(threading.get_ident())
        loops.add(asyncio.get_running_loop())
        mine = asyncio.Event()
        waiting.append(mine)
        if len(waiting) == AT_ONCE:
            for each in waiting:
                each.set()
        await mine.wait()
        return 1

    users = [new_user() for _ in range(AT_ONCE)]
    for user in users:
        submit(user, "meet", kind="test.once")
    with Crew(workers=AT_ONCE) as crew:
        until(all_done)
        assert threads.isdisjoint({thread.ident for thread in crew.threads})
    assert [statuses_of(user) for user in users] == [["succeeded"]] * AT_ONCE
    assert (len(threads), len(loops)) == (1, 1)


def test_at_its_time_limit_it_is_cancelled_and_what_comes_next_waits_for_its_end(hand: Hand, script: Script) -> None:
    seen: list[str] = []

    @script
    async def slow(request: HandlerRequest) -> int:
        seen.append(f"begin {request.sequence}.{request.attempt}")
        try:
            if request.attempt == 1:
                await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.1)
            seen.append(f"end {request.sequence}.{request.attempt}")
        return 1

    user = new_user()
    submit(user, "slow", "slow", kind="test.limited")
    hand.settle()
    assert [attempts_of(request) for request in requests_of(user)] == [[(1, "timed_out"), (2, "succeeded")]] * 2
    assert seen == [f"{what} {one}" for one in ("1.1", "1.2", "2.1", "2.2") for what in ("begin", "end")]


def test_its_user_cancels_it(hand: Hand, script: Script) -> None:
    user = new_user()

    @script
    async def patient(request: HandlerRequest) -> int:
        await asyncio.to_thread(_cancel, request)
        while not request.cancelled:
            await asyncio.sleep(0.01)
        return 1

    submit(user, "patient")
    hand.settle()
    assert statuses_of(user) == ["cancelled"]


def _cancel(request: HandlerRequest) -> None:
    try:
        control.cancel(request.id)
    finally:
        connection.close()


@pytest.mark.usefixtures("_no_connection_stays")
def test_a_connection_that_broke_fails_one_attempt(hand: Hand, script: Script) -> None:
    @script
    async def asks(request: HandlerRequest) -> str:
        if request.attempt == 1:
            await sync_to_async(_break_connection)()
        user = await User.objects.aget(id=request.user_id)
        return user.username

    user = new_user()
    submit(user, "asks")
    hand.settle()
    assert attempts_of(requests_of(user)[0]) == [(1, "failed"), (2, "succeeded")]


def _break_connection() -> None:
    connection.ensure_connection()
    connection.connection.close()


@pytest.mark.django_db(transaction=True)
def test_drain_runs_them(script: Script) -> None:
    @script
    async def one(request: HandlerRequest) -> int:
        await asyncio.sleep(0)
        return request.sequence

    user = new_user()
    submit(user, "one", "one")
    assert [ran.result for ran in drain(user)] == [1, 2]


def test_an_atomic_one_that_nobody_saw_at_start_is_refused(hand: Hand, script: Script) -> None:
    @script
    async def hidden(request: HandlerRequest) -> int:
        return 1

    user = new_user()
    submit(user, "hidden", kind="test.atomic")
    hand.settle()
    assert requests_of(user)[0].error["type"] == "InvalidResult"


@pytest.mark.filterwarnings("error")
def test_one_that_could_not_begin_in_its_time_never_does() -> None:
    ran: list[int] = []
    blocks, ends = threading.Event(), threading.Event()

    async def block() -> None:
        blocks.set()
        ends.wait(10)

    async def late() -> None:
        ran.append(1)

    blocking = threading.Thread(target=wait_for, args=[block()])
    blocking.start()
    assert blocks.wait(10)
    threading.Timer(0.5, ends.set).start()
    began = time.monotonic()
    with pytest.raises(TimeLimitExceeded), limited(0.1):
        wait_for(late())
    assert time.monotonic() - began < 5
    blocking.join(10)
    assert not ran


def test_the_loop_survives_what_a_task_left_behind_raises() -> None:
    async def leaves() -> asyncio.Task[None]:
        async def exits() -> None:
            raise SystemExit

        return asyncio.create_task(exits())

    left = wait_for(leaves())

    async def fine() -> int:
        return 1

    assert wait_for(fine()) == 1
    assert isinstance(left.exception(), SystemExit)
