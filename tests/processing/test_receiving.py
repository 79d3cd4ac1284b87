"""What a turn receives of its RabbitMQ queue: what it will run, and no more, without a pause."""

from typing import Any

import pytest
from django.conf import settings

from processing.broker.pointers import Pointer, queue_name
from processing.broker.source import Source
from processing.worker import turn as turns
from processing.worker.turn import Turn
from queues.lifecycle import outbox
from queues.lifecycle.outbox import Shard
from tests.processing.crew import Hand, new_user, queue_of, statuses_of, submit
from tests.waiting import until


@pytest.mark.usefixtures("fine")
def test_a_turn_receives_no_message_that_it_will_not_run(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would go back to RabbitMQ, and come once more."""
    monkeypatch.setattr(settings.ENV, "turn_requests", 150)
    user = new_user()
    submit(user, *["fine"] * 400)
    hand.dispatch_singly(user)
    assert hand.work(turns=1) == 1
    assert queue_of(user).done_seq == 150
    channel, name = hand.wire.open(), queue_name(queue_of(user).id)
    assert hand.wire.depth(name) == 250
    returned = [channel.basic_get(name)[0].redelivered for _ in range(250)]
    assert not any(returned)
    hand.wire.close()
    hand.settle()
    assert statuses_of(user) == ["succeeded"] * 400


@pytest.mark.usefixtures("fine")
def test_nor_one_of_many_requests(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.ENV, "turn_requests", 100)
    user = new_user()
    submit(user, *["fine"] * 1000)
    queue = queue_of(user)
    hand.wire.publish(queue.id, *[Pointer(first, first + 49).encode() for first in range(1, 1001, 50)])
    until(lambda: hand.wire.depth(queue_name(queue.id)) == 20, 5, "RabbitMQ has them")
    hand.wire.put_token(*outbox.mark_published(outbox.unpublished(Shard(0, 1), queue.id - 1, 1))[0])
    assert hand.work(turns=1) == 1
    assert queue_of(user).done_seq == 100
    channel, name = hand.wire.open(), queue_name(queue.id)
    assert hand.wire.depth(name) == 18
    assert not any(channel.basic_get(name)[0].redelivered for _ in range(18))
    hand.wire.close()
    hand.settle()


@pytest.mark.usefixtures("fine")
def test_more_than_was_ahead_streams_on_without_a_pause(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "ACK_DUPLICATES", 5)
    monkeypatch.setattr(settings.ENV, "turn_seconds", 60)
    monkeypatch.setattr("processing.broker.source.STREAM_SECONDS", 10)  # however busy RabbitMQ is
    user = new_user()
    ran: list[int] = []
    get, run_one = Source._get, Turn._run_one
    asked: list[str] = []

    def more(turn: Turn, work: Any) -> Any:
        ran.append(work.seq)
        if work.seq == 5:
            submit(user, *["fine"] * 300)
            hand.dispatch_singly(user)
        return run_one(turn, work)

    monkeypatch.setattr(Turn, "_run_one", more)
    monkeypatch.setattr(Source, "_get", lambda source: asked.append(source.name) or get(source))
    submit(user, *["fine"] * 20)
    hand.dispatch_singly(user)
    assert hand.work(turns=1) == 1
    assert queue_of(user).done_seq == 320
    assert len(asked) == 1, "nothing came for a while"


@pytest.mark.usefixtures("fine")
def test_what_an_atomic_handler_recorded_with_its_writes_is_acked(hand: Hand) -> None:
    """Else RabbitMQ would keep a message of each user who asks for nothing else."""
    user = new_user()
    submit(user, "fine", "fine", kind="test.atomic")
    hand.dispatch()
    hand.work()
    assert statuses_of(user) == ["succeeded"] * 2
    until(lambda: hand.wire.depth(queue_name(queue_of(user).id)) == 0, 5)
