"""Idempotency-Key: a POST that is repeated happens once, however many repetitions there are and whenever they come."""

import threading
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from project.postgresql import limits
from queues.enqueue import idempotency
from queues.models import IdempotencyKey, Request, UserQueue
from queues.sql import locks
from queues.values import Accepted
from tests.queues.api import Caller
from tests.queues.threads import Places, at_once, holding, in_thread, wait_for_a_lock

BODY = {"kind": "demo.echo", "payload": {"n": 1.0}}


@pytest.mark.django_db
def test_the_same_key_and_body_give_the_first_answer_again() -> None:
    alice = Caller()
    first = alice.post("requests", BODY, Idempotency_Key="key")
    alice.submit("in between")
    again = alice.post("requests", BODY, Idempotency_Key="key")
    assert (again.status, again.content, again.headers["Location"]) == (202, first.content, first.headers["Location"])
    assert (first.headers.get("Idempotent-Replayed"), again.headers["Idempotent-Replayed"]) == (None, "true")
    assert Request.objects.count() == 2


@pytest.mark.django_db
def test_a_batch_is_repeated_as_a_whole() -> None:
    alice = Caller()
    first = alice.post("requests/batch", {"requests": [BODY, BODY]}, Idempotency_Key="key")
    again = alice.post("requests/batch", {"requests": [BODY, BODY]}, Idempotency_Key="key")
    assert (again.status, again.content, again.headers["Idempotent-Replayed"]) == (202, first.content, "true")
    assert Request.objects.count() == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "body"),
    [("requests", {**BODY, "payload": {"n": 1}}), ("requests", {**BODY, "version": 1}), ("requests/batch", None)],
)
def test_the_same_key_with_another_body_is_refused(path: str, body: Any) -> None:
    alice = Caller()
    alice.post("requests", BODY, Idempotency_Key="key")
    answer = alice.post(path, body or {"requests": [BODY]}, Idempotency_Key="key")
    assert (answer.status, answer.json["type"]) == (422, "/problems/key-reused")
    assert Request.objects.count() == 1


@pytest.mark.django_db
def test_keys_are_each_users_own() -> None:
    alice, bob = Caller(), Caller()
    first = alice.post("requests", BODY, Idempotency_Key="key")
    other = bob.post("requests", BODY, Idempotency_Key="key")
    assert other.status == 202
    assert other.json["id"] != first.json["id"]


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "tab\t", "é", "\x7f"])
def test_a_key_that_is_none_is_named(key: str) -> None:
    answer = Caller().post("requests", BODY, Idempotency_Key=key)
    assert (answer.status, answer.errors) == (400, {"Idempotency-Key": "format"})


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["!", "~" * 255, '"quoted"'])
def test_every_visible_key_will_do(key: str) -> None:
    alice = Caller()
    assert alice.post("requests", BODY, Idempotency_Key=key).status == 202
    assert alice.post("requests", BODY, Idempotency_Key=key).headers["Idempotent-Replayed"] == "true"


@pytest.mark.django_db
def test_a_refusal_leaves_the_key_free() -> None:
    alice = Caller()
    assert alice.post("requests", {**BODY, "kind": "none"}, Idempotency_Key="key").status == 400
    alice.submit()
    UserQueue.objects.update(waiting_limit=1)
    assert alice.post("requests", BODY, Idempotency_Key="key").status == 429
    UserQueue.objects.update(waiting_limit=2)
    assert alice.post("requests", BODY, Idempotency_Key="key").headers.get("Idempotent-Replayed") is None
    assert Request.objects.count() == 2


@pytest.mark.django_db
def test_after_a_day_the_key_is_free_and_may_be_forgotten() -> None:
    alice = Caller()
    for key in ("old", "older", "young"):
        alice.post("requests", BODY, Idempotency_Key=key)
    IdempotencyKey.objects.exclude(key="young").update(created_at=timezone.now() - timedelta(hours=25))
    answer = alice.post("requests", {**BODY, "payload": 2}, Idempotency_Key="old")
    assert (answer.status, answer.json["payload"]) == (202, 2)
    assert idempotency.prune(100) == 1
    assert set(IdempotencyKey.objects.values_list("key", flat=True)) == {"old", "young"}


@pytest.mark.django_db
def test_a_replay_wants_a_living_session() -> None:
    alice = Caller()
    alice.post("requests", BODY, Idempotency_Key="key")
    alice.user.end_sessions()
    for body in (BODY, {**BODY, "payload": 2}):
        assert alice.post("requests", body, Idempotency_Key="key").status == 401
    assert Caller(alice.user).post("requests", BODY, Idempotency_Key="key").headers["Idempotent-Replayed"] == "true"


@pytest.mark.django_db
def test_a_users_keys_go_with_them() -> None:
    alice = Caller()
    alice.post("requests", BODY, Idempotency_Key="key")
    alice.user.delete()
    assert not IdempotencyKey.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_many_at_once_make_one_request() -> None:
    alice = Caller()
    answers = at_once(20, lambda _: Caller(alice.user, alice.token).post("requests", BODY, Idempotency_Key="key"))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert Counter(answer.headers.get("Idempotent-Replayed") for answer in answers) == {None: 1, "true": 19}
    assert Request.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_many_bodies_at_once_under_one_key_make_one_request() -> None:
    alice = Caller()
    bodies = [{**BODY, "payload": n % 4} for n in range(20)]
    answers = at_once(20, lambda n: Caller(alice.user, alice.token).post("requests", bodies[n], Idempotency_Key="key"))
    assert {answer.status for answer in answers} == {202, 422}
    assert Counter(answer.status for answer in answers)[202] == 5
    assert Request.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_who_waits_for_one_that_fails_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    alice = Caller()
    alice.submit()
    entered, crash = threading.Event(), threading.Event()

    def crashing(*args: Any, **kwargs: Any) -> list[Accepted]:
        entered.set()
        crash.wait(10)
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("queues.api.requests.accept", crashing)
        first = in_thread(lambda: Caller(alice.user, alice.token).post("requests", BODY, Idempotency_Key="key"))
        assert entered.wait(10)
    second = in_thread(lambda: Caller(alice.user, alice.token).post("requests", BODY, Idempotency_Key="key"))
    wait_for_a_lock()
    crash.set()
    assert first().status == 500
    assert (second().status, second().headers.get("Idempotent-Replayed")) == (202, None)
    assert Request.objects.count() == 2


def failed(caller: Caller) -> str:
    """A request of the caller's that can be retried."""
    cancelled = caller.submit()["id"]
    assert caller.post(f"requests/{cancelled}/cancel").status == 200
    return str(cancelled)


@pytest.mark.django_db
def test_a_retry_with_a_key_happens_once() -> None:
    alice = Caller()
    mine = failed(alice)
    first = alice.post(f"requests/{mine}/retry", Idempotency_Key="key")
    again = alice.post(f"requests/{mine}/retry", Idempotency_Key="key")
    assert (first.status, first.json["retry_of"]) == (202, mine)
    assert (again.status, again.content, again.headers["Location"]) == (202, first.content, first.headers["Location"])
    assert (first.headers.get("Idempotent-Replayed"), again.headers["Idempotent-Replayed"]) == (None, "true")
    assert alice.post(f"requests/{mine}/retry").headers.get("Idempotent-Replayed") is None
    assert Request.objects.filter(retry_of=mine).count() == 2


@pytest.mark.django_db
def test_a_retrys_key_is_its_paths_and_bodys() -> None:
    alice = Caller()
    mine, other = failed(alice), failed(alice)
    assert alice.post(f"requests/{mine}/retry", Idempotency_Key="key").status == 202
    assert alice.post(f"requests/{other}/retry", Idempotency_Key="key").status == 422
    assert alice.post(f"requests/{mine}/retry", {}, Idempotency_Key="key").status == 422
    assert alice.post("requests", BODY, Idempotency_Key="key").status == 422
    assert Caller().post(f"requests/{mine}/retry", Idempotency_Key="key").status == 404
    assert alice.post(f"requests/{mine}/retry", Idempotency_Key="").errors == {"Idempotency-Key": "format"}


@pytest.mark.django_db
def test_a_retry_that_is_refused_leaves_its_key_free() -> None:
    alice = Caller()
    mine = alice.submit()["id"]
    assert alice.post(f"requests/{mine}/retry", Idempotency_Key="key").status == 409
    alice.post(f"requests/{mine}/cancel")
    assert alice.post(f"requests/{mine}/retry", Idempotency_Key="key").status == 202


@pytest.mark.django_db
def test_a_blocked_head_is_retried_once_for_a_key() -> None:
    alice = Caller()
    mine = alice.submit()["id"]
    Request.objects.filter(id=mine).update(status="retrying", attempt=3, on_failure="block")
    UserQueue.objects.update(state="blocked", published_seq=1)
    first = alice.post(f"requests/{mine}/retry", Idempotency_Key="key")
    UserQueue.objects.update(state="blocked", wake_at=None)
    again = alice.post(f"requests/{mine}/retry", Idempotency_Key="key")
    assert (first.status, first.json["id"], first.json["max_attempts"]) == (202, mine, 4)
    assert again.content == first.content
    assert UserQueue.objects.get().state == "blocked"  # nothing was done again


@pytest.mark.django_db(transaction=True)
def test_many_retries_at_once_under_one_key_make_one_request() -> None:
    alice = Caller()
    mine = failed(alice)
    answers = at_once(
        10, lambda _: Caller(alice.user, alice.token).post(f"requests/{mine}/retry", Idempotency_Key="key")
    )
    assert {answer.status for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert Request.objects.filter(retry_of=mine).count() == 1


@pytest.mark.django_db(transaction=True)
def test_retries_of_a_frozen_call_are_answered_soon_and_hold_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first holds its key for ever. Half of the API's threads may wait for it, the others hardly do."""
    alice, bob = Caller(), Caller()
    bob.submit()
    frozen = "INSERT INTO queues_idempotencykey (user_id, key, digest, answer, location) VALUES (%s, 'key', '', '', '')"
    places = Places(settings.ENV.api_threads // 2)
    monkeypatch.setattr(locks, "_patient", places)
    limits.play("api")

    def retried(_: int) -> tuple[float, Any]:
        began = time.monotonic()
        answer = Caller(alice.user, alice.token).post("requests", BODY, Idempotency_Key="key")
        return time.monotonic() - began, answer

    with holding(frozen, alice.user.id):
        waiting = in_thread(lambda: at_once(10, retried))
        in_thread(wait_for_a_lock)()
        assert (
            in_thread(lambda: Caller(bob.user, bob.token).post("requests", BODY, Idempotency_Key="key").status)() == 202
        )
        assert in_thread(lambda: Caller(alice.user, alice.token).post("requests", BODY).status)() == 202
        answers = waiting()
    for _, answer in answers:
        assert (answer.status, answer.json["type"], answer.headers["Retry-After"]) == (409, "/problems/key-in-use", "2")
    assert places.most == settings.ENV.api_threads // 2
    assert max(seconds for seconds, _ in answers) < 8, "2 s, and what a busy machine adds"
    assert alice.post("requests", BODY, Idempotency_Key="key").status == 202, "the frozen one is gone"
    assert Request.objects.count() == 4
