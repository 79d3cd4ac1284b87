"""What operators see of webhooks, and the process that delivers them."""

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.utils import timezone

from accounts import retention
from accounts.models import SecurityEvent
from processing.operations.erase import erase
from processing.webhooks import owning
from processing.webhooks.models import Delivery, Webhook
from processing.webhooks.showing import webhook_as_json
from queues.operations import erasure
from queues.operations.export import records
from scripts.place import ROOT, free_port
from scripts.servers.process import launch
from tests.processing.crew import new_user
from tests.processing.webhooks.messages import cancelled
from tests.processing.webhooks.receiver import Receiver
from tests.staff import confirm, make_groups, member_of
from tests.waiting import until

WEBHOOKS, DELIVERIES = "/admin/webhooks/webhook/", "/admin/webhooks/delivery/"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def webhook() -> Webhook:
    user = new_user()
    webhook = owning.create(user.id, "https://example.com/hook", ["request.cancelled"], enabled=True)
    cancelled(user, 1)
    Webhook.objects.update(last_error="The receiver answered 500 <b>.", failures=3, old_secret="whsec_old")
    attempt = {"at": "2026-11-28T09:30:00Z", "status": 500, "duration_ms": 3.5, "error": "The receiver answered 500."}
    Delivery.objects.update(state="delivered", attempts=[attempt], response_body="<script>")
    return webhook


def rows(page: Any) -> list[Any]:
    return list(page.context["cl"].result_list)


@pytest.fixture
def groups(transactional_db: None) -> None:
    make_groups()


def test_viewers_see_webhooks_with_their_last_error_and_no_secret(groups: None, webhook: Webhook) -> None:
    viewer = member_of("viewer")
    [delivery] = Delivery.objects.all()
    pages = [
        viewer.get(WEBHOOKS, {"q": webhook.queue.user.username}),
        viewer.get(f"{WEBHOOKS}{webhook.id}/change/"),
        viewer.get(DELIVERIES, {"q": str(webhook.queue.user_id)}),
        viewer.get(f"{DELIVERIES}{delivery.id}/change/"),
    ]
    assert [page.status_code for page in pages] == [200] * 4
    assert (rows(pages[0]), rows(pages[2])) == ([webhook], [delivery])
    assert rows(viewer.get(WEBHOOKS, {"q": "nobody"})) == []
    text = [page.content.decode() for page in pages]
    assert "The receiver answered 500 &lt;b&gt;." in text[0]
    assert "&lt;script&gt;" in text[3]
    assert "500  3.5 ms  The receiver answered 500." in text[3]
    assert not any("whsec_" in one for one in text)


def test_operators_have_deliveries_sent_once_more_and_viewers_do_not(groups: None, webhook: Webhook) -> None:
    delivery = Delivery.objects.get()
    asked = {"action": "resend", "_selected_action": [delivery.id]}
    assert confirm(member_of("viewer"), DELIVERIES, asked).status_code == 403
    operator = member_of("operator")
    [named] = operator.post(DELIVERIES, asked).context["named"]
    assert named.startswith("request.cancelled of ")
    assert named.endswith(f" UTC to {webhook.url} of {webhook.queue.user.username}")
    assert Delivery.objects.get().state == "delivered"
    answer = confirm(operator, DELIVERIES, asked, follow=True)
    assert b"1 sent once more." in answer.content
    assert Delivery.objects.get().state == "pending"
    told = f"changed webhooks.Delivery {delivery.id}: sent once more: ticket 4711"
    assert SecurityEvent.objects.filter(event="staff_action").latest("id").detail == told
    again = operator.post(DELIVERIES, asked, follow=True)
    assert b"There is nothing that this could be done to." in again.content


def test_operators_switch_webhooks_off_and_on_and_viewers_do_not(groups: None, webhook: Webhook) -> None:
    Webhook.objects.update(due_at=timezone.now())
    off, on = ({"action": f"switch_{to}", "_selected_action": [webhook.id]} for to in ("off", "on"))
    assert confirm(member_of("viewer"), WEBHOOKS, off).status_code == 403
    operator = member_of("operator")
    assert operator.post(WEBHOOKS, off).context["named"] == [f"{webhook.url} of {webhook.queue.user.username}"]
    assert Webhook.objects.filter(enabled=True, due_at__isnull=False).exists(), "nothing is done before it is confirmed"
    assert b"1 switched off." in confirm(operator, WEBHOOKS, off, follow=True).content
    webhook.refresh_from_db()
    assert (webhook.enabled, webhook.due_at, webhook.failures) == (False, None, 3)
    assert webhook_as_json(webhook)["disabled_reason"] == "An operator switched it off."
    assert b"There is nothing that" in operator.post(WEBHOOKS, off, follow=True).content
    assert b"1 switched on." in confirm(operator, WEBHOOKS, on, follow=True).content
    webhook.refresh_from_db()
    assert (webhook.enabled, webhook.due_at is None, webhook.failures, webhook.disabled_reason) == (True, False, 0, "")
    told = SecurityEvent.objects.filter(event="staff_action").order_by("id").values_list("detail", flat=True)
    assert list(told)[-2:] == [
        f"changed webhooks.Webhook {webhook.id}: switched {to}: ticket 4711" for to in ("off", "on")
    ]
    assert webhook.url not in [entry.object_repr for entry in LogEntry.objects.all()]
    owning.remove(webhook)
    assert b"There is nothing that" in operator.post(WEBHOOKS, on, follow=True).content


def test_a_webhooks_page_leads_to_its_deliveries(groups: None, webhook: Webhook) -> None:
    other = owning.create(webhook.queue.user_id, "https://example.com/other", ["request.failed"], enabled=True)
    owning.test(other)
    viewer = member_of("viewer")
    page = viewer.get(f"{WEBHOOKS}{webhook.id}/change/").content.decode()
    [address] = re.findall(r'href="([^"]+)">All to this webhook', page)
    assert rows(viewer.get(address)) == list(webhook.deliveries.all())


def test_an_export_has_webhooks_and_deliveries_and_no_secret(webhook: Webhook) -> None:
    told = list(records(webhook.queue.user))
    assert [one["url"] for one in told if one["record"] == "webhook"] == [webhook.url]
    assert [one["webhook"] for one in told if one["record"] == "webhook_delivery"] == [webhook.id]
    assert "whsec_" not in str(told)


def test_an_erased_user_s_deliveries_go_in_parts_before_the_user_does(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, other = webhook.queue.user, new_user()
    cancelled(user, 4)
    theirs = owning.create(other.id, "https://example.com/theirs", ["request.cancelled"], enabled=True)
    cancelled(other, 1)
    parts, left = [], []
    [remove_of], remove_user = erasure.others, retention.remove_user

    def counted(user_id: UUID, count: int) -> int:
        parts.append(remove_of(user_id, count))
        return parts[-1]

    def removed(user_id: UUID, *, by: str) -> None:
        left.append(webhook.deliveries.count())
        remove_user(user_id, by=by)

    monkeypatch.setattr(erasure, "others", [counted])
    monkeypatch.setattr(retention, "remove_user", removed)
    erase(user, patience=1, count=2, by="a test", tell=lambda _: None)
    assert (parts, left) == ([2, 2, 1, 0], [0])
    assert list(Webhook.objects.all()) == [theirs]
    assert theirs.deliveries.count() == 1
    theirs.refresh_from_db()
    assert theirs.enabled


def test_the_process_says_how_it_is_and_what_it_counted(receiver: Receiver, authority: Path, tmp_path: Path) -> None:
    user = new_user()
    owning.create(user.id, receiver.at(), ["request.cancelled"], enabled=True)
    port = free_port()
    environment = {**os.environ, "WEBHOOK_ALLOW": "127.0.0.1", "SSL_CERT_FILE": str(authority)}
    command = [sys.executable, str(ROOT / "manage.py"), "deliver_webhooks", "--health-port", str(port)]

    def ask(path: str) -> str:
        try:
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError as error:
            return str(error)

    with (tmp_path / "log").open("wb") as output:
        process = launch(command, environment=environment, output=output, folder=ROOT)
    try:
        until(lambda: '"status":"ok"' in ask("/health/ready"), 60, "it is ready")
        assert json.loads(ask("/health/live"))["checks"] == {"webhooks": "ok"}
        assert json.loads(ask("/health/ready"))["checks"] == {
            "postgresql": "ok", "migrations": "ok", "webhooks": "ok"
        }  # fmt: skip
        cancelled(user, 3)
        until(lambda: 'ordered_work_webhook_attempts_total{outcome="delivered"} 3.0' in ask("/metrics"), 60, "counted")
        for name in ("ordered_work_webhook_lag_seconds", "ordered_work_webhooks_switched_off_total"):
            assert f"\n{name} 0.0" in ask("/metrics")
        process.signal(signal.SIGTERM)
        until(lambda: not process.alive(), 60, "it ends")
        assert process.child is not None
        assert process.child.returncode == 0
    finally:
        process.kill()
