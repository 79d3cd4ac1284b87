"""Who guesses learns nothing and gets nowhere; who is guessed at can still log in."""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher, make_password
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from accounts import hashers
from accounts.models import User
from project.rest.problems import ServiceUnavailable
from project.web import rate_limit
from project.web.rate_limit import Limit
from tests.accounts.people import PASSWORD, Api, at_once, make_user
from tests.asgi import as_wsgi, in_threads
from tests.waiting import until

LOGIN = "auth/token"


def login(username: str, password: str = PASSWORD, **environ: Any) -> Any:
    return Api().post(LOGIN, {"username": username, "password": password}, HTTP_X_REQUEST_ID="same", **environ)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for every time that Argon2 runs."""
    done: list[str] = []
    for name in ("encode", "verify"):
        real = getattr(hashers.OrderlyArgon2, name)

        def counted(self: Any, *args: Any, _real: Any = real, _name: str = name) -> Any:
            done.append(_name)
            return _real(self, *args)

        monkeypatch.setattr(hashers.OrderlyArgon2, name, counted)
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
    monkeypatch.setattr(rate_limit, "FAILED_LOGINS", Limit("failed-logins", 2))
    monkeypatch.setattr(User, "check_password", lambda *_: False)
    assert [login(name, "x").status_code for name in ("bob", "BOB", "\uff42ob")] == [401, 401, 429]


def test_an_ipv6_customer_is_one_address(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "FAILED_LOGINS", Limit("failed-logins", 1))
    monkeypatch.setattr(hashers.OrderlyArgon2, "encode", lambda *_: "argon2$")
    statuses = [login("nobody", REMOTE_ADDR=f"2001:db8:1:2::{host}").status_code for host in (1, 2)]
    assert statuses == [401, 429]


def test_logins_that_succeed_are_not_counted_as_failed(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "FAILED_LOGINS", Limit("failed-logins", 1))
    assert [login(user.username).status_code for _ in range(3)] == [200] * 3


def test_a_login_that_crashed_is_not_counted_as_failed(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "FAILED_LOGINS", Limit("failed-logins", 1))
    with monkeypatch.context() as broken:
        broken.setattr(User, "check_password", lambda *_: 1 / 0)
        assert login(user.username).status_code == 500
    assert login(user.username).status_code == 200


def test_spraying_many_names_from_one_address_ends_at_the_limit(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "LOGINS", Limit("logins", 3))
    monkeypatch.setattr(hashers.OrderlyArgon2, "encode", lambda *_: "argon2$")
    statuses = [login(f"nobody{n}", REMOTE_ADDR="198.51.100.3").status_code for n in range(5)]
    assert statuses == [401, 401, 401, 429, 429]


def test_an_address_is_what_the_trusted_proxies_say(user: User, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "LOGINS", Limit("logins", 1))
    forged = [login("x", HTTP_X_FORWARDED_FOR=f"203.0.113.{n}").status_code for n in range(2)]
    assert forged == [401, 429]
    monkeypatch.setattr(settings.ENV, "trusted_proxies", 1)
    vouched = [login("x", HTTP_X_FORWARDED_FOR=f"10.0.0.{n}, 203.0.113.9").status_code for n in range(2)]
    assert vouched == [401, 429]
    assert login("x", HTTP_X_FORWARDED_FOR="10.0.0.1, 203.0.113.10").status_code == 401


def test_guessing_the_current_password_is_limited_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "FAILED_LOGINS", Limit("failed-logins", 2))
    body = {"current_password": "guess", "new_password": "another-four-random-words"}
    assert [api.post("auth/password", body).status_code for _ in range(3)] == [400, 400, 429]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Hashes end when this is set, and not before."""
    go_on = threading.Event()
    real = hashers.HashingProcess.ask

    def ask(self: Any, *question: Any) -> Any:
        go_on.wait(30)
        return real(self, *question)

    monkeypatch.setattr(hashers.HashingProcess, "ask", ask)
    monkeypatch.setattr(hashers, "_queue", line := hashers.HashingQueue(hashers.places()))
    yield go_on
    go_on.set()
    line.threads.shutdown()


@pytest.mark.django_db(transaction=True)
def test_while_every_hashing_place_is_taken_others_are_answered_and_more_logins_refused_at_once(
    held: threading.Event, settings: Any
) -> None:
    api = Api.of(make_user())
    line = as_wsgi(in_threads(settings.ENV.api_threads))
    refused: list[Any] = []

    def one_of(number: int) -> int:
        body = {"username": f"nobody{number}", "password": PASSWORD}
        client = f"198.51.101.{number}"
        if number % 3 == 2:
            body["username"] = f"newcomer{number}"
        status, headers = ask(line, "auth/register" if number % 3 == 2 else "auth/token", body, REMOTE_ADDR=client)
        if status == 503:
            refused.append(headers)
        return status

    def meanwhile(_: int) -> list[int]:
        until(lambda: len(refused) == 24 - hashers.places(), 20, "all but a few are refused, although nobody is done")
        submission = {"kind": "demo.echo", "payload": 1}
        told = [ask(line, "requests", submission, HTTP_AUTHORIZATION=f"Bearer {api.tokens.access}")[0]]
        told.append(ask(line, "auth/me", None, HTTP_AUTHORIZATION=f"Bearer {api.tokens.access}")[0])
        held.set()
        return told

    *statuses, others = at_once(25, lambda number: meanwhile(number) if number == 24 else one_of(number))
    assert others == [202, 200]
    assert statuses.count(503) == 24 - hashers.places()
    assert {status for status in statuses if status != 503} <= {401, 201}
    told = {int(headers["Retry-After"]) for headers in refused}
    assert told <= set(range(1, 11))
    assert len(told) > 1, "those who are refused together are not told to come back together"
    assert {headers["Content-Type"] for headers in refused} == {"application/problem+json"}


@pytest.mark.django_db(transaction=True)
def test_who_is_refused_a_hash_is_refused_before_anything_is_spent_on_them(held: threading.Event) -> None:
    line = hashers._queue
    waiting = [threading.Thread(target=line.ask, args=("verify", "x", "$argon2id$")) for _ in range(hashers.places())]
    for thread in waiting:
        thread.start()
    until(lambda: _full(line), 10, "the line is full")
    with CaptureQueriesContext(connection) as queries:
        answers = [login("nobody", "guess") for _ in range(12)]
        answers.append(Api().post("auth/register", {"username": "newcomer", "password": PASSWORD}))
        answers.append(Api().post("auth/password-reset/confirm", {"token": "x", "new_password": PASSWORD}))
    held.set()
    for thread in waiting:
        thread.join()
    assert {answer.status_code for answer in answers} == {503}
    assert not queries.captured_queries
    assert not any(answer.has_header("RateLimit") for answer in answers)
    assert login("nobody", "guess").status_code == 401, "none of them counted as a guess"


def _full(line: hashers.HashingQueue) -> bool:
    try:
        line.refuse_if_full()
    except ServiceUnavailable:
        return True
    return False


def test_of_many_who_are_refused_no_second_gets_all_and_none_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashers.time, "monotonic", lambda: 1000.0)
    line = hashers.HashingQueue(1)
    line.places = 0
    told = Counter[int]()
    for _ in range(200):
        with pytest.raises(ServiceUnavailable) as refused:
            line.refuse_if_full()
        told[int(refused.value.headers["Retry-After"])] += 1
    assert set(told) == set(range(1, 11))
    assert max(told.values()) < 40


def ask(application: Any, path: str, body: Any, **environ: Any) -> tuple[int, dict[str, str]]:
    """What the API answers from its threads: status and headers."""
    factory = RequestFactory()
    sent = {"content_type": "application/json", **environ}
    data = b"" if body is None else orjson.dumps(body)
    request = factory.generic("POST" if body is not None else "GET", f"/api/v1/{path}", data, **sent)
    started: list[Any] = []
    response = application(request.environ, lambda status, headers, *_: started.append((status, headers)))
    getattr(response, "close", lambda: None)()
    return int(started[0][0][:3]), dict(started[0][1])


def test_hashing_never_takes_all_threads_of_the_api(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.ENV, "hashing_requests", 100)
    for threads, places in {1: 1, 2: 1, 8: 7}.items():
        monkeypatch.setattr(settings.ENV, "api_threads", threads)
        assert hashers.places() == places


def test_a_hash_takes_one_core_and_one_of_before_is_made_anew_at_login(db: None) -> None:
    class OfBefore(Argon2PasswordHasher):
        parallelism = 8

    user = make_user(password=OfBefore().encode(PASSWORD, "saltsaltsaltsaltsaltsalt"))
    assert ",p=8$" in user.password
    assert login(user.username).status_code == 200
    user.refresh_from_db()
    assert ",p=1$" in user.password
    assert login(user.username).status_code == 200
