"""The short way gives the answers that Django gives, to what it takes; all else it leaves to Django, untouched."""

import io
import json
import re
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, OperationalError, connection
from django.utils import timezone

from accounts.models import Session, User
from project import redis
from project.web import rate_limit, together
from project.web.rate_limit import Limit
from queues.api import fast_path
from queues.api.fast_path import FastPath
from queues.enqueue import group_commit
from queues.enqueue.accept import accept_together
from queues.models import Request, UserQueue
from tests.asgi import as_wsgi, in_threads
from tests.metrics import counted
from tests.processing.crew import new_user, queue_of, until
from tests.queues.rows import with_queues
from tests.queues.threads import NOTHING_IS_ACCEPTED, at_once, holding, in_thread, wait_for_a_lock

pytestmark = pytest.mark.django_db(transaction=True)

BODY = {"kind": "demo.echo", "payload": {"n": 1.50, "text": "ü"}}
DIFFERS = ("X-Request-ID", "Location", "Content-Length", "RateLimit")  # from one answer to the next
OWN = ("id", "sequence", "position", "created_at")


class Answer:
    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = int(status[:3]), dict(headers), body
        self.json = json.loads(body) if body else None
        assert len(self.headers) == len(headers), f"a header twice: {headers}"
        assert int(self.headers["Content-Length"]) == len(body)


class Recorded:
    """Django, and how many requests came as far as there."""

    def __init__(self) -> None:
        self.django = in_threads(2)
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        await self.django(scope, receive, send)

    async def run(self, do: Any, *values: Any) -> Any:
        def closing() -> Any:
            try:
                return do(*values)
            finally:
                connection.close()

        return await self.django.run(closing)


def call(application: Any, token: str | None, body: Any = BODY, **environ: Any) -> Answer:
    """What an application answers to a submission, with `environ` beside or instead of the usual."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/api/v1/requests", "SCRIPT_NAME": "", "QUERY_STRING": "",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "localhost",
        "REMOTE_ADDR": "127.0.0.1", "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(raw)),
        "HTTP_AUTHORIZATION": f"Bearer {token}", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(raw),
        "wsgi.errors": sys.stderr, "wsgi.version": (1, 0), "wsgi.multithread": True, "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }  # fmt: skip
    if token is None:
        del asked["HTTP_AUTHORIZATION"]
    started: list[Any] = []
    response = as_wsgi(application)({**asked, **environ}, lambda status, headers, *_: started.append((status, headers)))
    content = b"".join(response)
    getattr(response, "close", lambda: None)()
    (start,) = started
    return Answer(*start, content)


@pytest.fixture
def django() -> Recorded:
    return Recorded()


@pytest.fixture
def fast(django: Recorded) -> Iterator[FastPath]:
    application = FastPath(django)
    yield application
    application.close()


@pytest.fixture
def user() -> User:
    (user,) = with_queues(1)
    return user


@pytest.fixture
def token(user: User) -> str:
    return Session.open(user).access


def stored(answer: Answer) -> dict[str, Any]:
    row = Request.objects.filter(id=answer.json["id"]).values().get()
    return {name: value for name, value in row.items() if name not in ("id", "seq", "created_at", "trace")}


PLAIN: list[Any] = [
    pytest.param({}, {}, BODY, id="an ordinary one"),
    pytest.param({}, {"CONTENT_TYPE": "application/json; charset=UTF-8"}, BODY, id="with its charset"),
    pytest.param({}, {"HTTP_X_REQUEST_ID": "mine-1"}, BODY, id="with an id of the caller's"),
    pytest.param({}, {}, {**BODY, "version": 1, "expires_at": "2100-01-01T00:00:00Z"}, id="with all it may have"),
    pytest.param({}, {}, b' {"payload" : 1e2 ,"kind":"demo.echo"}\n', id="written differently"),
    pytest.param(
        {"SECURE_SSL_REDIRECT": True, "SECURE_HSTS_SECONDS": 60, "SECURE_HSTS_PRELOAD": True},
        {"wsgi.url_scheme": "https"},
        BODY,
        id="over https",
    ),
    pytest.param(
        {
            "SECURE_SSL_REDIRECT": True,
            "SECURE_HSTS_SECONDS": 60,
            "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
        },
        {"HTTP_X_FORWARDED_PROTO": "https"},
        BODY,
        id="behind a proxy",
    ),
    pytest.param({"CORS_ALLOWED_ORIGINS": ["https://app.example.com"]}, {}, BODY, id="where scripts may call"),
]


@pytest.mark.parametrize(("changed", "environ", "body"), PLAIN)
def test_what_is_plain_gets_the_answer_and_the_row_that_django_makes(
    changed: dict[str, Any], environ: dict[str, Any], body: Any, django: Recorded, token: str, settings: Any
) -> None:
    for name, value in changed.items():
        setattr(settings, name, value)
    slow = call(Recorded(), token, body, **environ)
    application = FastPath(django)
    try:
        quick = call(application, token, body, **environ)
    finally:
        application.close()
    assert django.asked == 0
    assert quick.status == slow.status == 202
    both = [
        {**answer.headers, **{name: name in answer.headers for name in DIFFERS}, "body": list(answer.json)}
        for answer in (quick, slow)
    ]
    assert both[0] == both[1]
    assert quick.headers["Location"] == f"/api/v1/requests/{quick.json['id']}"
    if sent := environ.get("HTTP_X_REQUEST_ID"):
        assert quick.headers["X-Request-ID"] == slow.headers["X-Request-ID"] == sent
    assert Request.objects.get(id=quick.json["id"]).trace == quick.headers["X-Request-ID"]
    told = [{name: value for name, value in answer.json.items() if name not in OWN} for answer in (quick, slow)]
    assert told[0] == told[1]
    assert (slow.json["sequence"], quick.json["sequence"], quick.json["position"]) == (1, 2, 1)
    assert stored(quick) == stored(slow)
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT payload::text FROM queues_request")
        assert len(cursor.fetchall()) == 1  # to the letter


LEFT: list[Any] = [
    pytest.param({"HTTP_IDEMPOTENCY_KEY": "k"}, BODY, id="a key"),
    pytest.param({"QUERY_STRING": "a=1"}, BODY, id="a query"),
    pytest.param({"SCRIPT_NAME": "/below"}, BODY, id="another root"),
    pytest.param({"REQUEST_METHOD": "PUT"}, BODY, id="another method"),
    pytest.param({"PATH_INFO": "/api/v1/requests/"}, BODY, id="another path"),
    pytest.param({"CONTENT_TYPE": "text/plain"}, BODY, id="another type"),
    pytest.param({"CONTENT_TYPE": "application/json; charset=latin-1"}, BODY, id="another charset"),
    pytest.param({"HTTP_CONTENT_ENCODING": "gzip"}, BODY, id="compressed"),
    pytest.param({"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}, BODY, id="without a length"),
    pytest.param({"HTTP_TRANSFER_ENCODING": "chunked"}, BODY, id="with a length and in chunks"),
    pytest.param({"CONTENT_LENGTH": "0" * 5000}, BODY, id="a length of 5,000 digits"),
    pytest.param({"HTTP_ORIGIN": "https://evil.example"}, BODY, id="from a script"),
    pytest.param({"HTTP_HOST": "evil.example"}, BODY, id="another host"),
    pytest.param({"HTTP_AUTHORIZATION": "Bearer x.y.z"}, BODY, id="a bad token"),
    pytest.param({"HTTP_AUTHORIZATION": "Basic x"}, BODY, id="no token"),
    pytest.param({"CONTENT_LENGTH": "70000"}, BODY, id="more said than allowed"),
    pytest.param({"CONTENT_LENGTH": "60"}, b'{"kind": "demo.echo"', id="less sent than said"),
    pytest.param({}, b"", id="no body"),
    pytest.param({}, b"{", id="no JSON"),
    pytest.param({}, b'{"kind": "demo.echo", "payload": "\\u0000"}', id="NUL"),
    pytest.param({}, [BODY], id="an array"),
    pytest.param({}, {**BODY, "kind": "demo.nothing"}, id="an unknown kind"),
    pytest.param({}, {**BODY, "status": "succeeded"}, id="an unknown field"),
    pytest.param({}, {**BODY, "not_before": "2027-01-01T00:00:00Z"}, id="scheduled"),
]


@pytest.mark.parametrize(("environ", "body"), LEFT)
def test_what_is_not_plain_is_left_to_django_as_it_came(
    environ: dict[str, Any], body: Any, fast: FastPath, django: Recorded, token: str
) -> None:
    alone = call(Recorded(), token, body, **environ)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM queues_idempotencykey")
    passed = call(fast, token, body, **environ)
    assert django.asked == 1
    assert (passed.status, set(passed.headers)) == (alone.status, set(alone.headers))
    if passed.status >= 400:
        told = [{**answer.json, "request_id": ""} for answer in (passed, alone)]
        assert told[0] == told[1]


def test_http_is_sent_to_https_outside_development(token: str, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    application = FastPath(Recorded())
    try:
        assert call(application, token).status == 301
    finally:
        application.close()
    assert not Request.objects.exists()


def test_the_first_submission_of_a_user_makes_the_queue(fast: FastPath, django: Recorded) -> None:
    token = Session.open(new_user()).access
    assert [call(fast, token).json["sequence"] for _ in range(3)] == [1, 2, 3]
    assert django.asked == 1


@pytest.mark.parametrize("end", ["session", "user", "deleted"])
def test_a_session_that_is_over_submits_nothing_more(end: str, fast: FastPath, user: User) -> None:
    session = Session.open(user)
    assert call(fast, session.access).status == 202
    if end == "session":
        Session.objects.filter(user=user).update(ended_at=timezone.now())
    elif end == "user":
        User.objects.filter(id=user.id).update(is_active=False)
    else:
        Request.objects.all().delete()
        UserQueue.objects.all().delete()
        Session.objects.all().delete()
        user.delete()
    refused = call(fast, session.access)
    assert (refused.status, refused.json["type"]) == (401, "/problems/session-ended")


def test_a_full_queue_is_refused_with_its_pace_and_counted_once(fast: FastPath, user: User, token: str) -> None:
    UserQueue.objects.filter(user=user).update(waiting_limit=2)
    answers = [call(fast, token) for _ in range(4)]
    assert [answer.status for answer in answers] == [202, 202, 429, 429]
    assert answers[2].json["type"] == "/problems/queue-full"
    assert queue_of(user).last_seq == 2
    left = [int(re.findall(r"r=(\d+)", answer.headers["RateLimit"])[0]) for answer in answers]
    assert [left[0] - n for n in left] == [0, 1, 2, 3]


def test_limits_are_exact_whoever_comes_at_once(fast: FastPath, monkeypatch: Any) -> None:
    monkeypatch.setattr(rate_limit, "SUBMIT", Limit("exact", 50))
    users = with_queues(2)
    tokens = [Session.open(user).access for user in users]
    answers = at_once(20, lambda n: [call(fast, tokens[n % 2]) for _ in range(10)])
    for number, user in enumerate(users):
        mine = [answer for n, some in enumerate(answers) for answer in some if n % 2 == number]
        assert sorted(answer.status for answer in mine) == [202] * 50 + [429] * 50
        assert queue_of(user).last_seq == 50
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in mine if answer.status == 429)
        left = [answer.headers["RateLimit"] for answer in mine if answer.status == 202]
        assert len(set(left)) == 50  # each was told what is left after it


def test_many_at_once_get_places_without_gaps(fast: FastPath) -> None:
    users = [new_user() for _ in range(4)]
    tokens = [Session.open(user).access for user in users]
    answers = at_once(12, lambda n: [call(fast, tokens[n % 4]).json["sequence"] for _ in range(20)])
    assert all(places == sorted(places) for places in answers)
    for number, user in enumerate(users):
        mine = [place for n, places in enumerate(answers) for place in places if n % 4 == number]
        assert sorted(mine) == list(range(1, 61))
        assert list(Request.objects.filter(queue__user=user).order_by("seq").values_list("seq", flat=True)) == list(
            range(1, 61)
        )
        assert queue_of(user).last_seq == 60


def test_whoever_waits_for_a_lock_holds_up_nobody_else(fast: FastPath, django: Recorded) -> None:
    (locked, other) = with_queues(2)
    theirs, mine = Session.open(locked).access, Session.open(other).access
    with holding("SELECT FROM queues_userqueue WHERE user_id = %s FOR UPDATE", locked.id):
        waiting = in_thread(lambda: call(fast, theirs))
        in_thread(wait_for_a_lock)()
        assert in_thread(lambda: call(fast, mine))().status == 202
    assert waiting().status == 202
    assert django.asked == 1


def test_when_postgresql_goes_in_the_middle_nobody_is_told_what_is_not_known(
    fast: FastPath, user: User, token: str, django: Recorded
) -> None:
    with holding(NOTHING_IS_ACCEPTED), connection.cursor() as cursor:
        asked = in_thread(lambda: call(fast, token, HTTP_X_REQUEST_ID="mine"))
        in_thread(wait_for_a_lock)()
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    answer = asked()
    slow = call(Recorded(), "x")  # what Django says to something it refuses
    assert answer.status == 503
    assert answer.json["request_id"] == answer.headers["X-Request-ID"] == "mine"
    assert set(answer.headers) == {*slow.headers, "Retry-After"} - {"WWW-Authenticate"}
    assert django.asked == 0
    assert call(fast, token).json["sequence"] == 1
    assert django.asked == 0


def test_what_was_not_refused_by_postgresql_itself_is_never_asked_again(
    fast: FastPath, user: User, token: str, django: Recorded, monkeypatch: Any
) -> None:
    """An answer that got lost behind the commit looks like a refusal to Django's classes."""

    def garbled(asks: Any) -> Any:
        accept_together(asks)
        raise DatabaseError("lost synchronization with server") from psycopg.DatabaseError("lost synchronization")

    monkeypatch.setattr(group_commit, "accept_together", garbled)
    answer = call(fast, token)
    assert (answer.status, django.asked) == (500, 0)
    assert queue_of(user).last_seq == 1


def test_a_restart_of_postgresql_while_nobody_asks_costs_nobody_anything(
    fast: FastPath, user: User, token: str, django: Recorded, monkeypatch: Any
) -> None:
    monkeypatch.setattr(together, "QUIET_SECONDS", 0.0)
    assert call(fast, token).status == 202
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    assert call(fast, token).json["sequence"] == 2
    assert django.asked == 0


def test_a_schema_that_crashes_is_answered_as_django_does(
    fast: FastPath, token: str, django: Recorded, monkeypatch: Any
) -> None:
    monkeypatch.setattr(fast_path, "read_one", lambda *_: 1 / 0)
    monkeypatch.setattr("queues.enqueue.parsing.read_one", lambda *_: 1 / 0)
    answer = call(fast, token)
    assert (answer.status, django.asked) == (500, 1)


def test_an_answer_that_cannot_be_made_is_a_fault_of_ours_and_not_asked_again(
    fast: FastPath, user: User, token: str, django: Recorded, monkeypatch: Any
) -> None:
    monkeypatch.setattr(fast_path, "encoded", lambda _: 1 / 0)
    answer = call(fast, token)
    assert (answer.status, django.asked) == (500, 0)
    assert queue_of(user).last_seq == 1


class Unread(io.BytesIO):
    def read(self, *_: Any) -> bytes:
        raise AssertionError("somebody who may not ask made a thread wait for the body")


@pytest.mark.parametrize(
    "environ", [{"HTTP_AUTHORIZATION": "Bearer x"}, {"HTTP_AUTHORIZATION": ""}, {"HTTP_HOST": "evil.example"}]
)
def test_the_body_of_somebody_who_may_not_ask_is_not_read(environ: dict[str, str], token: str) -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    assert call(FastPath(refusing), token, **environ, **{"wsgi.input": Unread()}).status == 401


def test_after_a_fork_it_accepts_as_before(fast: FastPath, user: User, token: str, django: Recorded) -> None:
    assert call(fast, token).status == 202
    parents, thread = fast.commits._waiting, fast.commits._thread
    fast.commits._process += 1  # as in a child, which has no such thread
    assert call(fast, token).json["sequence"] == 2
    assert django.asked == 0
    assert fast.commits._thread is not thread
    parents.put(None)
    thread.join()


def test_a_connection_that_cannot_even_be_closed_keeps_nobody_waiting(
    fast: FastPath, user: User, token: str, monkeypatch: Any
) -> None:
    def broken(*_: Any) -> Any:
        raise OperationalError

    looks = {"close_if_unusable_or_obsolete": lambda: None, "close_if_health_check_failed": lambda: None}
    with monkeypatch.context() as patch:
        patch.setattr(group_commit, "accept_together", broken)
        patch.setattr(together, "connection", SimpleNamespace(close=broken, **looks))
        assert call(fast, token).status == 503
    assert call(fast, token).status == 202


def test_what_is_accepted_is_counted_logged_and_told_like_any_other(
    fast: FastPath, user: User, token: str, monkeypatch: Any
) -> None:
    told: list[Any] = []
    monkeypatch.setattr("queues.notify.hints.work_waits", lambda: told.append("hint"))
    monkeypatch.setattr("queues.event_log.accepted", lambda *args: told.append(args[0]))
    monkeypatch.setattr(group_commit, "changed", lambda queue_id: told.append(queue_id))
    before = counts()
    answer = call(fast, token)
    until(lambda: len(told) == 3)
    assert sorted(map(str, told)) == sorted(["hint", str(user.id), str(queue_of(user).id)])
    with monkeypatch.context() as patch:
        patch.setattr(group_commit, "accept_together", lambda _: 1 / 0)
        assert call(fast, token).status == 500
    assert answer.status == 202
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1, 1]


def counts() -> list[float]:
    """Accepted requests, and answers with 202 and with 500."""
    route = {"method": "POST", "route": "api/v1/requests"}
    answers = [counted("http_requests_total", status=status, **route) for status in ("202", "500")]
    return [counted("accepted_total", kind="demo.echo"), *answers]


def test_a_fault_is_answered_as_one_and_the_next_submission_is_accepted(
    fast: FastPath, user: User, token: str, monkeypatch: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(group_commit, "accept_together", lambda _: 1 / 0)
        answer = call(fast, token)
        assert (answer.status, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert call(fast, token).status == 202


def test_without_redis_it_still_accepts_and_says_nothing_of_limits(
    fast: FastPath, user: User, token: str, django: Recorded, monkeypatch: Any
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise redis.RedisUnavailable

    monkeypatch.setattr(redis, "call", away)
    answer = call(fast, token)
    assert (answer.status, django.asked) == (202, 0)
    assert "RateLimit" not in answer.headers


def test_a_middleware_that_it_does_not_know_turns_it_off(django: Recorded, settings: Any) -> None:
    application = fast_path.in_front_of(django)
    assert isinstance(application, FastPath)
    application.close()
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "somebody.elses.Tracing"]
    assert fast_path.in_front_of(django) is django


def read(application: Any, token: str, path: str, **environ: Any) -> Answer:
    asked = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "CONTENT_TYPE": "", "CONTENT_LENGTH": ""}
    return call(application, token, b"", **asked, **environ)


@pytest.mark.parametrize("path", ["kinds", "queue", "requests", "requests/{id}"])
def test_what_is_read_the_short_way_is_what_django_shows(
    path: str, fast: FastPath, django: Recorded, token: str
) -> None:
    place = f"/api/v1/{path}".replace("{id}", call(fast, token).json["id"])
    both = [read(application, token, place, HTTP_X_REQUEST_ID="mine") for application in (fast, Recorded())]
    assert django.asked == 0
    quick, slow = both
    assert (quick.status, quick.headers, quick.body) == (200, slow.headers, slow.body)
    if etag := quick.headers.get("ETag"):
        known = [read(app, token, place, HTTP_IF_NONE_MATCH=etag, HTTP_X_REQUEST_ID="mine") for app in (fast, django)]
        assert [(answer.status, answer.body) for answer in known] == [(304, b"")] * 2
        assert known[0].headers == known[1].headers


@pytest.mark.parametrize("path", ["kinds", "queue", "requests", "requests/{id}"])
def test_who_may_not_read_is_refused_as_by_django(path: str, fast: FastPath, token: str) -> None:
    place = f"/api/v1/{path}".replace("{id}", call(fast, token).json["id"])
    other = Session.open(new_user()).access
    if path.endswith("{id}"):
        assert read(fast, other, place).status == 404
    Session.objects.all().update(ended_at=timezone.now())
    refused = read(fast, token, place)
    assert (refused.status, refused.json["type"]) == (401, "/problems/session-ended")


def test_what_one_asks_for_shows_nobody_else_anything(fast: FastPath) -> None:
    """Many callers' requests are read in one statement."""
    tokens = [Session.open(user).access for user in with_queues(6)]
    own = [call(fast, token).json["id"] for token in tokens]

    def ask(n: int) -> list[Answer]:
        return [read(fast, tokens[n], f"/api/v1/requests/{own[(n + m) % 6]}") for m in range(6)]

    for n, answers in enumerate(at_once(6, ask)):
        assert [answer.status for answer in answers] == [200] + [404] * 5
        assert answers[0].json["id"] == own[n]


def test_a_schema_that_takes_long_is_asked_in_a_thread_from_then_on(
    fast: FastPath, django: Recorded, token: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(fast_path, "SLOW_SECONDS", 0.0)
    assert [call(fast, token).status for _ in range(2)] == [202, 202]
    assert django.asked == 1
