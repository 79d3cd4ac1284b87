"""A name belongs to one user, whoever comes first; nothing else of a user is said or set from outside."""

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, transaction

from accounts.api import views
from accounts.models import User
from project.web import rate_limit
from project.web.rate_limit import Limit
from tests.accounts.people import PASSWORD, Api, at_once, hashed, make_user, named

REGISTER = "auth/register"


def register(username: Any = "alice", password: Any = PASSWORD, **more: Any) -> Any:
    return Api().post(REGISTER, {"username": username, "password": password, **more})


def test_a_new_user_can_log_in(db: None) -> None:
    answer = register(email="Alice@EXAMPLE.com")
    user = User.objects.get()
    assert answer.status_code == 201
    assert answer.json() == {"id": str(user.id), "username": "alice", "email": "Alice@example.com"}
    tokens = Api().post("auth/token", {"username": "alice", "password": PASSWORD}).json()
    me = Api().get("auth/me", HTTP_AUTHORIZATION=f"Bearer {tokens['access']}").json()
    assert set(me) == {"id", "username", "email", "created_at"}
    assert me["created_at"].endswith("Z")


@pytest.mark.parametrize("same", ["alice", "ALICE", "Alice", "\uff41lice"])
def test_a_taken_name_is_taken_in_every_spelling(db: None, same: str) -> None:
    make_user(username="Alice")
    answer = register(same)
    assert (answer.status_code, named(answer)) == (400, [("username", "unique")])


def test_the_database_itself_keeps_names_apart(db: None) -> None:
    make_user(username="Alice")
    with pytest.raises(IntegrityError), transaction.atomic():
        make_user(username="aLICE")


@pytest.mark.django_db(transaction=True)
def test_of_many_who_want_a_name_at_once_one_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    all_found_it_free = threading.Barrier(6, timeout=30)

    def hash_together(_: str) -> str:
        all_found_it_free.wait()
        return hashed()

    monkeypatch.setattr(views, "make_password", hash_together)
    answers = at_once(6, lambda n: register("alice" if n % 2 else "ALICE"))
    assert sorted(answer.status_code for answer in answers) == [201] + [400] * 5
    assert User.objects.count() == 1


@pytest.mark.parametrize("written", [str, lambda user_id: str(user_id).upper(), lambda user_id: user_id.hex])
def test_nobody_is_named_as_an_id_is_written(db: None, written: Callable[[UUID], str]) -> None:
    """Operators and Kafka's messages name users by either."""
    alice = make_user(username="alice")
    answer = register(written(alice.id))
    assert (answer.status_code, named(answer)) == (400, [("username", "invalid")])
    assert answer.json()["errors"][0]["detail"] == "Choose a name that is not written as an id."
    before = make_user(username=written(uuid4()))
    tokens = Api().post("auth/token", {"username": before.username, "password": PASSWORD})
    assert tokens.status_code == 200, "who had such a name keeps it"


def test_a_known_email_address_is_not_betrayed(db: None) -> None:
    make_user(email="alice@example.com")
    assert register("bob", email="alice@example.com").status_code == 201


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, [("username", "required"), ("password", "required")]),
        ({"username": "a b", "password": PASSWORD}, [("username", "invalid")]),
        ({"username": "", "password": PASSWORD}, [("username", "blank")]),
        ({"username": "x" * 151, "password": PASSWORD}, [("username", "max_length")]),
        ({"username": "\ufdfa" * 10, "password": PASSWORD}, [("username", "invalid"), ("username", "max_length")]),
        ({"username": 5, "password": PASSWORD}, [("username", "invalid")]),
        ({"username": None, "password": PASSWORD}, [("username", "null")]),
        ({"username": "a\u202eb", "password": PASSWORD}, [("username", "invalid")]),
        ({"username": "alice\n", "password": PASSWORD}, [("username", "invalid")]),
        ({"username": "alice", "password": 12345678901}, [("password", "invalid")]),
        ({"username": "alice", "password": "short"}, [("password", "password_too_short")]),
        ({"username": "alice", "password": "alice-12"}, [("password", "password_too_similar")]),
        ({"username": "alice", "password": "passw0rd"}, [("password", "password_too_common")]),
        ({"username": "alice", "password": "x" * 1025}, [("password", "max_length")]),
        ({"username": "alice", "password": PASSWORD, "email": "no"}, [("email", "invalid")]),
        ({"username": "alice", "password": PASSWORD, "email": None}, [("email", "null")]),
        ([], [("", "invalid")]),
        ("alice", [("", "invalid")]),
        (b'{"username":"al\\u0000ice","password":"x"}', [("username", "nul")]),
        (b"", [("username", "required"), ("password", "required")]),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_does_not_fit_is_named(db: None, body: Any, errors: list[tuple[str, str]]) -> None:
    answer = Api().post(REGISTER, body)
    assert (answer.status_code, named(answer)) == (400, errors)
    assert answer["Content-Type"] == "application/problem+json"
    assert User.objects.count() == 0


@pytest.mark.parametrize("field", ["id", "is_staff", "is_superuser", "is_active", "groups", "created_at", "last_login"])
def test_nobody_gives_themselves_more(db: None, field: str) -> None:
    answer = register(**{field: True})
    assert (answer.status_code, named(answer)) == (400, [(field, "unknown")])


def test_a_long_name_that_grows_when_normalised_is_refused(db: None) -> None:
    """U+FDFA becomes 18 characters."""
    assert register("\ufdfa" * 149).status_code == 400


def test_registrations_from_one_address_are_limited(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "REGISTRATIONS", Limit("registrations", 2))
    assert [register("a b").status_code for _ in range(3)] == [400, 400, 429]


def test_query_parameters_are_refused(db: None) -> None:
    answer = Api().post("auth/register?admin=1", {"username": "alice", "password": PASSWORD})
    assert (answer.status_code, named(answer)) == (400, [("admin", "unknown")])
