"""Queues that RabbitMQ had no word of are tried again beside the others: what becomes of them when that goes wrong."""

from contextlib import suppress

import pytest

from processing.broker.errors import BrokerUnavailable
from processing.broker.rabbitmq import Publisher
from queues.lifecycle import outbox
from queues.lifecycle.outbox import Shard
from tests.processing.crew import Hand, new_user, queue_of, submit
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
ALL = Shard(0, 1)


def test_a_queue_whose_second_try_got_no_connection_is_tried_with_the_others_again(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = new_user()
    submit(alice, *["note"] * 3)
    dispatcher, tried = hand.dispatcher, []

    def refused(*_: object) -> None:
        tried.append(1)
        raise BrokerUnavailable("no connection is left")

    monkeypatch.setattr(Publisher, "publish_apart", refused)
    (batch,) = outbox.unpublished(ALL, 0, 10)
    dispatcher._set_aside.add(batch.queue_id)
    dispatcher._retries.add(batch)
    assert not dispatcher.step(), "what others publish is nothing to hurry for"
    until(lambda: not dispatcher.step() and queue_of(alice).published_seq == 3, 10)
    assert tried == [1]


def test_a_defect_of_the_second_try_ends_the_dispatcher_as_any_other(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = new_user()
    submit(alice, "note")
    monkeypatch.setattr(Publisher, "publish_apart", lambda *_: 1 / 0)
    hand.dispatcher._retries.add(outbox.unpublished(ALL, 0, 10)[0])

    def steps() -> bool:
        with suppress(ZeroDivisionError):
            hand.dispatcher.step()
            return False
        return True

    until(steps, 10)
