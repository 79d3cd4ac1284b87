"""Who may ask for which kind: at submit on every way in, and in the list of kinds."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission
from django.db import connection, transaction

import queues
from accounts.models import User
from processing.handlers import handler
from queues.api.fast_path import FastPath
from queues.enqueue import permissions
from queues.models import Request
from tests.processing.kinds import kept
from tests.queues.api import Caller
from tests.queues.fast_path.conftest import Recorded, call

pytestmark = pytest.mark.django_db(transaction=True)

ASKED: list[str] = []


def crash(user: User) -> bool:
    raise RuntimeError


def ask(query: str) -> Callable[[User], bool]:
    """A permission that asks PostgreSQL."""

    def asking(user: User) -> bool:
        with connection.cursor() as cursor:
            cursor.execute(query)
        return True

    return asking


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    def named_ada(user: User) -> bool:
        ASKED.append(user.username)
        return user.username.startswith("ada")

    def work(request: Any, payload: Any) -> None:
        return None

    ASKED.clear()
    permissions.forget()
    with kept():
        handler("test.staff", permission="queues.view_request")(work)
        handler("test.ada", permission=named_ada)(work)
        handler("test.crash", permission=crash)(work)
        handler("test.wrong-query", permission=ask("SELECT nothing"))(work)
        yield
    permissions.forget()


def named(name: str) -> Caller:
    return Caller(User.objects.create_user(name))


def kinds_of(caller: Caller) -> set[str]:
    return {kind["kind"] for kind in caller.get("kinds").json if kind["kind"].startswith("test.")}


def test_a_kind_that_one_may_not_ask_for_is_absent_and_answers_403() -> None:
    ada, bob = named("ada"), named("bob")
    assert (kinds_of(ada), kinds_of(bob)) == ({"test.ada"}, set())
    assert ada.post("requests", {"kind": "test.ada", "payload": 1}).status == 202
    refused = bob.post("requests", {"kind": "test.ada", "payload": 1})
    assert (refused.status, refused.json["type"], refused.errors) == (403, "/problems/forbidden", {"kind": "forbidden"})
    assert Request.objects.count() == 1


def test_a_permission_of_djangos_counts_as_soon_as_the_cache_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    bob = named("bob")
    body = {"kind": "test.staff", "payload": 1}
    assert bob.post("requests", body).status == 403
    bob.user.user_permissions.add(Permission.objects.get(codename="view_request"))
    assert kinds_of(bob) == {"test.staff"}, "the list is never old"
    monkeypatch.setattr(permissions.time, "monotonic", lambda now=permissions.time.monotonic: now() + 6)
    assert bob.post("requests", body).status == 202
    bob.user.user_permissions.clear()
    assert bob.post("requests", body).status == 202, "for five seconds"
    permissions.forget()
    assert bob.post("requests", body).status == 403


def test_a_batch_names_each_and_takes_none() -> None:
    bob = named("bob")
    echo, ada = {"kind": "demo.echo", "payload": 1}, {"kind": "test.ada", "payload": 1}
    refused = bob.post("requests/batch", {"requests": [echo, ada, echo, ada]})
    assert refused.status == 403
    assert refused.errors == {"requests.1.kind": "forbidden", "requests.3.kind": "forbidden"}
    assert not Request.objects.exists()


def test_the_answer_is_kept_for_a_while_for_each_user() -> None:
    ada, bob = named("ada"), named("bob")
    for _ in range(3):
        ada.submit(1, kind="test.ada")
        bob.post("requests", {"kind": "test.ada", "payload": 1})
    assert ASKED == ["ada", "bob"]


def test_the_short_way_leaves_to_django_what_it_does_not_know() -> None:
    ada, bob = named("ada"), named("bob")
    bob.submit(1)  # who has no queue yet goes the long way
    behind = Recorded()
    fast = FastPath(behind)
    body = {"kind": "test.ada", "payload": 1}
    try:
        assert [call(fast, ada.token, body).status for _ in range(3)] == [202] * 3
        assert behind.asked == 1, "asked once, then known"
        assert [call(fast, bob.token, body).status for _ in range(2)] == [403] * 2
        assert behind.asked == 3
        assert call(fast, bob.token, {"kind": "demo.echo", "payload": 1}).status == 202
        assert behind.asked == 3
    finally:
        fast.close()
    assert ASKED == ["ada", "bob"]


@pytest.mark.parametrize("kind", ["test.crash", "test.wrong-query"])
def test_a_permission_that_raises_says_no_and_hides_no_other_kind(kind: str) -> None:
    ada = named("ada")
    assert ada.post("requests", {"kind": kind, "payload": 1}).status == 403
    assert kinds_of(ada) == {"test.ada"}


def test_a_permission_that_raises_leaves_the_callers_transaction_as_it_is() -> None:
    ada = named("ada").user
    with transaction.atomic():
        with pytest.raises(queues.Forbidden):
            queues.submit(ada, "test.wrong-query", 1)
        queues.submit(ada, "demo.echo", 1)
    assert Request.objects.count() == 1


def test_where_postgresql_goes_away_meanwhile_nobody_knows() -> None:
    handler("test.lost", permission=ask("SELECT pg_terminate_backend(pg_backend_pid())"))(print)
    ada = named("ada")
    assert ada.post("requests", {"kind": "test.lost", "payload": 1}).status == 503
    assert ada.submit(1, kind="test.ada")


def test_what_was_accepted_is_retried_only_by_who_may_ask_for_it() -> None:
    ada = named("ada")
    made = ada.submit(1, kind="test.ada")
    assert ada.post(f"requests/{made['id']}/cancel").status == 200
    User.objects.filter(id=ada.user.id).update(username="eve")
    permissions.forget()
    assert ada.post(f"requests/{made['id']}/retry").status == 403


def test_from_python_it_is_checked_unless_the_code_decides_itself() -> None:
    bob = named("bob").user
    with pytest.raises(queues.Forbidden):
        queues.submit(bob, "test.ada")
    with pytest.raises(queues.Forbidden):
        queues.submit_many(bob, [queues.NewRequest("test.ada")])
    assert queues.submit(bob, "test.ada", check_permission=False).sequence == 1


def test_the_names_of_kinds_that_are_not_for_all_are_told_to_nobody() -> None:
    bob = named("bob")
    told = bob.post("requests", {"kind": "test.none", "payload": 1}).json["errors"][0]["detail"]
    assert "demo.echo" in told
    assert "test.ada" not in told


def test_a_kind_that_the_setting_leaves_out_is_not_known_here(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = named("ada")
    waiting = ada.submit(1, kind="demo.echo")
    monkeypatch.setattr(settings, "KINDS", ["test.*", "demo.steps"])
    assert {kind["kind"] for kind in ada.get("kinds").json} == {"demo.steps", "test.ada"}
    refused = ada.post("requests", {"kind": "demo.echo", "payload": 1})
    assert (refused.status, refused.errors) == (400, {"kind": "unknown_kind"})
    with pytest.raises(queues.Invalid):
        queues.submit(ada.user, "demo.echo")
    assert ada.get(f"requests/{waiting['id']}").json["status"] == "queued", "what was accepted stays"
