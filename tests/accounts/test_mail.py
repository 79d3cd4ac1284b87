"""A mail that was asked for leaves, whatever its server does meanwhile; one that cannot leaves a trace."""

import smtplib
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail as outbox
from django.db.models import F
from django.utils import timezone
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from accounts.audit import SecurityEvent
from accounts.mail import delivery as mail
from accounts.mail.delivery import send_next
from accounts.mail.outbox import Mail, Purpose, put
from accounts.models import User
from processing.dispatch.chores import Chore
from project import email_url
from tests.accounts.mails import delivered, links_in
from tests.accounts.people import at_once, make_user
from tests.waiting import until


def count(outcome: str) -> float:
    return REGISTRY.get_sample_value("ordered_work_mails_total", {"outcome": outcome}) or 0


@pytest.fixture
def ada(db: None) -> User:
    return make_user(username="ada", email="ada@example.com")


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The mail server is away, until this is called."""
    real = mail.get_connection

    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(mail, "get_connection", refuse)
    return lambda: monkeypatch.setattr(mail, "get_connection", real)


def test_a_mail_that_cannot_leave_is_tried_again_later_and_counted(ada: User, broken: Callable[[], None]) -> None:
    failed, sent = count("failed"), count("sent")
    put(Purpose.RESET, "ada@example.com")
    with capture_logs() as lines:
        assert send_next()
    assert [line["event"] for line in lines] == ["mail_failed"]
    assert "ada@example.com" not in str(lines)
    assert count("failed") == failed + 1
    waiting = Mail.objects.get()
    assert waiting.attempts == 1
    assert timedelta(seconds=20) < waiting.due_at - timezone.now() <= timedelta(seconds=30)
    assert not send_next(), "nobody tries it before its time"
    broken()
    Mail.objects.update(due_at=timezone.now())
    assert len(delivered()) == 1
    assert (Mail.objects.count(), count("sent")) == (0, sent + 1)


def test_a_mail_is_given_up_after_a_day_and_not_in_silence(ada: User, broken: Callable[[], None]) -> None:
    given_up = count("given_up")
    put(Purpose.RESET, "ada@example.com")
    Mail.objects.update(created_at=F("created_at") - timedelta(days=1, seconds=1))
    with capture_logs() as lines:
        assert send_next()
    assert [(line["event"], line["log_level"]) for line in lines] == [("mail_given_up", "error")]
    assert (Mail.objects.count(), count("given_up")) == (0, given_up + 1)


def test_one_that_is_refused_holds_up_no_other(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    real = outbox.EmailMessage.send

    def send(self: Any, *args: Any) -> int:
        if self.to == ["ada@example.com"]:
            raise smtplib.SMTPRecipientsRefused({"ada@example.com": (550, b"no such mailbox")})
        return int(real(self, *args))

    monkeypatch.setattr(outbox.EmailMessage, "send", send)
    make_user(email="bob@example.com")
    for address in ("ADA@example.com", "bob@example.com"):
        put(Purpose.RESET, address)
    with capture_logs() as lines:
        assert [message.to for message in delivered()] == [["bob@example.com"]]
    assert "no such mailbox" in str(lines)
    assert "ada@example.com" not in str(lines)
    assert Mail.objects.get().address == "ADA@example.com"


def test_who_is_killed_while_sending_has_not_lost_the_mail(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    put(Purpose.RESET, "ada@example.com")
    with monkeypatch.context() as patched:
        patched.setattr(mail, "send", killed)
        with pytest.raises(KeyboardInterrupt):
            send_next()
    assert Mail.objects.get().due_at > timezone.now()


@pytest.mark.django_db(transaction=True)
def test_of_many_dispatchers_one_sends_a_mail() -> None:
    make_user(email="ada@example.com")
    for _ in range(5):
        put(Purpose.RESET, "ada@example.com")
    assert sorted(at_once(4, lambda _: sum(iter(send_next, False)))) != [0, 0, 0, 0]
    assert len(outbox.outbox) == 5
    assert SecurityEvent.objects.filter(event="reset_mailed").count() == 5


def test_the_trail_says_from_where_a_link_was_asked_for(ada: User, anyone: Any) -> None:
    sent = {"REMOTE_ADDR": "192.0.2.7", "HTTP_X_REQUEST_ID": "call-7"}
    anyone.post("auth/password-reset", {"email": "ada@example.com"}, **sent)
    delivered()
    line = SecurityEvent.objects.get(event="reset_mailed")
    assert (line.user_id, line.address, line.request_id) == (ada.id, "192.0.2.7", "call-7")


def test_links_lead_where_users_reach_the_service(ada: User, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(settings.ENV, "public_url", "https://work.example.com")
    put(Purpose.RESET, "ada@example.com")
    (message,) = delivered()
    assert links_in(message.body)[0].startswith("https://work.example.com/account/password-reset/confirm?token=")
    assert message.subject == "Set a new password"
    assert "1 hour" in message.body


class Server(threading.Thread):
    """Speaks as much SMTP as one mail needs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.got = b""

    def run(self) -> None:
        client, _ = self.socket.accept()
        with client, client.makefile("rb") as lines:
            client.sendall(b"220 here\r\n")
            for line in lines:
                if line.upper().startswith(b"DATA"):
                    client.sendall(b"354 go on\r\n")
                    while (text := lines.readline()) != b".\r\n":
                        self.got += text
                client.sendall(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 ok\r\n")


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    started.start()
    yield started
    started.socket.close()


def test_a_mail_arrives_at_a_server(ada: User, server: Server, settings: Any) -> None:
    for name, value in email_url.parse(f"smtp://127.0.0.1:{server.port}").items():
        setattr(settings, name, value)
    put(Purpose.VERIFY, "ada@example.com")
    assert send_next()
    server.join(10)
    assert b"To: ada@example.com" in server.got
    assert b"/account/verify-email?token" in server.got


@pytest.mark.parametrize(
    ("url", "means"),
    [
        ("smtp+tls://me:p%40ss@mail.example.com", ("mail.example.com", 587, "me", "p@ss", False, True)),
        ("smtps://me:x@mail.example.com:4465", ("mail.example.com", 4465, "me", "x", True, False)),
        ("smtp://relay", ("relay", 25, "", "", False, False)),
    ],
)
def test_an_address_of_a_mail_server_says_all(url: str, means: tuple[Any, ...]) -> None:
    found = email_url.parse(url)
    names = ("HOST", "PORT", "HOST_USER", "HOST_PASSWORD", "USE_SSL", "USE_TLS")
    assert tuple(found[f"EMAIL_{name}"] for name in names) == means
    assert found["EMAIL_TIMEOUT"] == 10


@pytest.mark.parametrize("url", ["http://x", "smtp://", "smtp://x:y", "smtp://x/path", "smtp://x?tls=1", "x", "file:x"])
def test_an_address_of_none_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(ValueError, match=r"write smtp\+tls://user:password@host:587"):
        email_url.parse(url)


def test_a_chore_goes_on_after_what_it_did_not_expect(db: None) -> None:
    tried: list[int] = []

    def step() -> bool:
        tried.append(1)
        if len(tried) == 1:
            raise RuntimeError("a defect")
        return False

    stop = threading.Event()
    with capture_logs() as lines:
        Chore("trial", step).start(stop)
        until(lambda: len(tried) > 1, 60, "it is tried again")
        stop.set()
    assert "a chore failed" in {line["event"] for line in lines}
