"""A request that submits the next one."""

import pytest

from processing.handlers import HandlerRequest, Reject
from queues.models import Request, UserQueue
from tests.processing.conftest import Script
from tests.processing.crew import (
    Crew,
    Hand,
    all_done,
    attempts_of,
    elsewhere,
    new_user,
    requests_of,
    statuses_of,
    submit,
)
from tests.waiting import until


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize("kind", ["test.script", "test.atomic"])
def test_the_next_request_is_submitted_once_whatever_the_attempts(kind: str, hand: Hand, script: Script) -> None:
    @script
    def chain(request: HandlerRequest) -> str:
        request.submit("test.script", "fine")
        request.submit("test.script", "fine")
        if request.attempt < 3:
            raise RuntimeError("after it has submitted")
        return "done"

    user = new_user()
    submit(user, "chain", "fine", kind=kind)
    hand.settle()
    assert statuses_of(user) == ["succeeded"] * 4
    assert [number for number, _ in attempts_of(requests_of(user)[0])] == [1, 2, 3]
    assert [request.payload for request in requests_of(user)] == ["chain", "fine", "fine", "fine"]


def test_nothing_is_submitted_by_a_request_that_failed_or_was_cancelled(hand: Hand, script: Script) -> None:
    @script
    def reject(request: HandlerRequest) -> None:
        request.submit("test.script", "reject")
        raise Reject("no")

    @script
    def heed(request: HandlerRequest) -> None:
        request.submit("test.script", "heed")
        request.ask_to_stop()
        assert request.cancelled

    user = new_user()
    submit(user, "reject", "heed")
    hand.settle()
    assert statuses_of(user) == ["failed", "cancelled"]


@pytest.mark.parametrize("kind", ["test.script", "test.atomic"])
def test_a_worker_that_lost_its_queue_submits_nothing(kind: str, hand: Hand, script: Script) -> None:
    user = new_user()

    @script
    def chain(request: HandlerRequest) -> None:
        request.submit("test.script", "chain")
        elsewhere(lambda: UserQueue.objects.filter(user=user).update(fence=1000))

    submit(user, "chain", kind=kind)
    hand.dispatch()
    hand.work(turns=1)
    assert [request.payload for request in requests_of(user)] == ["chain"]
    assert statuses_of(user) == ["queued"]


@pytest.mark.usefixtures("fine")
def test_a_full_queue_fails_the_attempt_and_what_it_submits_is_accepted_later(hand: Hand, script: Script) -> None:
    user = new_user()

    @script
    def chain(request: HandlerRequest) -> None:
        if request.attempt == 2:
            UserQueue.objects.filter(user=user).update(waiting_limit=10)
        request.submit("test.script", "fine")

    submit(user, "chain")
    UserQueue.objects.filter(user=user).update(waiting_limit=1)
    hand.settle()
    assert statuses_of(user) == ["succeeded", "succeeded"]
    first = requests_of(user)[0]
    assert attempts_of(first)[0] == (1, "failed")


def test_what_a_handler_submits_is_checked_where_it_stands(hand: Hand, script: Script) -> None:
    @script
    def chain(request: HandlerRequest) -> None:
        request.submit("demo.steps", {"steps": 0})

    user = new_user()
    submit(user, "chain", kind="test.once")
    hand.settle()
    (failed,) = requests_of(user)
    assert failed.error["type"] == "Invalid"


@pytest.mark.usefixtures("watch", "fine")
def test_a_chain_runs_in_order_beside_other_users(script: Script) -> None:
    @script
    def chain(request: HandlerRequest) -> int:
        if request.sequence < 10:
            request.submit("test.script", "chain")
        return request.sequence

    users = [new_user() for _ in range(5)]
    with Crew(workers=3):
        for user in users:
            submit(user, "chain")
        until(lambda: Request.objects.filter(seq=10, status="succeeded").count() == 5 and all_done())
    for user in users:
        assert [request.result for request in requests_of(user)] == list(range(1, 11))
