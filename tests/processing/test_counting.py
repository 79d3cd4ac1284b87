"""What the dispatcher and the worker count while they run requests."""

import pytest
from prometheus_client import REGISTRY

from processing.broker import tokens
from processing.broker.pointers import queue_name
from processing.dispatch.dispatcher import Dispatcher
from processing.handlers import HandlerRequest, Reject
from queues.lifecycle.outbox import Shard
from tests.metrics import counted
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, queue_of, submit


class Since:
    """What was counted since it was made."""

    def __init__(self) -> None:
        self.before = {(s.name, *sorted(s.labels.items())): s.value for m in REGISTRY.collect() for s in m.samples}

    def __call__(self, name: str, **labels: str) -> float:
        key = (f"ordered_work_{name}", *sorted(labels.items()))
        return counted(name, **labels) - self.before.get(key, 0.0)


@pytest.fixture
def since() -> Since:
    return Since()


def test_a_way_through_is_counted_once_wherever_it_passes(hand: Hand, script: Script, since: Since) -> None:
    @script
    def fine(request: HandlerRequest) -> int:
        return 1

    submit(new_user(), *["fine"] * 7)
    submit(new_user(), *["fine"] * 5)
    hand.settle()
    assert since("accepted_total", kind="test.script") == 12
    assert since("published_total") == 12
    assert since("finished_total", kind="test.script", status="succeeded") == 12
    assert since("attempts_total", kind="test.script", outcome="succeeded") == 12
    for histogram in ("waiting", "running", "handler"):
        assert since(f"{histogram}_seconds_count", kind="test.script") == 12
    assert since("turns_total") >= 2
    assert since("tokens_sent_total", by="dispatcher") >= 1
    assert counted("busy_threads") == 0


def test_a_request_that_is_tried_again_waits_once_and_runs_from_its_first_attempt(
    hand: Hand, script: Script, since: Since
) -> None:
    @script
    def flaky(request: HandlerRequest) -> int:
        if request.attempt < 3:
            raise RuntimeError("not yet")
        return 1

    @script
    def hopeless(request: HandlerRequest) -> int:
        raise Reject("never")

    submit(new_user(), "flaky", "hopeless")
    hand.settle()
    assert since("attempts_total", kind="test.script", outcome="failed") == 2
    assert since("attempts_total", kind="test.script", outcome="rejected") == 1
    assert since("finished_total", kind="test.script", status="succeeded") == 1
    assert since("finished_total", kind="test.script", status="rejected") == 1
    assert since("waiting_seconds_count", kind="test.script") == 2
    assert since("handler_seconds_count", kind="test.script") == 4
    assert since("running_seconds_count", kind="test.script") == 2
    assert since("running_seconds_sum", kind="test.script") > 0.02, "its backoff included"


def test_an_atomic_handler_is_counted_when_its_transaction_is_committed(
    hand: Hand, script: Script, since: Since
) -> None:
    @script
    def atomic(request: HandlerRequest) -> int:
        if request.attempt == 1:
            raise RuntimeError("rolled back")
        return 1

    submit(new_user(), "atomic", kind="test.atomic")
    hand.settle()
    assert since("attempts_total", kind="test.atomic", outcome="failed") == 1
    assert since("finished_total", kind="test.atomic", status="succeeded") == 1


def test_losses_are_counted(hand: Hand, script: Script, since: Since) -> None:
    @script
    def fine(request: HandlerRequest) -> int:
        return 1

    user = new_user()
    submit(user, "fine")
    hand.dispatch()
    hand.wire.delete(queue_name(queue_of(user).id))
    hand.settle()
    assert since("republications_total") == 1
    hand.wire.put_token(queue_of(user).id)
    hand.work()
    assert since("tokens_in_vain_total") >= 1


def test_a_worker_that_lost_its_queue_counts_nothing_but_that(hand: Hand, script: Script, since: Since) -> None:
    user = new_user()

    @script
    def overtaken(request: HandlerRequest) -> int:
        queue = queue_of(user)
        queue.fence += 1
        queue.save(update_fields=["fence"])
        return 1

    submit(user, "overtaken")
    hand.dispatch()
    hand.work()
    assert since("fenced_out_total") == 1
    assert since("finished_total", kind="test.script", status="succeeded") == 0


def test_the_leader_says_how_many_tokens_wait(hand: Hand, since: Since) -> None:
    submit(new_user(), "anything")
    hand.dispatch()
    hand.dispatcher.sweep()
    assert counted("tokens_waiting") == 1
    hand.wire.purge(tokens.TOKEN_QUEUE)
    hand.dispatcher.sweep()
    assert counted("tokens_waiting") == 0


@pytest.mark.django_db(transaction=True)
def test_each_shard_says_how_many_queues_its_leader_set_aside_and_a_standby_none() -> None:
    sick, well = Dispatcher(Shard(0, 2)), Dispatcher(Shard(1, 2))
    for queue_id in range(7):
        sick._set_aside.add(queue_id)
    for leader in (sick, well):
        leader.sweep()
    assert [counted("queues_set_aside", shard=shard) for shard in "01"] == [7, 0]
    sick._stand_by()
    assert counted("queues_set_aside", shard="0") == 0
    well.publisher.close()
