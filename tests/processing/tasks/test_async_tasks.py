"""`async def` tasks run on the process's event loop and hold no thread; what holds for plain ones holds for them."""

import asyncio
import threading
from importlib import import_module
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django_tasks import TaskResultStatus
from django_tasks.signals import task_finished, task_started

import queues
from accounts.models import User
from processing.handlers import TimeLimitExceeded
from processing.tasks.policy import ASYNC, PLAIN
from queues import kinds
from queues.models import Request
from tests.processing.coroutines.conftest import Gate, gate, on_loop  # noqa: F401  (fixtures)
from tests.processing.crew import Crew, Hand, all_done, attempts_of, new_user, requests_of
from tests.processing.tasks import functions
from tests.processing.tasks.conftest import refreshed
from tests.processing.tasks.test_tasks import shorter
from tests.waiting import until

USERS, THREADS = 100, 2


def test_tasks_of_100_users_wait_at_once_in_a_process_of_two_threads_and_plain_ones_run_beside_them(
    gate: Gate,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(functions, "gate", gate)
    results = [functions.wait_at_gate.using(user=new_user()).enqueue() for _ in range(USERS)]
    with Crew(workers=THREADS):
        until(lambda: len(gate.waiting) == USERS, 60, "they hold threads")
        beside = functions.note.using(user=new_user()).enqueue(1)
        until(lambda: refreshed(beside).is_finished, 10, "others wait for them")
        assert len(gate.waiting) == USERS
        gate.open()
        until(all_done, 30)
    assert {refreshed(result).return_value for result in results} == {1}


def test_its_attempts_its_context_and_its_signals_are_those_of_a_plain_one(hand: Hand, user: User) -> None:
    told: list[tuple[str, TaskResultStatus, int]] = []
    threads: set[int] = set()

    def receive(signal: Any, task_result: Any, **_: Any) -> None:
        Request.objects.get(id=task_result.id)  # a receiver may ask the database
        threads.add(threading.get_ident())
        told.append(("started" if signal is task_started else "finished", task_result.status, task_result.attempts))

    for signal in (task_started, task_finished):
        signal.connect(receive)
    try:
        result = functions.fail_twice_async.using(user=user).enqueue()
        hand.settle()
    finally:
        for signal in (task_started, task_finished):
            signal.disconnect(receive)
    done = refreshed(result)
    assert (done.return_value, done.attempts) == ([3, result.id], 3)
    assert [error.exception_class for error in done.errors] == [functions.Broken] * 2
    assert told == [
        *(("started", TaskResultStatus.RUNNING, number) for number in (1, 2, 3)),
        ("finished", TaskResultStatus.SUCCESSFUL, 3),
    ]
    assert threading.get_ident() not in threads


def test_at_its_time_limit_it_ends_as_a_plain_one_does(hand: Hand, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "find", shorter(kinds.find))
    ended: list[Any] = []

    def receive(task_result: Any, **_: Any) -> None:
        ended.append(task_result.errors[0].exception_class)

    task_finished.connect(receive)
    try:
        result = functions.never_end.using(user=user).enqueue()
        until(lambda: _worked(hand) and refreshed(result).is_finished, 30)
    finally:
        task_finished.disconnect(receive)
    assert [outcome for _, outcome in attempts_of(requests_of(user)[0])] == ["timed_out"] * 3
    assert ended == [TimeLimitExceeded]


def _worked(hand: Hand) -> bool:
    hand.dispatch()
    hand.work()
    return True


@pytest.mark.parametrize(("name", "version"), [("note_async", PLAIN), ("note", ASYNC)])
def test_what_waits_runs_though_a_release_made_its_function_async_or_plain(
    name: str, version: int, hand: Hand, user: User
) -> None:
    payload = {"task": f"tests.processing.tasks.functions.{name}", "arguments": [7], "keywords": {}}
    queues.submit(user, "task.default", payload, version=version, check_permission=False)
    hand.settle()
    assert [request.status for request in requests_of(user)] == ["succeeded"]


def test_a_function_that_became_plain_ends_before_its_attempt_and_has_a_thread_of_its_own() -> None:
    """Nothing interrupts it: it would go on beside the user's next request. Others' queries have one thread."""
    to_its_end = import_module("processing.tasks.handlers").to_its_end
    begun, end = threading.Event(), threading.Event()

    def overrun() -> None:
        begun.set()
        assert end.wait(30)

    async def main() -> None:
        attempt = asyncio.ensure_future(to_its_end(overrun))
        assert await asyncio.to_thread(begun.wait, 30)
        attempt.cancel()
        assert await asyncio.wait_for(sync_to_async(threading.get_ident)(), 30)
        assert not attempt.done()
        end.set()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert await to_its_end(lambda: 1) == 1

    asyncio.run(main())
