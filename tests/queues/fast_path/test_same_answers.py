"""The fast path gives the answers that Django gives, to what it takes; all else it leaves to Django, untouched."""

from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import Session, User
from queues.api import fast_path
from queues.api.fast_path import FastPath
from queues.models import Request, UserQueue
from tests.processing.crew import new_user
from tests.queues.api import ahead
from tests.queues.fast_path.conftest import BODY, Answer, Recorded, call
from tests.queues.rows import with_queues
from tests.queues.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)
DIFFERS = ("X-Request-ID", "Location", "Content-Length", "RateLimit")  # from one answer to the next
OWN = ("id", "sequence", "position", "created_at")


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
    pytest.param({}, {**BODY, "not_before": ahead(days=1)}, id="scheduled"),
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


def test_a_schema_that_crashes_is_answered_as_django_does(
    fast: FastPath, token: str, django: Recorded, monkeypatch: Any
) -> None:
    monkeypatch.setattr("queues.api.plain.read_one", lambda *_: 1 / 0)
    monkeypatch.setattr("queues.enqueue.parsing.read_one", lambda *_: 1 / 0)
    answer = call(fast, token)
    assert (answer.status, django.asked) == (500, 1)


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


@pytest.mark.parametrize("waited", [False, True])
def test_a_list_that_waited_for_a_thread_is_of_the_queue_as_it_is_then(
    waited: bool, fast: FastPath, django: Recorded, token: str, monkeypatch: Any
) -> None:
    call(fast, token)
    monkeypatch.setattr(fast_path, "FRESH_SECONDS", 0.0 if waited else 60.0)

    async def run_late(do: Any) -> Any:
        def late() -> Any:
            Session.objects.all().update(ended_at=timezone.now())
            return do()

        return await Recorded.run(django, late)

    monkeypatch.setattr(django, "run", run_late)
    assert read(fast, token, "/api/v1/requests").status == (401 if waited else 200)


def test_what_one_asks_for_shows_nobody_else_anything(fast: FastPath) -> None:
    """Many callers' requests are read in one statement."""
    tokens = [Session.open(user).access for user in with_queues(6)]
    own = [call(fast, token).json["id"] for token in tokens]

    def ask(n: int) -> list[Answer]:
        return [read(fast, tokens[n], f"/api/v1/requests/{own[(n + m) % 6]}") for m in range(6)]

    for n, answers in enumerate(at_once(6, ask)):
        assert [answer.status for answer in answers] == [200] + [404] * 5
        assert answers[0].json["id"] == own[n]
