"""A receiver that fails is tried again later, and delays nobody else."""

import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from accounts.models import User
from processing.webhooks import owning
from processing.webhooks.delivery.deliverer import Deliverer
from processing.webhooks.delivery.turn import backoff
from processing.webhooks.models import Delivery, Webhook
from queues.models import Request
from scripts.place import ROOT
from scripts.servers.process import launch
from tests.processing.crew import new_user
from tests.processing.webhooks.messages import Deliver, Hook, attempts, cancelled, pending
from tests.processing.webhooks.receiver import Got, Receiver
from tests.waiting import until


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


@pytest.mark.parametrize("why", ["nothing was pending", "nobody sent"])
def test_a_day_in_which_nothing_was_tried_is_no_day_of_failures(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver, why: str
) -> None:
    webhook = hook(user)
    receiver.answer("/", 500)
    cancelled(user, 1)
    deliver(attempts)
    then = timezone.now() - timedelta(hours=25)
    Webhook.objects.update(failing_since=then, due_at=then)
    if why == "nothing was pending":
        Request.objects.all().delete()
        deliver(lambda: not pending(webhook), "it is dropped with its request")
        Webhook.objects.update(failing_since=then)
        cancelled(user, 1)
    deliver(lambda: len(receiver.got) == 2)
    deliver(lambda: Webhook.objects.get().leased_until is None)
    webhook.refresh_from_db()
    assert webhook.enabled
    assert timezone.now() - webhook.failing_since < timedelta(minutes=5)


def test_one_that_wants_no_more_is_switched_off_at_once(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = hook(user)
    receiver.answer("/", 410)
    cancelled(user, 1)
    deliver(lambda: not Webhook.objects.get(id=webhook.id).enabled)
    assert Webhook.objects.get().disabled_reason == "The receiver answered 410: it wants no more."


def test_what_an_old_address_answers_says_nothing_of_the_new_one(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = hook(user, "/old")
    moved = threading.Event()

    def gone(_: Got) -> tuple[int, bytes, dict[str, str]]:
        moved.wait(20)
        return 410, b"", {}

    receiver.answers["/old"] = gone
    cancelled(user, 1)
    deliver(lambda: receiver.to("/old"))
    owning.change(webhook, url=receiver.at("/new"))
    moved.set()
    deliver(lambda: not pending(webhook))
    webhook.refresh_from_db()
    assert (webhook.enabled, webhook.failures, webhook.last_error, webhook.slow) == (True, 0, "", False)
    assert len(receiver.to("/new")) == 1
    assert [attempt["status"] for attempt in attempts()] == [410, 204]


def test_an_answer_counts_whatever_its_retry_after_says(
    user: User, hook: Hook, receiver: Receiver, deliver: Deliver
) -> None:
    hook(user)
    receiver.answer("/", 503, Retry_After=f"Mon, 01 Jan 2024 00:00:00 +{10**20}")
    cancelled(user, 1)
    deliver(attempts)
    assert [attempt["status"] for attempt in attempts()] == [503]


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
    user: User, hook: Hook, receiver: Receiver, authority: Path, tmp_path: Path
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
            until(lambda number=number: len(receiver.got) >= number, 60, f"{(tmp_path / 'log1').read_text()}")
            if number == 1:
                processes[0].signal(signal.SIGKILL)
                receiver.closing.set()
                receiver.answer("/", 204)
                assert Webhook.objects.get().leased_until > timezone.now() + timedelta(seconds=10)
                Webhook.objects.update(leased_until=timezone.now())  # as if its time were over
        until(lambda: not pending(webhook), 60, "all is delivered")
        processes[1].signal(signal.SIGTERM)
        until(lambda: not processes[1].alive(), 60, "it ends")
        assert processes[1].child is not None
        assert processes[1].child.returncode == 0, (tmp_path / "log2").read_text()
    finally:
        for process in processes:
            process.kill()
    assert receiver.got[0].message == receiver.got[1].message
    assert [got.json["data"]["sequence"] for got in receiver.got] == [1, *range(1, 26)]


def test_two_processes_send_to_a_receiver_in_turns(user: User, hook: Hook, receiver: Receiver) -> None:
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
        until(lambda: len(receiver.got) >= 80 and not pending(webhook), 60, "all is delivered")
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
