"""What RabbitMQ loses, doubles or never had: PostgreSQL knows, and one move repairs it."""

import struct
import threading
import time
from typing import Any

import pytest
import uuid_utils.compat
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now

from processing.broker import tokens
from processing.broker.pointers import Delivery, Pointer, queue_name
from processing.dispatch import dispatcher
from processing.handlers import HandlerRequest
from processing.worker import drain, recorder
from queues.models import UserQueue
from tests.processing.conftest import Script
from tests.processing.crew import Hand, Wire, new_user, queue_of, requests_of, statuses_of, submit
from tests.waiting import until


def take(wire: Wire, queue_id: int, count: int) -> None:
    for _ in range(count):
        wire.open().basic_get(queue_name(queue_id), auto_ack=True)


@pytest.mark.parametrize("count", [1, 3, 20, 30])
def test_lost_messages_are_published_again(hand: Hand, ran: list[int], count: int) -> None:
    user = new_user()
    submit(user, *["note"] * 30)
    hand.dispatch_singly(user)
    take(hand.wire, queue_of(user).id, count)
    hand.settle()
    assert ran == list(range(1, 31))


def test_a_queue_deleted_while_it_is_drained_is_made_and_filled_again(hand: Hand, script: Script) -> None:
    ran = []

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.sequence)
        if request.sequence in (2, 12):
            hand.wire.delete(queue_name(queue_of(user).id))

    user = new_user()
    submit(user, *["note"] * 30)
    hand.dispatch_singly(user)
    hand.settle()
    assert ran == list(range(1, 31))
    assert set(statuses_of(user)) == {"succeeded"}


def test_publishing_to_a_queue_that_somebody_deleted_makes_it_again(hand: Hand, ran: list[int]) -> None:
    """A publisher that trusts its memory of declared queues would publish into nothing, without an error."""
    user = new_user()
    submit(user, "note")
    hand.settle()
    hand.wire.delete(queue_name(queue_of(user).id))
    submit(user, "note", "note")
    hand.dispatch()
    assert hand.wire.depth(queue_name(queue_of(user).id)) == 1
    hand.settle()
    assert ran == [1, 2, 3]


def test_a_queue_idle_for_long_is_reaped_and_made_again_when_work_comes(
    hand: Hand, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    user, busy = new_user(), new_user()
    submit(user, "note")
    hand.settle()
    submit(busy, "note")
    hand.dispatch()
    for name in ("REAP_SECONDS", "LOOK_SECONDS", "KEPT"):
        monkeypatch.setattr(f"processing.dispatch.reaper.{name}", 0)
    hand.dispatcher.sweep()
    until(lambda: not hand.wire.exists(queue_of(user).id))
    assert hand.wire.exists(queue_of(busy).id), "only idle ones are reaped"
    assert hand.dispatcher.publisher.declared == {queue_name(queue_of(busy).id)}, "and not remembered for ever"
    submit(user, "note")
    hand.settle()
    assert ran == [1, 1, 2]


def test_the_queues_of_those_who_became_idle_last_are_kept(
    hand: Hand, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [new_user() for _ in range(4)]
    for user in users:
        submit(user, "note")
        hand.settle()
    for name, value in {"REAP_SECONDS": 0.0, "LOOK_SECONDS": 0.0, "KEPT": 4}.items():
        monkeypatch.setattr(f"processing.dispatch.reaper.{name}", value)
    hand.dispatcher.sweep()
    assert UserQueue.objects.filter(idle_since__isnull=False).count() == 4, "there is room for all"
    monkeypatch.setattr("processing.dispatch.reaper.KEPT", 3)
    submit(users[0], "note")  # its queue became idle first, and now does so last
    hand.settle()
    hand.dispatcher.sweep()
    until(lambda: not hand.wire.exists(queue_of(users[1]).id))
    assert [hand.wire.exists(queue_of(user).id) for user in users] == [True, False, True, True]
    monkeypatch.setattr("processing.dispatch.reaper.REAP_SECONDS", 600.0)
    monkeypatch.setattr("processing.dispatch.reaper.KEPT", 0)
    hand.dispatcher.sweep()
    assert UserQueue.objects.filter(idle_since__isnull=False).count() == 3, "for ten minutes all are"


def test_duplicates_garbage_and_messages_that_come_too_early_change_nothing(hand: Hand, ran: list[int]) -> None:
    user = new_user()
    submit(user, *["note"] * 20)
    hand.dispatch()
    again = [Pointer(seq, seq).encode() for seq in (20, 3, 1, 1, 7, 19, *range(1, 21))]
    beside = [Pointer(*places).encode() for places in ((2, 5), (99, 120), (18, 40), (15, 21))]
    hand.wire.publish(queue_of(user).id, b"", b"\xff" * 24, b"hello", *again, *beside)
    hand.settle()
    submit(user, "note")
    hand.settle()
    assert ran == list(range(1, 22))


def test_a_message_goes_when_the_last_that_it_names_is_recorded(
    hand: Hand, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "turn_requests", 10)
    user = new_user()
    submit(user, *["note"] * 25)
    hand.dispatch()
    name = queue_name(queue_of(user).id)
    assert hand.wire.depth(name) == 1, "one for all that was accepted meanwhile"
    for done, left in ((10, 1), (20, 1), (25, 0)):
        assert hand.work(turns=1) == 1
        assert queue_of(user).done_seq == done
        until(lambda left=left: hand.wire.depth(name) == left, 5, "it has not gone back, or not gone")
    assert ran == list(range(1, 26))
    assert queue_of(user).fence == 3, "nothing had to be published again"


def test_a_message_that_names_more_than_was_published_is_passed_over(hand: Hand, ran: list[int]) -> None:
    """Of a backup that was restored: it would stay until there are as many, and those behind it would pile up."""
    user = new_user()
    submit(user, "note", "note")
    name = queue_name(queue_of(user).id)
    hand.wire.publish(queue_of(user).id, Pointer(1, 1000).encode())
    until(lambda: hand.wire.depth(name) == 1, 5, "RabbitMQ has it")
    hand.dispatch()
    assert hand.work(turns=1) == 1
    assert ran == [1, 2]
    assert hand.wire.depth(name) == 0


def test_a_queue_that_lacks_the_requests_it_counts_is_looked_at_now_and_then(hand: Hand, ran: list[int]) -> None:
    """A hand in the tables did that; again and again, it would take a worker's time from everybody."""
    user = new_user()
    submit(user, "note")
    hand.settle()
    UserQueue.objects.filter(user=user).update(last_seq=4)
    hand.dispatch()
    assert hand.work(turns=5) == 1
    assert queue_of(user).state == "waiting"
    UserQueue.objects.filter(user=user).update(last_seq=1, published_seq=1, wake_at=Now())
    submit(user, "note")
    hand.settle()
    assert ran == [1, 2]


def test_pointers_of_an_earlier_release_are_of_one_request_and_it_reads_the_first_of_ours() -> None:
    earlier = struct.Struct(">q16s")
    assert Delivery.decode(earlier.pack(7, uuid_utils.compat.uuid7().bytes), 3) == Delivery(7, 7, 3)
    assert earlier.unpack(Pointer(7, 9).encode())[0] == 7
    assert Delivery.decode(Pointer(7, 9).encode(), 3) == Delivery(7, 9, 3)


def test_thousands_of_duplicates_are_passed_over_within_one_lease(
    hand: Hand, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are acked on the way and the lease is kept: else a turn longer than a lease would begin anew for ever."""
    monkeypatch.setattr(settings.ENV, "lease_seconds", 0.6)
    monkeypatch.setattr(recorder, "RENEW_SECONDS", 0.1)
    user = new_user()
    submit(user, "note")
    hand.settle()
    queue = queue_of(user)
    hand.wire.publish(queue.id, *[Pointer(1, 1).encode()] * 3000)
    submit(user, "note", "note")
    hand.dispatch()
    ended = threading.Event()
    lapsed: list[Any] = []

    def watch_leases() -> None:
        while not ended.wait(0.02):
            lapsed.extend(UserQueue.objects.filter(state="draining", lease_until__lt=Now()))
        connection.close()

    looker = threading.Thread(target=watch_leases)
    looker.start()
    began = time.monotonic()
    hand.work(turns=1)
    print(f"3000 duplicates were passed over in {time.monotonic() - began:.2f} s")
    ended.set()
    looker.join(10)
    assert lapsed == [], "the lease ran out"
    hand.settle()
    assert ran == [1, 2, 3]
    assert hand.wire.depth(queue_name(queue.id)) == 0


def test_a_connection_to_rabbitmq_that_breaks_in_a_turn_costs_no_attempt(hand: Hand, script: Script) -> None:
    ran = []

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.sequence)
        if request.sequence == 9 and request.attempt == 1:
            drain._thread.fetcher._link.close()

    user = new_user()
    submit(user, *["note"] * 20)
    hand.dispatch_singly(user)
    hand.settle()
    assert ran == list(range(1, 21))
    assert [r.attempt for r in requests_of(user)] == [1] * 20


def test_lost_tokens_are_sent_again(hand: Hand, ran: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "STALE_SECONDS", 0.0)
    users = [new_user() for _ in range(5)]
    for user in users:
        submit(user, "note")
    hand.dispatch()
    hand.wire.purge(tokens.TOKEN_QUEUE)
    assert hand.work() == 0
    hand.dispatcher.sweep()
    assert hand.work() > 0
    assert sorted(ran) == [1] * 5


def test_who_leads_from_now_on_sends_the_tokens_that_the_last_one_did_not(
    hand: Hand, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "STALE_SECONDS", 1000.0)
    user = new_user()
    submit(user, "note")
    hand.dispatch()
    hand.wire.purge(tokens.token_queue())
    hand.dispatcher.tokens.lose()
    hand.settle(8)
    assert ran == [1]


def test_a_lost_token_is_sent_again_though_others_wait(
    hand: Hand, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standing backlog of other users' tokens must not hide the one that is lost."""
    monkeypatch.setattr(dispatcher, "STALE_SECONDS", 0.0)
    unlucky = new_user()
    submit(unlucky, "note")
    hand.dispatch()
    hand.wire.purge(tokens.TOKEN_QUEUE)
    others = [new_user() for _ in range(10)]
    for user in others:
        submit(user, "note")
    hand.dispatch()
    assert hand.wire.tokens() > 0
    hand.dispatcher.sweep()
    hand.work()
    assert queue_of(unlucky).done_seq == 1


def test_tokens_are_not_sent_in_storms(hand: Hand, ran: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    for user in [new_user() for _ in range(20)]:
        submit(user, "note")
    hand.dispatch()
    before = hand.wire.tokens()
    for _ in range(20):
        hand.dispatcher.sweep()
    assert hand.wire.tokens() == before


def test_a_deleted_token_queue_is_made_again(hand: Hand, ran: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "STALE_SECONDS", 0.0)
    user = new_user()
    submit(user, "note")
    hand.dispatch()
    hand.wire.delete(tokens.TOKEN_QUEUE)
    hand.dispatcher.sweep()
    until(hand.work, 5)
    assert ran == [1]


def test_a_token_for_a_queue_that_nobody_knows_is_dropped(hand: Hand, ran: list[int]) -> None:
    user = new_user()
    submit(user, "note")
    hand.wire.put_token(2**40, 0, -1)
    hand.settle()
    assert ran == [1]
