"""Every route, every method, everybody: who gets what, and that nobody learns what is somebody else's."""

import re
import threading
import time
from collections.abc import Iterator
from statistics import median
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from django.contrib import admin
from django.db import connection
from django.urls import URLPattern, URLResolver

from accounts.models import User
from queues.models import Request
from tests.accounts.people import Api, make_user
from tests.client import Client
from tests.project.cast import Cast
from tests.project.routes import ABSENT, METHODS, ROUTES, served, waiting
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("quick_hashes", "nothing_cached")

LIVING = ("owner", "other", "staff")
DEAD = ("nobody", "garbage", "refresh", "expired", "ended", "deactivated", "erased")
SAME_ID = "the-same-in-every-call"


@pytest.fixture
def cast(request: pytest.FixtureRequest, db: None) -> Cast:
    return Cast()


def test_the_table_knows_every_route() -> None:
    assert sorted(ROUTES) == sorted(served()), "write a new route into tests/project/routes.py, with who may call it"


@pytest.mark.no_cover  # what it runs is covered elsewhere, and being watched takes half as long again
@pytest.mark.parametrize("route", [route for route in ROUTES if not route.endswith("events")])
def test_everybody_gets_what_is_theirs_and_nothing_else(cast: Cast, route: str) -> None:
    for method in METHODS:
        check(cast, route, method)


@pytest.mark.django_db(transaction=True)
def test_everybody_streams_what_is_theirs_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams look from a connection of their own, so that what they are to see must be committed."""
    monkeypatch.setattr("queues.live.sse.LINGER_SECONDS", 0.0)
    before = threading.active_count()
    cast = Cast()
    for method in METHODS:
        check(cast, "api/v1/queue/events", method)
    until(lambda: threading.active_count() <= before, 60, "the streams' threads end with the last stream")


def check(cast: Cast, route: str, method: str) -> None:
    """One method as everybody calls it; all that could be wrong with the answers."""
    use = ROUTES[route].get(method)
    owner = cast.users["owner"]
    before = rows_of(owner)
    for who in (*DEAD, *LIVING):  # the owner last
        if use and use.owned:
            thing: Any = use.owned(owner)
            before = rows_of(owner)
        else:
            thing = ABSENT
        if who == "owner":
            assert rows_of(owner) == before, f"somebody else's {method} {route} changed what is the owner's"
        answer = call(cast, route, method, who, thing)
        case = f"{who}: {method} {route} answered {answer.status_code}: {b'' if answer.streaming else answer.content!r}"
        if use is None:
            # Some routes learn only from their own statement, which is not run, that the session has ended.
            assert answer.status_code in ((405,) if who in LIVING else (401, 405)), case
        elif use.public:
            assert answer.status_code == use.status, case
        elif who in DEAD:
            assert answer.status_code == 401, case
            assert "WWW-Authenticate" in answer, case
        elif use.owned and who != "owner":
            assert answer.status_code == 404, case
            assert seen(answer) == seen(call(cast, route, method, who, ABSENT)), case
        else:
            assert answer.status_code == use.status, case
        if answer.status_code == 405 and method != "TRACE":
            assert set(answer["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == set(ROUTES[route]) - {"HEAD"}, case
        if answer.status_code >= 400 and method != "HEAD":
            assert answer["Content-Type"] == "application/problem+json", case
            assert answer.json()["status"] == answer.status_code, case
        if use and use.owned and who != "owner":
            assert rows_of(owner) == before, f"{case}, and changed what is the owner's"


def call(cast: Cast, route: str, method: str, who: str, thing: Any) -> Any:
    use = ROUTES[route].get(method)
    path = "/" + re.sub(r"<\w+:\w+>", str(thing), route)
    api = cast.api(who)
    answer = api.send(method, path, use and use.body and use.body(), HTTP_X_REQUEST_ID=SAME_ID)
    if answer.streaming and route.endswith("events"):
        answer.close()  # it has begun; none of its events is waited for
    elif answer.streaming:
        answer.getvalue()  # to its end, so that all is given back
    if use and method not in ("GET", "HEAD"):
        cast.kept.pop(who, None)  # it may have ended the session
    return answer


def seen(answer: Any) -> tuple[int, dict[str, str], bytes]:
    """All that a client sees of an answer."""
    return answer.status_code, dict(answer.items()), answer.content


ALL_OF = """
    SELECT (SELECT json_agg(u) FROM accounts_user u WHERE u.id = %(user)s),
           (SELECT json_agg(s ORDER BY s.id) FROM accounts_session s WHERE s.user_id = %(user)s),
           (SELECT json_agg(i ORDER BY i::text) FROM queues_idempotencykey i WHERE i.user_id = %(user)s),
           json_agg(q), json_agg((SELECT json_agg(r ORDER BY r.id) FROM queues_request r WHERE r.queue_id = q.id)),
           json_agg((SELECT json_agg(w ORDER BY w.id) FROM webhooks_webhook w WHERE w.queue_id = q.id)),
           json_agg((SELECT json_agg(d ORDER BY d.id)
                     FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id WHERE w.queue_id = q.id))
    FROM queues_userqueue q WHERE q.user_id = %(user)s"""


def rows_of(user: User) -> Any:
    """All that a stranger could have changed."""
    with connection.cursor() as cursor:
        cursor.execute(ALL_OF, {"user": user.id})
        return cursor.fetchone()


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The text of every statement that this process sends to PostgreSQL."""
    sent: list[str] = []
    real = psycopg.Cursor.execute

    def noted(self: Any, query: Any, *args: Any, **named: Any) -> Any:
        sent.append(query if isinstance(query, str) else repr(query))
        return real(self, query, *args, **named)

    monkeypatch.setattr(psycopg.Cursor, "execute", noted)
    return sent


OWNED = [(route, method) for route, uses in ROUTES.items() for method, use in uses.items() if use.owned]


@pytest.mark.parametrize(("route", "method"), OWNED)
def test_the_foreign_and_the_absent_cost_the_same_statements(
    cast: Cast, statements: list[str], route: str, method: str
) -> None:
    make = ROUTES[route][method].owned
    assert make is not None
    foreign = make(cast.users["owner"])
    cost = []
    for thing in (foreign, ABSENT, uuid4()):
        api = cast.api("other")
        statements.clear()
        path = "/" + re.sub(r"<\w+:\w+>", str(thing), route)
        assert api.send(method, path, None).status_code == 404
        cost.append([re.sub(r'"?s\d+_x\d+"?', "savepoint", text) for text in statements])
    assert cost[0]
    assert cost[0] == cost[1] == cost[2]


@pytest.mark.no_cover
@pytest.mark.parametrize(("route", "method"), [one for one in OWNED if one[1] != "HEAD"])
def test_the_foreign_and_the_absent_take_the_same_time(cast: Cast, route: str, method: str) -> None:
    make = ROUTES[route][method].owned
    assert make is not None
    api, foreign = Api(cast.tokens("other")), make(cast.users["owner"])
    paths = ["/" + re.sub(r"<\w+:\w+>", str(thing), route) for thing in (foreign, ABSENT)]

    def apart() -> float:
        """How far the medians are apart; in turns, so that what else the machine does meets both."""
        took: list[list[float]] = [[], []]
        for number in range(80):
            for which in (0, 1) if number % 2 else (1, 0):
                began = time.perf_counter()
                api.send(method, paths[which], None)
                took[which].append(time.perf_counter() - began)
        first, second = map(median, took)
        return abs(first - second) / min(first, second)

    assert any(apart() < 0.25 for _ in range(4))


def pages(api: Api, query: str) -> Iterator[Any]:
    url = f"/api/v1/requests?{query}"
    while url:
        parts = urlsplit(url)
        answer = api.get(f"{parts.path}?{parts.query}")
        assert answer.status_code == 200, answer.content
        yield answer.json()
        url = answer.json()["next"]


@pytest.mark.parametrize(
    "query",
    ["", "limit=1", "order=asc", "status=queued", "kind=demo.echo", "created_after=2000-01-01T00:00:00Z", "limit=200"],
)
def test_no_list_filter_or_cursor_shows_what_is_somebody_elses(cast: Cast, query: str) -> None:
    users = [cast.users["owner"], cast.users["other"]]
    mine = {user.id: {str(waiting(user)) for _ in range(3)} for user in users}
    cursors = []
    for user in users:
        for page in pages(Api.of(user), query or "limit=2"):
            cursors.append(page["next"])
            assert {one["id"] for one in page["results"]} <= mine[user.id]
    for url in filter(None, cursors):
        for user in users:
            shown = Api.of(user).get(f"/api/v1/requests?{urlsplit(url).query}").json()["results"]
            assert {one["id"] for one in shown} <= mine[user.id]


def test_a_key_reaches_nobody_else(cast: Cast) -> None:
    owner, other, staff = (Api(cast.tokens(who)) for who in LIVING)
    sent, another = ({"kind": "demo.echo", "payload": payload} for payload in ("secret", "another"))
    for path in ("requests", "requests/batch"):
        body, unlike = (sent, another) if path == "requests" else ({"requests": [sent]}, {"requests": [another]})
        first = owner.post(path, body, HTTP_IDEMPOTENCY_KEY=path)
        same, different = (
            other.post(path, body, HTTP_IDEMPOTENCY_KEY=path),
            staff.post(path, unlike, HTTP_IDEMPOTENCY_KEY=path),
        )
        assert (first.status_code, same.status_code, different.status_code) == (202, 202, 202)
        assert "Idempotent-Replayed" not in same
        assert first.content != same.content
        assert owner.post(path, body, HTTP_IDEMPOTENCY_KEY=path).content == first.content
    assert [Request.objects.filter(queue__user=cast.users[who]).count() for who in LIVING] == [2, 2, 2]


def admin_pages(patterns: Any = None, before: str = "/admin/") -> Iterator[str]:
    for one in admin.site.urls[0] if patterns is None else patterns:
        path = before + re.sub(r"<\w+:\w+>", "1", str(one.pattern)).replace("^", "").replace("$", "")
        if isinstance(one, URLResolver):
            yield from admin_pages(one.url_patterns, path)
        elif isinstance(one, URLPattern) and "(?P" not in path:
            yield path


OPEN_TO_ALL = ("/admin/login/", "/admin/logout/")


@pytest.mark.parametrize("who", ["nobody", "token", "user", "staff without rights"])
def test_no_page_of_the_admin_opens_for_who_may_not(cast: Cast, who: str) -> None:
    client = Client(raise_request_exception=False)
    headers = {}
    if who == "token":
        headers["HTTP_AUTHORIZATION"] = f"Bearer {cast.tokens('staff').access}"
    elif who == "user":
        client.force_login(cast.users["other"])
    elif who == "staff without rights":
        client.force_login(make_user(is_staff=True))
    harmless = ("/admin/", "/admin/jsi18n/", "/admin/password_change/", "/admin/password_change/done/", "/admin/1")
    tried = [path for path in admin_pages() if path not in OPEN_TO_ALL]
    assert len(tried) > 20
    for path in tried:
        for method in ("get", "post"):
            answer = getattr(client, method)(path, **headers)
            if who != "staff without rights":
                assert (answer.status_code, answer.get("Location", "").partition("?")[0]) == (302, "/admin/login/"), (
                    path
                )
            elif path not in harmless:
                assert answer.status_code in (302, 403, 404, 405), (path, answer.status_code)
                assert answer.status_code != 302 or answer["Location"].startswith("/admin/"), path
