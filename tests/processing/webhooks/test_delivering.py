"""Webhooks against a receiver that speaks HTTPS on this machine, and the real PostgreSQL, RabbitMQ and Redis."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from accounts.models import User
from processing.handlers import HandlerRequest, Reject
from processing.webhooks import owning, retention
from processing.webhooks.delivery import signing
from processing.webhooks.delivery.deliverer import Deliverer, backoff
from processing.webhooks.models import Delivery, Webhook
from queues.lifecycle import control
from queues.lifecycle.expiry import expire
from queues.lifecycle.outbox import Shard
from queues.models import Request
from scripts.place import ROOT
from scripts.servers.process import launch
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, queue_of, requests_of, submit
from tests.processing.webhooks.receiver import Receiver

Hook = Callable[..., Webhook]
Deliver = Callable[..., None]


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
    deliver(lambda: len(receiver.got) == 3)
    assert [got.json["type"] for got in receiver.got] == ["request.cancelled", "request.expired", "request.cancelled"]
    assert [got.json["data"]["sequence"] for got in receiver.got] == [2, 1, 3]
    assert not pending(webhook)


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


def test_failures_are_tried_again_under_the_same_id_and_nothing_overtakes(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver, quick_retries: None
) -> None:
    webhook = hook(user)
    receiver.answer("/", 500, 503, 204, body=b"x" * 3000)
    cancelled(user, 2)
    deliver(lambda: not pending(webhook))
    first, again, once_more, second = receiver.got
    assert first.message == again.message == once_more.message != second.message
    assert first.body == once_more.body
    assert [got.json["data"]["sequence"] for got in receiver.got] == [1, 1, 1, 2]
    delivery = Delivery.objects.earliest("id")
    assert [one["status"] for one in delivery.attempts] == [500, 503, 204]
    assert [one["error"] for one in delivery.attempts] == [
        "The receiver answered 500 Internal Server Error.",
        "The receiver answered 503 Service Unavailable.",
        None,
    ]
    assert all(one["duration_ms"] > 0 for one in delivery.attempts)
    webhook.refresh_from_db()
    assert (webhook.failures, webhook.failing_since, webhook.last_error) == (0, None, "")


def test_no_more_than_a_kilobyte_of_an_answer_is_kept(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver
) -> None:
    hook(user)
    receiver.answer("/", 200, body=b"\0" + b"a" * 5000)
    cancelled(user, 1)
    deliver(lambda: Delivery.objects.get().state == "delivered")
    assert Delivery.objects.get().response_body == "\ufffd" + "a" * 1023


def test_redirects_are_not_followed(user: User, hook: Hook, receiver: Receiver, deliver: Deliver) -> None:
    hook(user)
    receiver.answer("/", 307, Location=receiver.at("/elsewhere"))
    cancelled(user, 1)
    deliver(lambda: attempts())
    assert attempts()[0]["error"] == "The receiver answered 307: redirects are not followed."
    assert not receiver.to("/elsewhere")


def test_a_webhook_that_failed_for_a_day_is_switched_off_and_goes_on_when_it_is_switched_on(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook = hook(user)
    receiver.answer("/", 500)
    cancelled(user, 2)
    deliver(lambda: attempts())
    webhook.refresh_from_db()
    assert webhook.enabled
    assert timedelta(seconds=3) < webhook.due_at - timezone.now() < timedelta(seconds=7)
    Webhook.objects.update(due_at=timezone.now(), failing_since=timezone.now() - timedelta(hours=24))
    deliver(lambda: len(attempts()) == 2)
    webhook.refresh_from_db()
    assert not webhook.enabled
    assert webhook.disabled_reason.startswith("Nothing could be delivered for 24 hours. The last: The receiver answ")
    assert "webhook_switched_off" in capsys.readouterr().err
    cancelled(user, 1)
    assert Delivery.objects.count() == 2  # nothing is written down while it is off
    receiver.answer("/", 204)
    owning.change(webhook, enabled=True)
    deliver(lambda: not pending(webhook))
    assert [got.json["data"]["sequence"] for got in receiver.got] == [1, 1, 1, 2]


def test_one_that_wants_no_more_is_switched_off_at_once(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = hook(user)
    receiver.answer("/", 410)
    cancelled(user, 1)
    deliver(lambda: not Webhook.objects.get(id=webhook.id).enabled)
    assert Webhook.objects.get().disabled_reason == "The receiver answered 410: it wants no more."


def test_the_pause_between_attempts_doubles_up_to_an_hour_and_is_never_the_same() -> None:
    for failures, seconds in ((1, 5), (2, 10), (5, 80), (20, 3600), (10_000, 3600)):
        pauses = {backoff(failures) for _ in range(50)}
        assert len(pauses) > 40
        assert all(0.8 * seconds <= pause <= 1.2 * seconds for pause in pauses)
    assert backoff(1, retry_after=600) == 600
    assert backoff(1, retry_after=1e9) == 3600


def test_a_silent_receiver_delays_nobody_else(
    hook: Hook, receiver: Receiver, deliver: Deliver, deliverer: Deliverer, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's ten silent receivers, and another user's quick one, which has all while none of these has failed yet."""
    monkeypatch.setattr(settings.ENV, "webhook_timeout_seconds", 60)
    quick = new_user()
    for number in range(10):
        receiver.hang(f"/silent{number}")
        hook(user, f"/silent{number}")
    hook(quick, "/quick")
    cancelled(user, 1)
    deliver(lambda: len(receiver.got) >= deliverer.most_of_a_user)
    cancelled(quick, 40)
    deliver(lambda: len(receiver.to("/quick")) == 40)
    assert len(receiver.got) - 40 == deliverer.most_of_a_user == 2


def test_slow_receivers_of_many_users_leave_threads_to_quick_ones(
    hook: Hook, receiver: Receiver, deliver: Deliver, deliverer: Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "webhook_timeout_seconds", 60)
    for _ in range(12):
        someone = new_user()
        receiver.hang(f"/{someone.username}")
        hook(someone, f"/{someone.username}")
        cancelled(someone, 1)
    Webhook.objects.update(slow=True)
    deliver(lambda: len(receiver.got) >= deliverer.most_slow)
    quick = new_user()
    hook(quick, "/quick")
    cancelled(quick, 20)
    deliver(lambda: len(receiver.to("/quick")) == 20)
    assert len(receiver.got) - 20 == deliverer.most_slow == 4


def test_what_was_sent_when_its_process_was_killed_is_sent_again_and_nothing_is_lost(
    user: User, hook: Hook, receiver: Receiver, authority: Path, tmp_path: Path, until: Callable[..., None]
) -> None:
    webhook = hook(user)
    receiver.hang("/")
    cancelled(user, 25)
    environment = {**os.environ, "WEBHOOK_ALLOW": "127.0.0.1", "SSL_CERT_FILE": str(authority)}
    command = [sys.executable, str(ROOT / "manage.py"), "deliver_webhooks", "--threads", "2"]
    processes = []
    try:
        for number in (1, 2):
            with (tmp_path / f"log{number}").open("wb") as output:
                processes.append(launch(command, environment=environment, output=output, folder=ROOT))
            until(lambda number=number: len(receiver.got) >= number, f"{(tmp_path / 'log1').read_text()}")
            if number == 1:
                processes[0].signal(signal.SIGKILL)
                receiver.closing.set()
                receiver.answer("/", 204)
                assert Webhook.objects.get().leased_until > timezone.now() + timedelta(seconds=10)
                Webhook.objects.update(leased_until=timezone.now())  # as if its time were over
        until(lambda: not pending(webhook), "all is delivered")
        processes[1].signal(signal.SIGTERM)
        until(lambda: not processes[1].alive(), "it ends")
        assert processes[1].child is not None
        assert processes[1].child.returncode == 0, (tmp_path / "log2").read_text()
    finally:
        for process in processes:
            process.kill()
    assert receiver.got[0].message == receiver.got[1].message
    assert [got.json["data"]["sequence"] for got in receiver.got] == [1, *range(1, 26)]


def test_two_processes_send_to_a_receiver_in_turns(
    user: User, hook: Hook, receiver: Receiver, until: Callable[..., None]
) -> None:
    webhook = hook(user)
    overlapping = []
    busy = threading.Lock()

    def reply(_: object) -> tuple[int, bytes, dict[str, str]]:
        if not busy.acquire(blocking=False):
            overlapping.append(1)
            return 204, b"", {}
        time.sleep(0.001)
        busy.release()
        return 204, b"", {}

    receiver.answers["/"] = reply
    stop = threading.Event()

    def run() -> None:
        Deliverer(4).run(stop)
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            cancelled(user, 10)
        until(lambda: len(receiver.got) >= 80 and not pending(webhook), "all is delivered")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not overlapping
    assert [got.json["data"]["sequence"] for got in receiver.got] == list(range(1, 81))


def test_a_webhook_whose_row_is_locked_holds_up_no_other(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver
) -> None:
    other = new_user()
    locked_one, free_one = hook(user, "/locked"), hook(other, "/free")
    cancelled(user, 1)
    cancelled(other, 1)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Webhook.objects.select_for_update().get(id=locked_one.id)
            held.set()
            go_on.wait(30)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(10)
        deliver(lambda: not pending(free_one))
        assert not receiver.to("/locked")
    finally:
        go_on.set()
        thread.join(10)
    deliver(lambda: not pending(locked_one))


def test_the_secret_signs_and_for_a_day_after_a_change_the_old_one_too(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = hook(user)
    old = webhook.secret
    new, until = owning.rotate(webhook)
    assert timedelta(hours=23) < until - timezone.now() <= timedelta(hours=24)
    cancelled(user, 1)
    deliver(lambda: receiver.got)
    assert receiver.got[0].signed_with(old)
    assert receiver.got[0].signed_with(new)
    assert not receiver.got[0].signed_with(signing.new_secret())
    assert abs(int(receiver.got[0].headers["webhook-timestamp"]) - time.time()) < 60
    Webhook.objects.update(old_secret_until=timezone.now())
    cancelled(user, 1)
    deliver(lambda: len(receiver.got) == 2)
    assert receiver.got[1].signed_with(new)
    assert not receiver.got[1].signed_with(old)


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the Standard Webhooks' own libraries."""
    signed = signing.headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


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


@pytest.mark.parametrize(
    ("allow", "host"),
    [("", "127.0.0.1"), ("", "localhost"), ("10.0.0.0/8", "receiver.test")],
    ids=["loopback", "by name", "another is allowed"],
)
def test_what_leads_inside_is_not_connected_to(
    user: User,
    receiver: Receiver,
    deliver: Deliver,
    monkeypatch: pytest.MonkeyPatch,
    allow: str,
    host: str,
) -> None:
    names = resolving(monkeypatch)
    names["receiver.test"] = ["127.0.0.1"]
    webhook = owning.create(user.id, receiver.at(host=host), ["request.cancelled"], enabled=True)
    monkeypatch.setattr(settings.ENV, "webhook_allow", allow)
    cancelled(user, 1)
    deliver(lambda: attempts())
    assert "not public" in attempts()[0]["error"]
    assert attempts()[0]["status"] is None
    assert not receiver.got
    webhook.refresh_from_db()
    assert webhook.failures == 1


def test_a_name_that_is_pointed_elsewhere_later_leads_nowhere(
    user: User, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch, quick_retries: None
) -> None:
    """Rebinding: public when it was named, inside when it is called. The address that is connected to is looked at."""
    names = resolving(monkeypatch)
    monkeypatch.setattr(settings.ENV, "webhook_allow", "127.0.0.2")
    names["receiver.test"] = ["127.0.0.2", "127.0.0.1"]
    owning.create(user.id, receiver.at(host="receiver.test"), ["request.cancelled"], enabled=True)
    cancelled(user, 1)
    deliver(lambda: len(attempts()) >= 3)
    first, *others = attempts()
    assert first["error"].startswith("No connection")  # nobody listens at 127.0.0.2
    assert all("not public" in one["error"] for one in others)
    assert not receiver.got


def test_a_certificate_that_nobody_vouches_for_is_refused(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from processing.http_call import transport

    hook(user)
    monkeypatch.delenv("SSL_CERT_FILE")
    transport.tls.cache_clear()
    cancelled(user, 1)
    deliver(lambda: attempts())
    assert "certificate verify failed" in attempts()[0]["error"]
    assert not receiver.got


def resolving(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to: one address each time; the last stays."""
    import socket

    known: dict[str, list[str]] = {}
    system = socket.getaddrinfo

    def look_up(host: bytes, port: int, **options: object) -> object:
        answers = known.get(host.decode())
        if answers is None:
            return system(host, port, **options)  # type: ignore[call-overload]
        return system(answers.pop(0) if len(answers) > 1 else answers[0], port, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def cancelled(user: User, count: int) -> None:
    """So many requests that are final, in order."""
    submit(user, *["x"] * count)
    control.purge(queue_of(user).id)


def pending(webhook: Webhook) -> bool:
    return webhook.deliveries.filter(state="pending").exists()


def attempts() -> list[dict[str, object]]:
    return list(Delivery.objects.earliest("id").attempts)
