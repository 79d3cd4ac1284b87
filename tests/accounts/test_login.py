"""Who guesses learns nothing and gets nowhere; who is guessed at can still log in."""

import threading
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password

from accounts import hashers
from accounts.models import User
from project import limits
from project.limits import Limit
from tests.accounts.people import PASSWORD, Api, at_once, make_user

LOGIN = "auth/token"


def login(username: str, password: str = PASSWORD, **environ: Any) -> Any:
    return Api().post(LOGIN, {"username": username, "password": password}, HTTP_X_REQUEST_ID="same", **environ)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for every time that Argon2 runs."""
    done: list[str] = []
    for name in ("encode", "verify"):
        real = getattr(hashers.Argon2PasswordHasher, name)

        def counted(self: Any, *args: Any, _real: Any = real, _name: str = name) -> Any:
            done.append(_name)
            return _real(self, *args)

        monkeypatch.setattr(hashers.Argon2PasswordHasher, name, counted)
    return done


def outsiders() -> dict[str, str]:
    """A name for each reason why a login fails."""
    return {
        "wrong password": make_user().username,
        "unknown": "nobody-of-this-name",
        "inactive": make_user(is_active=False, password=make_password("the-guess")).username,
        "without a password": make_user(password=make_password(None)).username,
        "with a hash of another kind": make_user(password="md5$salt$0000").username,
        "with no hash": make_user(password="").username,
    }


def test_every_failed_login_gets_the_same_answer_for_the_same_work(db: None, hashes: list[str]) -> None:
    answers, work = set(), {}
    for reason, name in outsiders().items():
        hashes.clear()
        answer = login(name, "the-guess")
        answers.add((answer.status_code, answer.content, answer["WWW-Authenticate"]))
        work[reason] = len(hashes)
    assert len(answers) == 1
    assert answers.pop()[0] == 401
    assert work == dict.fromkeys(work, 1)


def test_names_are_the_same_in_any_case_and_width(db: None) -> None:
    make_user(username="Mára")
    for name in ("Mára", "mÁRA", "Ma\u0301ra", "\uff2dára"):
        assert login(name).status_code == 200, name


@pytest.mark.django_db(transaction=True)
def test_of_many_guesses_at_once_no_more_than_the_limit_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    name = make_user().username
    monkeypatch.setattr(User, "check_password", lambda *_: False)
    statuses = [answer.status_code for answer in at_once(40, lambda _: login(name, "guess"))]
    assert sorted(statuses) == [401] * 10 + [429] * 30


def test_a_guesser_locks_nobody_out_elsewhere(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as quick:
        quick.setattr(User, "check_password", lambda *_: False)
        for _ in range(10):
            login(user.username, "guess", REMOTE_ADDR="198.51.100.1")
    blocked = login(user.username, REMOTE_ADDR="198.51.100.1")
    assert blocked.status_code == 429
    assert 0 < int(blocked["Retry-After"]) <= 61
    assert login(user.username, REMOTE_ADDR="198.51.100.2").status_code == 200
    assert login(make_user().username, REMOTE_ADDR="198.51.100.1").status_code == 200


def test_a_name_written_differently_is_no_new_chance(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAILED_LOGINS", Limit("failed-logins", 2))
    monkeypatch.setattr(User, "check_password", lambda *_: False)
    assert [login(name, "x").status_code for name in ("bob", "BOB", "\uff42ob")] == [401, 401, 429]


def test_an_ipv6_customer_is_one_address(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAILED_LOGINS", Limit("failed-logins", 1))
    monkeypatch.setattr(hashers.Argon2PasswordHasher, "encode", lambda *_: "argon2$")
    statuses = [login("nobody", REMOTE_ADDR=f"2001:db8:1:2::{host}").status_code for host in (1, 2)]
    assert statuses == [401, 429]


def test_logins_that_succeed_are_not_counted_as_failed(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAILED_LOGINS", Limit("failed-logins", 1))
    assert [login(user.username).status_code for _ in range(3)] == [200] * 3


def test_a_login_that_crashed_is_not_counted_as_failed(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAILED_LOGINS", Limit("failed-logins", 1))
    with monkeypatch.context() as broken:
        broken.setattr(User, "check_password", lambda *_: 1 / 0)
        assert login(user.username).status_code == 500
    assert login(user.username).status_code == 200


def test_spraying_many_names_from_one_address_ends_at_the_limit(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOGINS", Limit("logins", 3))
    monkeypatch.setattr(hashers.Argon2PasswordHasher, "encode", lambda *_: "argon2$")
    statuses = [login(f"nobody{n}", REMOTE_ADDR="198.51.100.3").status_code for n in range(5)]
    assert statuses == [401, 401, 401, 429, 429]


def test_an_address_is_what_the_trusted_proxies_say(user: User, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOGINS", Limit("logins", 1))
    forged = [login("x", HTTP_X_FORWARDED_FOR=f"203.0.113.{n}").status_code for n in range(2)]
    assert forged == [401, 429]
    monkeypatch.setattr(settings.ENV, "trusted_proxies", 1)
    vouched = [login("x", HTTP_X_FORWARDED_FOR=f"10.0.0.{n}, 203.0.113.9").status_code for n in range(2)]
    assert vouched == [401, 429]
    assert login("x", HTTP_X_FORWARDED_FOR="10.0.0.1, 203.0.113.10").status_code == 401


def test_guessing_the_current_password_is_limited_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAILED_LOGINS", Limit("failed-logins", 2))
    body = {"current_password": "guess", "new_password": "another-four-random-words"}
    assert [api.post("auth/password", body).status_code for _ in range(3)] == [400, 400, 429]


@pytest.mark.django_db(transaction=True)
def test_more_logins_than_can_be_hashed_soon_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    room = hashers.AT_ONCE + hashers.WAITING
    others_refused = threading.Barrier(room + 1)
    monkeypatch.setattr(hashers, "_running", threading.Semaphore(room))
    monkeypatch.setattr(hashers.Argon2PasswordHasher, "encode", lambda *_: others_refused.wait(20) and "argon2$")

    def one_of(number: int) -> int:
        answer = login(f"nobody{number}", REMOTE_ADDR=f"198.51.101.{number}")
        if answer.status_code == 503:
            assert int(answer["Retry-After"]) > 0
            others_refused.wait(20)
        return int(answer.status_code)

    assert sorted(at_once(room + 1, one_of)) == [401] * room + [503]


def test_limits_are_shown_on_every_answer_of_a_limited_route(user: User) -> None:
    answer = login(user.username)
    assert answer["RateLimit-Policy"] == '"failed-logins";q=10;w=60, "logins";q=300;w=60'
    assert answer["RateLimit"].startswith('"failed-logins";r=9;t=')


@pytest.mark.parametrize("address", ["", "unix:", "fe80::1%eth0", "nonsense"])
def test_an_address_that_postgresql_does_not_know_is_no_crash(user: User, address: str) -> None:
    assert login(user.username, REMOTE_ADDR=address).status_code == 200


def test_tokens_are_not_for_caches(user: User) -> None:
    assert login(user.username)["Cache-Control"] == "no-store"
