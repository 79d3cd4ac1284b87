"""What is told to a webhook, when, and for how long it is kept."""

import threading
from datetime import timedelta

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from accounts.models import User
from processing.handlers import HandlerRequest, Reject
from processing.webhooks import owning, retention
from processing.webhooks.delivery import deliverer as module
from processing.webhooks.delivery.deliverer import Deliverer
from processing.webhooks.models import Delivery, Webhook
from queues.lifecycle import control
from queues.lifecycle.expiry import expire
from queues.lifecycle.outbox import Shard
from queues.models import Request
from queues.sql.statement import Statement
from tests.metrics import counted
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, queue_of, requests_of, submit
from tests.processing.webhooks.messages import Deliver, Hook, cancelled, pending
from tests.processing.webhooks.receiver import Receiver


def test_each_final_request_is_delivered_once_and_in_order(
    user: User, hook: Hook, receiver: Receiver, hand: Hand, script: Script, deliver: Deliver
) -> None:
    @script
    def some(request: HandlerRequest) -> int:
        if request.sequence % 3 == 0:
            raise Reject("no")
        return request.sequence

    webhook = hook(user)
    submit(user, *["some"] * 30)
    hand.settle()
    deliver(lambda: not pending(webhook))
    told = [got.json["data"] for got in receiver.got]
    assert [one["sequence"] for one in told] == list(range(1, 31))
    assert [one["status"] for one in told] == ["failed" if n % 3 == 0 else "succeeded" for n in range(1, 31)]
    assert [got.json["type"] for got in receiver.got] == [f"request.{one['status']}" for one in told]
    assert told[0]["result"] == 1
    assert told[2]["error"]["message"] == "no"
    assert len({got.message for got in receiver.got}) == 30


def test_what_never_ran_is_told_too(user: User, hook: Hook, receiver: Receiver, deliver: Deliver) -> None:
    webhook = hook(user)
    one, two, three = submit(user, "x", "x", "x")
    control.cancel(two.submission.id)
    Request.objects.filter(id=one.submission.id).update(expires_at=timezone.now() - timedelta(seconds=1))
    expire(Shard(0, 1), 10)
    control.purge(three.queue_id)
    deliver(lambda: not pending(webhook))
    assert [got.json["type"] for got in receiver.got] == ["request.cancelled", "request.expired", "request.cancelled"]
    assert [got.json["data"]["sequence"] for got in receiver.got] == [2, 1, 3]


def test_a_blocked_queue_is_told_and_then_what_was_decided(
    user: User, hook: Hook, receiver: Receiver, hand: Hand, script: Script, deliver: Deliver
) -> None:
    @script
    def wrong(request: HandlerRequest) -> None:
        raise Reject("wrong")

    hook(user)
    submit(user, "wrong")
    Request.objects.filter(queue__user=user).update(on_failure="block")
    hand.dispatch()
    hand.work()
    [request] = requests_of(user)
    control.skip(request.id)
    deliver(lambda: len(receiver.got) == 2)
    assert [got.json["type"] for got in receiver.got] == ["request.blocked", "request.failed"]
    assert [got.json["data"]["status"] for got in receiver.got] == ["blocked", "failed"]


def test_only_the_chosen_events_of_ones_own_requests_are_told(
    user: User, hook: Hook, receiver: Receiver, hand: Hand, fine: None, deliver: Deliver
) -> None:
    stranger = new_user()
    webhook = hook(user, "/mine", ("request.succeeded",))
    hook(stranger, "/theirs", ("request.failed",))
    submit(user, "fine")
    submit(stranger, "fine")
    hand.settle()
    deliver(lambda: receiver.got)
    assert [(got.path, got.json["data"]["id"]) for got in receiver.got] == [("/mine", str(requests_of(user)[0].id))]
    assert Delivery.objects.count() == 1
    assert Delivery.objects.get().webhook_id == webhook.id


def test_a_message_is_written_with_what_it_tells_or_not_at_all(user: User, hook: Hook) -> None:
    hook(user)
    (one,) = submit(user, "x")
    with transaction.atomic():
        control.cancel(one.submission.id)
        assert Delivery.objects.count() == 1
        transaction.set_rollback(True)
    assert Delivery.objects.count() == 0
    assert Request.objects.get().finished_at is None


def test_whoever_records_waits_for_nobody_who_changes_a_webhook(user: User, hook: Hook) -> None:
    webhook = hook(user)
    (one,) = submit(user, "x")
    locked, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Webhook.objects.select_for_update().get(id=webhook.id)
            locked.set()
            go_on.wait(30)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(10)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '100ms'")
            control.cancel(one.submission.id)
    finally:
        go_on.set()
        thread.join(10)
    assert Delivery.objects.count() == 1


def test_a_backlog_of_any_length_is_announced_in_parts_and_each_webhook_has_its_share(
    user: User,
    hook: Hook,
    receiver: Receiver,
    deliver: Deliver,
    deliverer: Deliverer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANNOUNCED", 6)
    other = new_user()
    long, short = hook(user, "/long"), hook(other, "/short")
    cancelled(user, 25)
    cancelled(other, 1)
    deliverer.announce()
    assert [webhook.deliveries.filter(announced=True).count() for webhook in (long, short)] == [3, 1]
    assert not Webhook.objects.filter(due_at=None).exists(), "both are due"
    deliver(lambda: not pending(long) and not pending(short))
    assert [got.json["data"]["sequence"] for got in receiver.to("/long")] == list(range(1, 26))
    assert len(receiver.to("/short")) == 1


def test_while_new_messages_cannot_be_announced_what_is_due_is_sent_and_the_lag_says_so(
    user: User, hook: Hook, deliver: Deliver, deliverer: Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = hook(user)
    cancelled(user, 12)
    monkeypatch.setattr(module, "LAG_SECONDS", 0)
    Webhook.objects.update(due_at=timezone.now())
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = '500ms'")
    try:
        with monkeypatch.context() as slow:
            slow.setattr(module, "ANNOUNCE", Statement("SELECT pg_sleep(60)"))
            deliver(lambda: not pending(webhook))
            owning.test(webhook)
            deliver(lambda: counted("webhook_lag_seconds") > 1)
            assert pending(webhook)
    finally:
        connection.close()
    deliver(lambda: not pending(webhook))
    deliver(lambda: counted("webhook_lag_seconds") == 0)


def test_a_message_that_would_be_too_large_says_so_and_has_no_payload(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "webhook_body_limit", 20_000)
    hook(user)
    submit(user, "x" * 50_000, "y" * 19_900, "z")
    control.purge(queue_of(user).id)
    deliver(lambda: len(receiver.got) == 3)
    assert all(len(got.body) < 20_000 for got in receiver.got)
    told = [(got.payload, got.json["data"]["cut"]) for got in receiver.got]
    assert told == [(None, True), (None, True), ("z", False)]


def test_a_message_whose_request_is_deleted_is_dropped_and_the_next_one_goes(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = hook(user)
    cancelled(user, 2)
    Request.objects.earliest("seq").delete()
    deliver(lambda: not pending(webhook))
    assert [got.json["data"]["sequence"] for got in receiver.got] == [2]
    assert list(Delivery.objects.order_by("id").values_list("state", flat=True)) == ["dropped", "delivered"]


def test_a_deleted_webhook_hears_nothing_and_goes_with_its_messages(
    user: User, hook: Hook, receiver: Receiver, deliverer: Deliverer
) -> None:
    webhook = hook(user)
    cancelled(user, 3)
    owning.remove(webhook)
    cancelled(user, 1)
    for _ in range(3):
        deliverer.step()
    assert not receiver.got
    assert Delivery.objects.count() == 0
    assert Webhook.objects.count() == 1  # a worker may still be about to record what it saw it wanted
    Webhook.objects.update(deleted_at=F("deleted_at") - timedelta(minutes=2))
    retention.prune(100)
    assert Webhook.objects.count() == 0


def test_deliveries_are_kept_for_so_many_days_and_pending_ones_of_a_webhook_that_is_on_for_ever(
    user: User, hook: Hook
) -> None:
    webhook = hook(user)
    cancelled(user, 4)
    ids = list(Delivery.objects.order_by("id").values_list("id", flat=True))
    Delivery.objects.filter(id__in=ids[:2]).update(state="delivered")
    Delivery.objects.exclude(id=ids[0]).update(created_at=timezone.now() - timedelta(days=15))
    assert not retention.prune(100)
    assert list(Delivery.objects.order_by("id").values_list("id", flat=True)) == [ids[0], ids[2], ids[3]]
    Webhook.objects.filter(id=webhook.id).update(enabled=False)
    assert retention.prune(1)
    retention.prune(100)
    assert list(Delivery.objects.values_list("id", flat=True)) == [ids[0]]


def test_what_waits_for_a_webhook_that_is_off_is_read_only_once_it_is_old(user: User, hook: Hook) -> None:
    webhook = hook(user)
    Delivery.objects.bulk_create(Delivery(webhook=webhook, event="webhook.test") for _ in range(500))
    owning.change(webhook, enabled=False)
    with transaction.atomic():
        before = deliveries_read()
        retention.prune(100)
        assert deliveries_read() - before < 10
    Delivery.objects.update(created_at=timezone.now() - timedelta(days=15))
    assert retention.prune(100)
    assert Delivery.objects.count() == 400


def deliveries_read() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'webhooks_delivery'"
        )
        return int(cursor.fetchone()[0])
