"""The routes of webhooks: whose they are, what fits, and what is never shown."""

from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from accounts.audit import SecurityEvent
from processing.webhooks.models import CHOSEN, Delivery, Webhook
from project.web.rate_limit import Limit
from tests.processing.webhooks.messages import cancelled
from tests.queues.api import Caller
from tests.queues.threads import at_once

URL = "https://example.com/hooks?a=1"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def caller() -> Caller:
    return Caller()


def create(caller: Caller, **fields: Any) -> Any:
    answer = caller.post("webhooks", {"url": URL, **fields})
    assert answer.status == 201, answer.content
    return answer.json


def test_a_webhook_is_made_shown_changed_and_deleted(caller: Caller) -> None:
    answer = caller.post("webhooks", {"url": URL})
    made = answer.json
    assert answer.status == 201
    assert answer.headers["Location"] == f"/api/v1/webhooks/{made['id']}"
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert {name: value for name, value in made.items() if name not in ("id", "created_at")} == {
        "url": URL,
        "events": [event.value for event in CHOSEN],
        "enabled": True,
        "disabled_reason": None,
        "failing_since": None,
        "last_error": None,
        "last_delivered_at": None,
        "next_attempt_at": None,
    }
    assert caller.get(f"webhooks/{made['id']}").json == made
    assert caller.get("webhooks").json == {"results": [made], "limit": 10}
    changed = caller.send(
        "PATCH", f"webhooks/{made['id']}", {"events": ["request.failed", "request.failed"], "enabled": False}
    )
    assert changed.json == made | {"events": ["request.failed"], "enabled": False}
    assert caller.send("DELETE", f"webhooks/{made['id']}").status == 204
    assert caller.get(f"webhooks/{made['id']}").status == 404
    assert caller.get("webhooks").json["results"] == []
    assert secret not in str([caller.get("webhooks").json, changed.json])


def test_the_audit_trail_tells_who_made_changed_and_deleted_a_webhook(caller: Caller) -> None:
    made = create(caller)
    caller.send("PATCH", f"webhooks/{made['id']}", {"url": "https://example.org/elsewhere", "enabled": True})
    caller.send("PATCH", f"webhooks/{made['id']}", {})
    caller.post(f"webhooks/{made['id']}/rotate-secret")
    caller.send("DELETE", f"webhooks/{made['id']}", None)
    assert caller.post("webhooks", {"url": "http://example.com/"}).status == 400
    lines = SecurityEvent.objects.filter(user_id=caller.user.id, event__startswith="webhook").order_by("id")
    webhook = f"webhook {made['id']}"
    assert [(line.event, line.detail) for line in lines] == [
        ("webhook_created", webhook),
        ("webhook_changed", f"{webhook}: enabled, url"),
        ("webhook_changed", f"{webhook}: secret"),
        ("webhook_deleted", webhook),
    ]
    assert all(line.address and line.request_id for line in lines)


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"url": "http://example.com/"}, "url", "url"),
        ({"url": "ftp://example.com/"}, "url", "url"),
        ({"url": "https://user:password@example.com/"}, "url", "url"),
        ({"url": "https://10.0.0.1/"}, "url", "url"),
        ({"url": "https://[::1]/"}, "url", "url"),
        ({"url": "https://169.254.169.254/latest"}, "url", "url"),
        ({"url": "https://example.com/#here"}, "url", "url"),
        ({"url": "https://example.com/\n"}, "url", "url"),
        ({"url": "https://example.com/" + "a" * 2048}, "url", "url"),
        ({"url": "https://" + "ä" * 700 + ".com/" + "ä" * 700}, "url", "url"),
        ({"url": 5}, "url", "invalid"),
        ({"events": []}, "events", "empty"),
        ({"events": ["request.started"]}, "events.0", "invalid_choice"),
        ({"events": ["webhook.test"]}, "events.0", "invalid_choice"),
        ({"events": "request.failed"}, "events", "not_a_list"),
        ({"enabled": "perhaps"}, "enabled", "invalid"),
        ({"secret": "whsec_mine"}, "secret", "unknown"),
    ],
)
def test_what_does_not_fit_is_named(caller: Caller, fields: dict[str, Any], field: str, code: str) -> None:
    answer = caller.post("webhooks", {"url": URL, **fields})
    assert answer.status == 400
    assert answer.errors == {field: code}
    made = create(caller)
    answer = caller.send("PATCH", f"webhooks/{made['id']}", fields)
    assert (answer.status, answer.errors) == (400, {field: code})


def test_http_and_inner_addresses_are_for_hosts_that_the_operator_names(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "webhook_allow", "hooks.internal,10.0.0.0/8")
    for url in ("http://hooks.internal:8080/x", "http://10.1.2.3/", "https://10.1.2.3/"):
        assert create(caller, url=url)["url"] == url
    for url in ("http://other.internal/", "https://192.168.0.1/", "http://127.0.0.1/"):
        assert caller.post("webhooks", {"url": url}).errors == {"url": "url"}


def test_nobody_learns_of_anybody_elses(caller: Caller) -> None:
    made = create(caller)
    cancelled(caller.user, 1)
    delivery = Delivery.objects.get().uid
    stranger = Caller()
    nobodys = "0" * 8 + "-0000-0000-0000-" + "0" * 12
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {"enabled": False}),
        ("PATCH", "", {"enabled": "wrong"}),
        ("DELETE", "", None),
        ("POST", "/test", None),
        ("POST", "/rotate-secret", None),
        ("GET", "/deliveries", None),
        ("POST", f"/deliveries/{delivery}/resend", None),
    ):
        theirs = stranger.send(method, f"webhooks/{made['id']}{path}", body)
        none = stranger.send(method, f"webhooks/{nobodys}{path}", body)
        assert (theirs.status, none.status) == (404, 404)
        assert theirs.json | {"request_id": ""} == none.json | {"request_id": ""}
        assert stranger.send(method, f"webhooks/nonsense{path}", body).status == 404
    mine = create(stranger)
    assert stranger.post(f"webhooks/{mine['id']}/deliveries/{delivery}/resend").status == 404
    assert caller.get(f"webhooks/{made['id']}").json["enabled"] is True
    assert Delivery.objects.get().state == "pending"


def test_ten_and_no_more_also_when_many_are_made_at_once(caller: Caller) -> None:
    statuses = at_once(14, lambda _: caller.post("webhooks", {"url": URL}).status)
    assert sorted(statuses) == [201] * 10 + [409] * 4
    assert Webhook.objects.count() == 10
    caller.send("DELETE", f"webhooks/{Webhook.objects.earliest('id').id}")
    assert caller.post("webhooks", {"url": URL}).status == 201


def test_calls_are_limited(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processing.webhooks.views.CALLS", Limit("webhooks", 2))
    made = create(caller)
    assert caller.post(f"webhooks/{made['id']}/test").status == 202
    answer = caller.post(f"webhooks/{made['id']}/test")
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert caller.get("webhooks").status == 200


def test_a_test_is_a_message_like_others(caller: Caller) -> None:
    made = create(caller, events=["request.failed"])
    answer = caller.post(f"webhooks/{made['id']}/test")
    assert answer.status == 202
    assert answer.json["event"] == "webhook.test"
    assert answer.json["message_id"] == f"msg_{answer.json['id'].replace('-', '')}"
    assert caller.get(f"webhooks/{made['id']}/deliveries").json["results"] == [answer.json]
    caller.send("PATCH", f"webhooks/{made['id']}", {"enabled": False})
    assert caller.post(f"webhooks/{made['id']}/test").status == 409


def test_a_secret_is_shown_once_when_it_is_made_and_once_when_it_is_changed(caller: Caller) -> None:
    made = create(caller)
    changed = caller.post(f"webhooks/{made['id']}/rotate-secret").json
    assert set(changed) == {"secret", "old_secret_until"}
    assert changed["secret"] != made["secret"]
    webhook = Webhook.objects.get()
    assert (webhook.secret, webhook.old_secret) == (changed["secret"], made["secret"])
    shown = str([caller.get("webhooks").json, caller.get(f"webhooks/{made['id']}").json])
    assert "whsec_" not in shown


def test_what_ended_can_be_sent_again_and_what_is_pending_is(caller: Caller) -> None:
    made = create(caller)
    cancelled(caller.user, 1)
    delivery = Delivery.objects.get()
    path = f"webhooks/{made['id']}/deliveries/{delivery.uid}/resend"
    assert caller.post(path).status == 409
    Delivery.objects.update(state="delivered", announced=True)
    answer = caller.post(path)
    assert (answer.status, answer.json["state"], answer.json["id"]) == (202, "pending", str(delivery.uid))
    assert not Delivery.objects.get().announced
    Delivery.objects.update(state="delivered")
    caller.send("PATCH", f"webhooks/{made['id']}", {"enabled": False})
    assert caller.post(path).status == 409


def test_deliveries_are_listed_the_newest_first_a_page_at_a_time(caller: Caller) -> None:
    made = create(caller)
    cancelled(caller.user, 5)
    Delivery.objects.filter(id=Delivery.objects.earliest("id").id).update(state="delivered")
    every = [str(uid) for uid in Delivery.objects.order_by("-id").values_list("uid", flat=True)]
    base = f"webhooks/{made['id']}/deliveries"

    def ids(answer: Any) -> list[str]:
        return [one["id"] for one in answer.json["results"]]

    def follow(url: str) -> Any:
        return caller.get(url.split("/api/v1/")[1])

    first = caller.get(f"{base}?limit=2")
    assert (ids(first), first.json["previous"]) == (every[:2], None)
    second = follow(first.json["next"])
    third = follow(second.json["next"])
    assert (ids(second), ids(third), third.json["next"]) == (every[2:4], every[4:], None)
    assert ids(follow(third.json["previous"])) == every[2:4]
    back = follow(follow(third.json["previous"]).json["previous"])
    assert (ids(back), back.json["previous"]) == (every[:2], None)
    assert ids(caller.get(f"{base}?state=delivered")) == every[4:]
    assert caller.get(f"{base}?state=lost").errors == {"state": "invalid_choice"}
    assert caller.get(f"{base}?cursor=nonsense").errors == {"cursor": "cursor"}
    assert caller.get(f"{base}?limit=201").errors == {"limit": "max_value"}


def test_switched_on_again_it_begins_anew(caller: Caller) -> None:
    made = create(caller)
    Webhook.objects.update(
        enabled=False, disabled_reason="Nothing", failures=9, failing_since="2026-01-01T00:00:00Z", last_error="500"
    )
    shown = caller.send("PATCH", f"webhooks/{made['id']}", {"enabled": True}).json
    assert (shown["enabled"], shown["disabled_reason"], shown["failing_since"]) == (True, None, None)
    webhook = Webhook.objects.get()
    assert webhook.failures == 0
    assert webhook.due_at is not None
    lease = webhook.leased_until
    Webhook.objects.update(failures=3)
    caller.send("PATCH", f"webhooks/{made['id']}", {"enabled": True})  # it is on: nothing happens
    assert (Webhook.objects.get().failures, Webhook.objects.get().leased_until) == (3, lease)


def test_all_of_it_goes_with_its_user(caller: Caller) -> None:
    create(caller)
    cancelled(caller.user, 1)
    caller.user.delete()
    assert (Webhook.objects.count(), Delivery.objects.count()) == (0, 0)
    other = Caller()
    create(other)
    with connection.cursor() as cursor:  # as where the app is not installed any more
        cursor.execute("DELETE FROM queues_userqueue")
    assert Webhook.objects.count() == 0
