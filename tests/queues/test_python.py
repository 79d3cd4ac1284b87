"""The same from Python: in the caller's transaction, with the API's rules, and at nobody else's expense."""

import re
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

import queues
from accounts.models import User
from queues.models import IdempotencyKey, Request, UserQueue
from queues.notify import hints
from scripts.place import ROOT
from tests.processing.crew import elsewhere, new_user, queue_of
from tests.queues.api import Caller
from tests.queues.threads import at_once


@pytest.fixture
def user(transactional_db: None) -> User:
    return new_user()


def payloads(user: User) -> list[Any]:
    return list(Request.objects.filter(queue__user=user).order_by("seq").values_list("payload", flat=True))


def wrong(user: User, *arguments: Any, **named: Any) -> dict[str, str]:
    """field -> code of what is refused; nothing of it is kept."""
    before = Request.objects.count()
    with pytest.raises(queues.Invalid) as refused:
        queues.submit(user, *arguments, **named)
    assert Request.objects.count() == before
    return {error.field: error.code for error in refused.value.errors}


def test_the_package_can_be_imported_before_django_is_set_up() -> None:
    told = "import queues, sys; print(queues.__all__[-1], 'queues.models' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["submit_many", "False"]


def test_every_name_that_is_offered_is_there() -> None:
    assert all(getattr(queues, name) for name in queues.__all__)
    with pytest.raises(AttributeError):
        queues.nothing_of_that_name  # noqa: B018


def test_what_is_submitted_is_kept_if_the_callers_transaction_commits(user: User) -> None:
    with transaction.atomic():
        submitted = queues.submit(user, "demo.echo", {"order": 7})
        assert elsewhere(lambda: [Request.objects.count()]) == [0], "seen by nobody before the commit"
    assert (submitted.sequence, submitted.kind, submitted.version, submitted.replayed) == (1, "demo.echo", 1, False)
    assert elsewhere(lambda: payloads(user)) == [{"order": 7}]


def test_what_is_submitted_is_gone_if_the_callers_transaction_rolls_back(user: User) -> None:
    with transaction.atomic():
        queues.submit(user, "demo.echo", 1)
        transaction.set_rollback(True)
    assert not Request.objects.exists()
    assert queues.submit(user, "demo.echo", 2).sequence == 1


def test_the_dispatcher_is_told_after_the_commit_and_not_before(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    monkeypatch.setattr(hints, "work_waits", lambda: told.append(True))
    with transaction.atomic():
        queues.submit(user, "demo.echo", 1)
        assert not told
    assert told
    told.clear()
    with transaction.atomic():
        queues.submit(user, "demo.echo", 1)
        transaction.set_rollback(True)
    assert not told


def test_many_are_submitted_in_order_or_none_is(user: User) -> None:
    many = [queues.NewRequest("demo.echo", n) for n in range(5)]
    assert [one.sequence for one in queues.submit_many(user, many)] == [1, 2, 3, 4, 5]
    assert payloads(user) == [0, 1, 2, 3, 4]
    with pytest.raises(queues.Invalid) as refused:
        queues.submit_many(user, [*many, queues.NewRequest("demo.steps", {"steps": 0})])
    assert [error.field for error in refused.value.errors] == ["requests.5.payload.steps"]
    with pytest.raises(queues.Invalid):
        queues.submit_many(user, [])
    assert len(payloads(user)) == 5


def test_what_pydantic_writes_as_json_can_be_a_payload(user: User) -> None:
    day, some = datetime(2026, 11, 28, tzinfo=UTC), uuid4()
    queues.submit(user, "demo.echo", {"at": day, "id": some, "price": Decimal("1.50"), "ü": "ß", "set": {1}})
    assert payloads(user) == [{"at": "2026-11-28T00:00:00Z", "id": str(some), "price": "1.50", "ü": "ß", "set": [1]}]


def test_what_does_not_fit_is_refused_and_named(user: User) -> None:
    assert wrong(user, "demo.none") == {"kind": "unknown_kind"}
    assert wrong(user, 7) == {"kind": "type"}
    assert wrong(user, "demo.echo", version=9) == {"version": "unknown_version"}
    assert wrong(user, "demo.echo", version="1") == {"version": "type"}
    assert wrong(user, "demo.steps", {"steps": 0}) == {"payload.steps": "greater_than_equal"}
    assert wrong(user, "demo.echo", float("nan")) == {"payload": "constant"}
    assert wrong(user, "demo.echo", {"a": ["\0"]}) == {"payload.a.0": "nul"}
    assert wrong(user, "demo.echo", ["\ud800"]) == {"payload.0": "surrogate"}
    assert wrong(user, "demo.echo", {1: "a", "1": "b"}) == {"payload.1": "duplicate"}
    assert wrong(user, "demo.echo", 2**70) == {"payload": "range"}
    assert wrong(user, "demo.echo", object()) == {"payload": "json"}
    assert wrong(user, "demo.echo", "x" * settings.BODY_LIMIT) == {"payload": "too_large"}
    assert wrong(user, "demo.echo", not_before=datetime(2030, 1, 1)) == {"not_before": "time"}  # noqa: DTZ001
    assert wrong(user, "demo.echo", not_before=timezone.now() + timedelta(days=800)) == {"not_before": "too_far"}
    assert wrong(user, "demo.echo", expires_at=timezone.now() - timedelta(1)) == {"expires_at": "past"}
    assert wrong(user, "demo.echo", idempotency_key="a b") == {"idempotency_key": "format"}
    itself: list[Any] = []
    itself.append(itself)
    assert wrong(user, "demo.echo", itself) == {"payload": "json"}


def test_the_limits_hold_and_the_callers_transaction_can_go_on(user: User) -> None:
    UserQueue.objects.create(user=user, waiting_limit=2)
    with transaction.atomic():
        queues.submit(user, "demo.echo", 1)
        with pytest.raises(queues.QueueFull):
            queues.submit_many(user, [queues.NewRequest("demo.echo", n) for n in range(2)])
        queues.submit(user, "demo.echo", 2)
    assert payloads(user) == [1, 2]


def test_an_inactive_user_submits_nothing(user: User) -> None:
    User.objects.filter(id=user.id).update(is_active=False)
    with pytest.raises(queues.SessionOver):
        queues.submit(user, "demo.echo", 1)
    with pytest.raises(queues.SessionOver):
        queues.submit(user, "demo.echo", 1, idempotency_key="k")


def test_a_key_makes_one_request_also_all_at_once(user: User) -> None:
    def send(_: int) -> queues.Submitted:
        with transaction.atomic():
            return queues.submit(user, "demo.echo", "once", idempotency_key="order-7")

    sent = at_once(6, send)
    assert len({one.id for one in sent}) == 1
    assert sorted(one.replayed for one in sent) == [False] + [True] * 5
    assert payloads(user) == ["once"]
    with pytest.raises(queues.KeyReused):
        queues.submit(user, "demo.echo", "another", idempotency_key="order-7")


def test_a_key_is_free_again_after_a_rollback_and_is_not_the_apis(user: User) -> None:
    with transaction.atomic():
        queues.submit(user, "demo.echo", 1, idempotency_key="k")
        transaction.set_rollback(True)
    assert not IdempotencyKey.objects.exists()
    first = queues.submit(user, "demo.echo", 1, idempotency_key="k")
    answer = Caller(user).post("requests", {"kind": "demo.echo", "payload": 2}, Idempotency_Key="k")
    assert answer.status == 202
    assert payloads(user) == [1, 2]
    assert queues.submit(user.id, "demo.echo", 1, idempotency_key="k").id == first.id


def test_the_callers_own_lock_timeout_is_as_it_was(user: User) -> None:
    def limit() -> str:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lock_timeout')")
            return str(cursor.fetchone()[0])

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '77s'")
        queues.submit(user, "demo.echo", 1)
        queues.submit(user, "demo.echo", 1, idempotency_key="k")
        with pytest.raises(queues.Invalid):
            queues.submit(user, "demo.none")
        assert limit() == "77s"


def test_a_long_transaction_of_one_user_keeps_nobody_else_waiting(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """And their own next call says after a while that the queue is busy, with nothing lost."""

    from queues import from_python

    monkeypatch.setattr(from_python, "PATIENCE_SECONDS", 0.2)
    other = new_user()
    queues.submit(user, "demo.echo", "before")
    holding, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                queues.submit(user, "demo.echo", "held")
                holding.set()
                let_go.wait(30)
        finally:
            connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert holding.wait(20)
        assert queues.submit(other, "demo.echo", 1).sequence == 1
        assert Caller(other).submit(2)["sequence"] == 2
        with transaction.atomic():
            with pytest.raises(queues.QueueBusy):
                queues.submit(user, "demo.echo", "refused")
            with pytest.raises(queues.QueueBusy):
                queues.submit(user, "demo.echo", "refused", idempotency_key="k")
            queues.submit(other, "demo.echo", 3)
    finally:
        let_go.set()
        thread.join(20)
    assert payloads(user) == ["before", "held"]
    assert payloads(other) == [1, 2, 3]
    assert queues.submit(user, "demo.echo", "after").sequence == 3


def test_status_tells_what_the_api_tells(user: User) -> None:
    submitted = queues.submit(user, "demo.echo", 1)
    later = queues.submit(user, "demo.echo", 2, not_before=timezone.now() + timedelta(hours=1))
    told = queues.status(user, submitted.id)
    assert (told.status, told.sequence, told.position, told.is_final) == ("queued", 1, 0, False)
    assert (queues.status(user.id, later.id).status, later.sequence) == ("scheduled", None)


def test_a_request_is_cancelled_in_the_callers_transaction(user: User) -> None:
    first, second, third = (queues.submit(user, "demo.echo", n).id for n in range(3))
    with transaction.atomic():
        queues.cancel(user, first)
        transaction.set_rollback(True)
    assert queues.status(user, first).status == "queued"
    with transaction.atomic():
        queues.cancel(user, first)
        queues.cancel(user, third)
    assert [queues.status(user, one).status for one in (first, second, third)] == ["cancelled", "queued", "cancelled"]
    assert queue_of(user).depth == 1
    with pytest.raises(queues.NotPossible):
        queues.cancel(user, first)


def test_somebody_elses_request_is_not_there(user: User) -> None:
    theirs = queues.submit(new_user(), "demo.echo", 1).id
    for call in (queues.status, queues.cancel):
        for id_ in (theirs, UUID(int=0)):
            with pytest.raises(queues.NoSuchRequest):
                call(user, id_)


def test_the_guides_examples_run(user: User) -> None:
    """Each in turn, with what the ones before it made, as a reader would try them."""
    given: dict[str, Any] = {"user": user}
    examples = re.findall(r"^```python\n(.+?)^```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL | re.MULTILINE)
    for example in examples:
        exec(example, given)  # noqa: S102  (our own)
    assert given["submitted"].sequence == 1
    assert given["again"].id == given["first"].id
    assert [one.sequence for one in given["both"]] == [3, 4]
    assert given["told"].status == "cancelled"
