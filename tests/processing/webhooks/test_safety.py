"""What is signed, and where no message is sent."""

import time
from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from accounts.models import User
from processing.webhooks import owning
from processing.webhooks.delivery import signing
from processing.webhooks.models import Webhook
from tests.processing.webhooks.messages import Deliver, Hook, attempts, cancelled
from tests.processing.webhooks.receiver import Receiver


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
