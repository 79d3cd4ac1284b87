"""DELETE /api/v1/auth/me: the user is out at once, and the dispatcher's process erases what is left."""

import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from accounts.audit import SecurityEvent
from accounts.models import Invitation, Mail, User
from processing.broker.errors import BrokerUnavailable
from processing.dispatch import chores
from processing.dispatch.chores import Erasures
from processing.handlers import HandlerRequest
from project.web import rate_limit
from project.web.rate_limit import Limit
from queues.models import UserQueue
from tests.accounts.people import PASSWORD, Api, make_user, named
from tests.processing.conftest import Script
from tests.processing.crew import Hand, requests_of, submit
from tests.processing.traces import left_of
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("quick_hashes", "no_limit_reached")


def leave(api: Api, password: str = PASSWORD) -> Any:
    return api.send("DELETE", "auth/me", {"password": password})


def test_one_who_leaves_is_out_at_once_and_gone_soon(hand: Hand, script: Script) -> None:
    @script
    def note(request: HandlerRequest) -> str:
        return "done"

    user, other = make_user(username="zoe", email="zoe@example.com"), make_user()
    first, second = Api.of(user), Api.of(user)
    Invitation.objects.create(email="zoe@example.com", used_at=timezone.now(), used_by=user)
    Mail.objects.create(purpose="reset", address="ZOE@example.com")
    submit(user, "note", kind="test.script")
    submit(other, "note", kind="test.script")
    hand.settle()
    submit(user, "note", kind="test.script")
    assert leave(first).status_code == 202
    for api in (first, second):
        assert api.get("auth/me").status_code == 401
        assert api.post("requests", {"kind": "demo.echo", "payload": 1}).status_code == 401
    erasures, user_id = Erasures(), user.id
    assert erasures.step()
    assert left_of(user_id) == {}
    assert not erasures.step()
    trail = SecurityEvent.objects.filter(user_id=user_id).order_by("id")
    assert list(trail.values_list("event", flat=True)) == ["erase_asked", "deactivated", "erased"]
    assert set(trail.values_list("address", "user_agent")) == {(None, "")}
    assert Mail.objects.count() == 0
    assert Invitation.objects.get().email == ""
    assert [request.status for request in requests_of(other)] == ["succeeded"]
    assert make_user(username="zoe").id != user_id


def test_a_wrong_password_erases_nobody_and_is_limited(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "FAILED_LOGINS", Limit("failed-logins", 2))
    user = make_user()
    api = Api.of(user)
    for _ in range(2):
        refused = leave(api, "the-guess")
        assert (refused.status_code, named(refused)) == (400, [("password", "wrong")])
    assert leave(api).status_code == 429
    assert not Erasures().step()
    assert User.objects.get(id=user.id).is_active


def test_what_runs_is_asked_to_end(hand: Hand, script: Script) -> None:
    begun, ended = threading.Event(), threading.Event()

    @script
    def patient(request: HandlerRequest) -> None:
        begun.set()
        until(lambda: request.cancelled, 60)
        ended.set()

    user = make_user()
    api = Api.of(user)
    submit(user, "patient", "patient", kind="test.script")
    hand.dispatch()

    def left() -> None:
        begun.wait(30)
        leave(api)
        Erasures().step()
        connection.close()

    leaving = threading.Thread(target=left)
    leaving.start()
    hand.work(1)
    leaving.join(60)
    assert ended.is_set()
    assert left_of(user.id) == {}


def test_without_rabbitmq_others_come_first_and_it_is_tried_again(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = make_user(), make_user()
    submit(stuck, "note")
    for user in (stuck, other):
        assert leave(Api.of(user)).status_code == 202
    erasures = Erasures()

    def away(*_: object) -> None:
        raise BrokerUnavailable("refused")

    with monkeypatch.context() as patched:
        patched.setattr("processing.operations.erase.Publisher.delete", away)
        assert erasures.step()
        assert UserQueue.objects.filter(user=stuck).exists()
        assert erasures.step()
        assert left_of(other.id) == {}
        assert not erasures.step(), "it is too early for another try"
    monkeypatch.setattr(erasures._set_aside, "holds", lambda _: False)
    assert erasures.step()
    assert left_of(stuck.id) == {}


def test_one_whom_staff_let_in_again_stays(hand: Hand) -> None:
    user = make_user()
    assert leave(Api.of(user)).status_code == 202
    User.objects.filter(id=user.id).update(is_active=True)
    assert not Erasures().step()
    assert User.objects.filter(id=user.id).exists()


def test_a_dispatcher_s_process_sends_mails_and_erases(hand: Hand, tmp_path: Path) -> None:
    user = make_user(username="ada", email="ada@example.com")
    leaving = make_user()
    submit(leaving, "note")
    assert Api().post("auth/password-reset", {"email": "ada@example.com"}).status_code == 202
    assert leave(Api.of(leaving)).status_code == 202
    environment = os.environ | {"EMAIL_URL": f"file:{tmp_path}", "PUBLIC_URL": "https://work.example.com"}
    command = [sys.executable, "-m", "tests.processing.run", "dispatch"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: list(tmp_path.iterdir()), 60, "the mail leaves")
        until(lambda: left_of(leaving.id) == {}, 60, "the user is erased")
        until(lambda: not Mail.objects.exists(), 60, "the mail is off the list")
    finally:
        process.terminate()
        assert process.wait(30) == 0
    (sent,) = tmp_path.iterdir()
    assert "To: ada@example.com" in sent.read_text()
    assert "https://work.example.com/account/password-reset/confirm?token" in sent.read_text()
    assert User.objects.filter(id=user.id).exists()


def test_a_defect_in_one_erasure_is_nobody_elses(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_user(), make_user()
    for user in (first, second):
        assert leave(Api.of(user)).status_code == 202
    User.objects.filter(id=first.id).update(erase_asked_at=timezone.now() - timedelta(minutes=1))
    real = chores.erase

    def fails_for_one(user: User, **named: Any) -> int:
        if user.id == first.id:
            raise RuntimeError("a defect")
        return int(real(user, **named))

    monkeypatch.setattr(chores, "erase", fails_for_one)
    erasures = Erasures()
    with pytest.raises(RuntimeError):
        erasures.step()
    assert erasures.step()
    assert left_of(second.id) == {}
    assert left_of(first.id) == {"users": 1, "sessions": 1}
