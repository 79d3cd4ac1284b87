"""`manage.py user erase`: all that is known of a user is gone, whatever comes in between."""

import threading
from typing import Any

import pytest
from django.db import connection

from accounts.audit import SecurityEvent
from processing.broker.errors import BrokerUnavailable
from processing.handlers import HandlerRequest
from processing.operations import erase
from project.redis import call
from project.web.rate_limit import SUBMIT
from queues.management.command_base import OperatorCommand
from queues.models import OperatorAction
from queues.notify import progress
from queues.representation import response_cache
from tests.accounts.people import make_user
from tests.processing.conftest import Script
from tests.processing.crew import Hand, Wire, queue_of, requests_of, submit
from tests.processing.traces import left_of, used
from tests.queues.commands import run
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("quick_hashes", "no_limit_reached")


def test_an_erased_user_is_gone_everywhere(hand: Hand, wire: Wire, script: Script) -> None:
    user, api = used(hand, script)
    other = make_user()
    submit(other, "note")
    hand.dispatch()
    queue_id, user_id = queue_of(user).id, user.id
    ids = [request.id for request in requests_of(user)]
    assert api.get(f"requests/{ids[0]}").json()["status"] == "succeeded"
    assert response_cache.get(user_id, ids[0])
    assert wire.exists(queue_id)
    assert any(progress.read(ids))
    assert run("queue", "pause", "zoe", "--yes").status == 0
    OperatorAction.objects.create(by="root@here", command="failed retry --queue=Zoe 3 requests")
    SecurityEvent.objects.create(
        event="staff_action", user_id=other.id, actor_id=user_id, address="192.0.2.7", user_agent="Her Phone"
    )
    assert run("user", "erase", "zoe", "--yes", "--batch-size", 2).status == 0
    assert left_of(user_id) == {}
    assert left_of(other.id) == {"users": 1, "queues": 1, "requests": 1}
    assert not wire.exists(queue_id)
    assert not any(progress.read(ids))
    assert not any(response_cache.get(user_id, one) for one in ids)
    assert call("EXISTS", SUBMIT.claim(str(user_id)).redis_key) == 0
    assert api.get("auth/me").status_code == 401
    assert api.post("requests", {"kind": "demo.echo", "payload": 1}).status_code == 401
    assert not OperatorAction.objects.filter(command__icontains="zoe").exists()
    assert OperatorAction.objects.filter(command=f"failed retry --queue={user_id} 3 requests").exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM accounts_securityevent WHERE user_id = %s OR actor_id = %s", [user_id, user_id])
        trail = str(cursor.fetchall())
    assert "Phone" not in trail
    assert "192.0.2.7" not in trail
    assert "zoe" not in trail
    lines = SecurityEvent.objects.filter(user_id=user_id).order_by("id")
    assert (lines[0].event, lines.last().event) == ("rights_changed", "erased")  # type: ignore[union-attr]
    assert set(lines.exclude(event="erased").values_list("address", "user_agent")) == {(None, "")}
    hand.settle()
    assert [request.status for request in requests_of(other)] == ["succeeded"]
    assert make_user(username="zoe").id != user_id


def test_what_runs_is_asked_to_end(hand: Hand, script: Script) -> None:
    begun, ended = threading.Event(), threading.Event()

    @script
    def patient(request: HandlerRequest) -> None:
        begun.set()
        until(lambda: request.cancelled, 60)
        ended.set()

    user = make_user()
    submit(user, "patient", "patient")
    hand.dispatch()
    eraser = threading.Thread(
        target=lambda: (begun.wait(30), run("user", "erase", user.id, "--yes"), connection.close())
    )
    eraser.start()
    hand.work(1)
    eraser.join(60)
    assert ended.is_set()
    assert left_of(user.id) == {}


def test_what_does_not_end_records_nothing(hand: Hand, script: Script) -> None:
    begun, erased = threading.Event(), threading.Event()
    ran = []

    @script
    def stubborn(request: HandlerRequest) -> None:
        ran.append(request.sequence)
        begun.set()
        erased.wait(60)

    user = make_user()
    submit(user, "stubborn", "stubborn")
    hand.dispatch()
    done: list[Any] = []

    def erase() -> None:
        begun.wait(30)
        done.append(run("user", "erase", user.id, "--yes", "--patience", 0.1))
        connection.close()
        erased.set()

    eraser = threading.Thread(target=erase)
    eraser.start()
    hand.work(1)
    eraser.join(60)
    assert done[0].status == 0
    assert "did not end within 0.1 s" in done[0].err
    assert ran == [1]
    assert left_of(user.id) == {}


STEPS = ["end_work", "remove_requests", "remove_keys", "remove_limits", "remove_mentions"]


@pytest.mark.parametrize("step", [*STEPS, "shut_out", "remove_sessions", "make_nameless", "remove_user"])
def test_an_erasure_killed_at_any_step_is_finished_by_another(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    user, api = used(hand, script)
    hand.dispatch()
    user_id, queue_id = user.id, queue_of(user).id
    room = erase.erasure if step in STEPS else erase.retention
    real = getattr(room, step)

    def killed(*args: Any, **named: Any) -> None:
        real(*args, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(room, step, killed)
        with pytest.raises(KeyboardInterrupt):
            run("user", "erase", "zoe", "--yes", "--batch-size", 2)
    assert api.get("auth/me").status_code == 401
    again = run("user", "erase", user_id, "--yes", "--batch-size", 2)
    assert again.status == (3 if step == "remove_user" else 0)  # 3: there is no such user
    assert left_of(user_id) == {}
    assert not hand.wire.exists(queue_id)


def test_of_two_erasures_at_once_one_is_refused_and_the_other_does_it(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, _ = used(hand, script)
    user_id = user.id
    begun, refused = threading.Event(), threading.Event()
    real = erase.erasure.end_work

    def slow(*args: Any) -> bool:
        begun.set()
        assert refused.wait(30)
        return real(*args)

    monkeypatch.setattr(erase.erasure, "end_work", slow)
    done: list[Any] = []
    first = threading.Thread(target=lambda: (done.append(run("user", "erase", user_id, "--yes")), connection.close()))
    first.start()
    assert begun.wait(30)
    second = run("user", "erase", user_id, "--yes")
    refused.set()
    first.join(60)
    assert (second.status, second.said) == (1, "This user is being erased just now.")
    assert (done[0].status, left_of(user_id)) == (0, {})
    outcomes = OperatorAction.objects.filter(command=f"user erase {user_id}").order_by("outcome")
    assert [one.outcome.partition(":")[0].partition(",")[0] for one in outcomes] == ["erased", "refused"]


def test_one_who_was_erased_while_somebody_was_asked_is_no_user_any_more(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = make_user()

    def confirmed(*_: Any) -> bool:
        erase.erase(user, patience=1, count=10, by="somebody else", tell=lambda _: None)
        return True

    monkeypatch.setattr(OperatorCommand, "confirm", confirmed)
    ran = run("user", "erase", user.username)
    assert (ran.status, ran.said) == (3, f"There is no user {user.username!r} any more.")


def test_without_rabbitmq_the_user_is_locked_out_and_the_rest_waits(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, api = used(hand, script)

    def away(*_: object) -> None:
        raise BrokerUnavailable("refused")

    with monkeypatch.context() as patched:
        patched.setattr(erase.Publisher, "delete", away)
        ran = run("user", "erase", "zoe", "--yes")
    assert ran.status == 4
    assert "run it again" in ran.said
    assert api.get("auth/me").status_code == 401
    assert run("user", "erase", "zoe", "--yes").status == 0
    assert left_of(user.id) == {}


def test_no_statement_of_an_erasure_takes_more_than_a_part(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(hand, script)
    sizes: list[int] = []
    real = erase.erasure.remove_requests

    def counted(queue_id: int, count: int) -> int:
        sizes.append(real(queue_id, count))
        return sizes[-1]

    monkeypatch.setattr(erase.erasure, "remove_requests", counted)
    run("user", "erase", "zoe", "--yes", "--batch-size", 3)
    assert sizes == [3, 3, 3, 2, 0]


def test_one_who_never_asked_for_anything_is_erased_too(hand: Hand) -> None:
    user = make_user()
    user_id = user.id
    assert run("user", "erase", user.username, "--dry-run").err.startswith("dry run: would erase")
    assert run("user", "erase", user.username).status == 6
    assert left_of(user_id) == {"users": 1}
    assert run("user", "erase", user.username, "--yes").status == 0
    assert left_of(user_id) == {}
    assert run("user", "erase", user.username, "--yes").status == 3
