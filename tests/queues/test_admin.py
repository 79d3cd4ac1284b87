"""Operators see, search and control queues and requests; no page writes what the protocol owns, none counts a table."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib.admin import site
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.db.models import BooleanField
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from queues.admin.request_detail import pretty
from queues.models import Attempt, Request, UserQueue
from queues.operations.selectors import first_id
from queues.states import AttemptOutcome, QueueState, Status
from tests.client import Client
from tests.queues.rows import NOW, a_long_story, queue_of, request_in

pytestmark = pytest.mark.django_db
QUEUES, REQUESTS = "/admin/queues/userqueue/", "/admin/queues/request/"


@pytest.fixture
def operator() -> Client:
    client = Client(raise_request_exception=True)
    client.force_login(User.objects.create_superuser("operator"))
    return client


@pytest.fixture
def bob() -> User:
    return User.objects.create_user("bob-the-builder", email="bob@example.com")


def rows(page: Any) -> list[Any]:
    return list(page.context["cl"].result_list)


def test_a_queue_shows_how_it_is_doing(operator: Client, bob: User) -> None:
    queue = a_long_story(bob)
    page = operator.get(QUEUES)
    (shown,) = rows(page)
    assert (shown.depth, shown.oldest_waiting_at) == (5, NOW + timedelta(minutes=9)), "the running one does not wait"
    assert b"bob-the-builder" in page.content
    assert operator.get(f"{QUEUES}{queue.id}/change/").status_code == 200


@pytest.mark.parametrize("term", ["bob-the-builder", "BOB-the-builder", "bob-the", "BOB@example.com", "{user}"])
def test_queues_and_requests_are_found_by_their_user(operator: Client, bob: User, term: str) -> None:
    queue = a_long_story(bob)
    a_long_story(User.objects.create_user("alice"))
    term = term.format(user=bob.id)
    assert [found.id for found in rows(operator.get(QUEUES, {"q": term}))] == [queue.id]
    assert {found.queue_id for found in rows(operator.get(REQUESTS, {"q": term}))} == {queue.id}


def test_a_request_is_found_by_its_id(operator: Client, bob: User) -> None:
    wanted = a_long_story(bob).requests.get(seq=3)
    assert rows(operator.get(REQUESTS, {"q": f" {wanted.id} "})) == [wanted]
    assert rows(operator.get(REQUESTS, {"q": "01a1fab8-0000-7000-8000-000000000000"})) == []


@pytest.mark.parametrize(
    ("status", "sequences"),
    [
        ("running", {8}), ("queued", {9, 10, 12}), ("scheduled", {None}), ("succeeded", {1, 5, 7}),
        ("failed", {2, 6}), ("cancelled", {3, 11, None}), ("expired", {4, None}), ("retrying", set()),
        ("nonsense", {*range(1, 13), None}),
    ],
)  # fmt: skip
def test_requests_are_filtered_by_status(operator: Client, bob: User, status: str, sequences: set[int | None]) -> None:
    a_long_story(bob)
    assert {found.seq for found in rows(operator.get(REQUESTS, {"status": status}))} == sequences


def test_requests_that_wait_for_another_attempt_are_found(operator: Client, bob: User) -> None:
    queue = queue_of(bob, last_seq=2, published_seq=2, state=QueueState.WAITING, wake_at=NOW + timedelta(hours=1))
    head = request_in(queue, 1, Status.RETRYING, attempt=1)
    request_in(queue, 2, Status.QUEUED)
    assert rows(operator.get(REQUESTS, {"status": "retrying"})) == [head]
    assert rows(operator.get(REQUESTS, {"status": "retrying", "kind": "demo.steps"})) == []
    republished = queue_of(User.objects.create_user("unpublished"), last_seq=1)
    other = request_in(republished, 1, Status.RETRYING, attempt=1)
    assert rows(operator.get(REQUESTS, {"status": "retrying"})) == [other, head]


def test_requests_are_filtered_by_kind_and_by_when_they_were_made(operator: Client, bob: User) -> None:
    queue = queue_of(bob, last_seq=2)
    old = request_in(queue, 1, Status.QUEUED, id=first_id(timezone.now() - timedelta(hours=2)), kind="demo.steps")
    new = request_in(queue, 2, Status.QUEUED)
    assert rows(operator.get(REQUESTS, {"kind": "demo.steps"})) == [old]
    assert rows(operator.get(REQUESTS, {"created": "hour"})) == [new]
    assert rows(operator.get(REQUESTS, {"created": "day"})) == [new, old]
    assert rows(operator.get(REQUESTS, {"status": "queued", "created": "hour"})) == [new]
    assert rows(operator.get(REQUESTS, {"status": "queued", "kind": "demo.steps"})) == [old]
    assert rows(operator.get(REQUESTS, {"status": "queued", "kind": "demo.steps\0"})) == [old]
    assert rows(operator.get(REQUESTS, {"status": "queued", "q": "bob-the-builder"})) == [new, old]


@pytest.mark.parametrize("state", QueueState.values)
def test_queues_are_filtered_by_state(operator: Client, bob: User, state: str) -> None:
    a_long_story(bob)
    queue_of(User.objects.create_user("idler"))
    found = rows(operator.get(QUEUES, {"state": state}))
    assert {queue.state for queue in found} == ({state} if state in ("idle", "draining") else set())


def test_a_request_shows_its_attempts_and_its_json_to_the_letter(operator: Client, bob: User) -> None:
    queue = queue_of(bob, last_seq=1)
    mine = request_in(queue, 1, Status.QUEUED, attempt=1)
    error = {"type": "ValueError", "message": "<i>no</i>", "at": "2026-11-20T20:00:00+00:00"}
    Attempt.objects.create(
        request=mine, number=1, started_at=NOW, finished_at=NOW, outcome=AttemptOutcome.TIMED_OUT, error=error
    )
    with connection.cursor() as cursor:
        cursor.execute("UPDATE queues_request SET payload = '{\"n\" : 1.0}' WHERE id = %s", [mine.id])
    page = operator.get(f"{REQUESTS}{mine.id}/change/").content.decode()
    assert "{\n  &quot;n&quot;: 1.0\n}" in page
    assert "ValueError: &lt;i&gt;no&lt;/i&gt;" in page
    assert "ran longer than its kind may" in page


@pytest.mark.parametrize(
    "payload", ["<script>alert(1)</script>", {"<img src=x onerror=alert(1)>": "{{ 7*7 }}%s{}"}, "x" * 60_000, None, {}]
)
def test_a_hostile_payload_is_text(operator: Client, bob: User, payload: Any) -> None:
    queue = queue_of(bob, last_seq=1, published_seq=1, done_seq=1)
    error = {"type": "<script>", "message": "</pre><script>", "at": "2026-11-20T20:00:00+00:00"}
    mine = request_in(
        queue, 1, Status.FAILED, payload=payload or {"a": None}, result=payload, error=error, trace="<script>"
    )
    for path in (REQUESTS, f"{REQUESTS}{mine.id}/change/", QUEUES, f"{QUEUES}{queue.id}/change/"):
        page = operator.get(path).content.decode()
        assert "<script>alert" not in page
        assert "</pre><script>" not in page
        assert "<img src=x" not in page
        assert len(page) < 150_000


def test_no_hand_writes_what_the_protocol_owns(operator: Client, bob: User) -> None:
    queue = a_long_story(bob)
    mine = queue.requests.get(seq=9)
    for path in (f"{QUEUES}add/", f"{REQUESTS}add/", f"{QUEUES}{queue.id}/delete/", f"{REQUESTS}{mine.id}/delete/"):
        assert operator.get(path).status_code == 403
    assert operator.post(f"{REQUESTS}{mine.id}/change/", {"seq": 1, "status": "succeeded"}).status_code == 403
    before = UserQueue.objects.values().get()
    UserQueue.objects.update(fence=7)  # moved on since the page was shown
    changed = operator.post(
        f"{QUEUES}{queue.id}/change/",
        {"waiting_limit": "5", "done_seq": "12", "state": "idle", "paused": "on", "reason": "they pay for more"},
    )
    assert changed.status_code == 302
    assert UserQueue.objects.values().get() == {**before, "fence": 7, "waiting_limit": 5}
    assert LogEntry.objects.get().change_message == "limited: they pay for more (waiting_limit 5)"
    for wrong in ({"waiting_limit": "-1", "reason": "x"}, {"waiting_limit": "6"}):
        assert operator.post(f"{QUEUES}{queue.id}/change/", wrong).status_code == 200
    assert UserQueue.objects.get().waiting_limit == 5
    for action in ("delete_selected", "nonsense"):
        operator.post(REQUESTS, {"action": action, "_selected_action": [str(mine.id)]})
    assert Request.objects.filter(id=mine.id).exists()


def test_users_see_none_of_it(bob: User) -> None:
    client = Client()
    client.force_login(bob)
    for path in (QUEUES, REQUESTS):
        assert client.get(path).status_code == 302


def queries_for(get: Callable[[], Any]) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        assert get().status_code == 200
    return [query["sql"] for query in queries]


@pytest.mark.parametrize(
    "path", [QUEUES, REQUESTS, f"{REQUESTS}?status=queued", f"{QUEUES}?q=user", f"{REQUESTS}?q=user"]
)
def test_a_list_takes_the_same_few_queries_however_long_it_is(operator: Client, path: str) -> None:
    def more(count: int) -> None:
        for number in range(count):
            user = User.objects.create_user(f"user-{count}-{number}")
            request_in(queue_of(user, last_seq=2), 1, Status.QUEUED)

    more(2)
    operator.get(path)
    few = queries_for(lambda: operator.get(path))
    more(20)
    many = queries_for(lambda: operator.get(path))
    assert len(few) == len(many) <= 8
    assert not [sql for sql in many if "COUNT(" in sql and "LIMIT" not in sql]
    assert not [sql for sql in many if '"queues_request"."payload"' in sql]


def test_the_deepest_queues_come_first_and_idle_ones_are_left_out(operator: Client) -> None:
    for name, depth in (("ada", 3), ("bob", 7), ("eve", 0)):
        state = "ready" if depth else "idle"
        queue_of(User.objects.create_user(name), last_seq=depth, published_seq=depth, state=state)
    assert [queue.user.username for queue in rows(operator.get(f"{QUEUES}?o=-3"))] == ["bob", "ada"]
    assert len(rows(operator.get(QUEUES))) == 3


def test_a_list_says_ages_and_shows_no_cross_for_what_is_well(operator: Client, bob: User) -> None:
    queue = queue_of(bob, last_seq=1, published_seq=1, state="ready")
    request_in(queue, 1, Status.QUEUED, timezone.now() - timedelta(seconds=44))
    page = operator.get(QUEUES).content.decode()
    assert re.search(r"<td[^>]*>4[45] s</td>", page)
    assert 'class="state ready"' in page
    assert "icon-no" not in page


def test_no_list_of_any_app_has_a_cross_for_what_is_normal(operator: Client, bob: User) -> None:
    """Django draws one for each False: words stand there instead."""
    for model in filter(site.is_registered, apps.get_models()):
        for name in site.get_model_admin(model).list_display:
            shown = getattr(site.get_model_admin(model), str(name), None) or getattr(model, str(name))
            field = getattr(shown, "field", None)
            assert not getattr(shown, "boolean", isinstance(field, BooleanField)), f"{model.__name__}: {name}"
    User.objects.create_user("gone", is_active=False)
    page = operator.get("/admin/accounts/user/").content.decode()
    assert re.findall(r'field-(?:state|role)">([^<]+)<', page) == [
        "deactivated",
        "-",
        "active",
        "-",
        "active",
        "superuser",
    ]
    assert "icon-no" not in page


def test_a_requests_page_is_a_timeline_with_tracebacks(operator: Client, bob: User) -> None:
    queue = queue_of(bob, last_seq=1, done_seq=1, published_seq=1)
    times = {"started_at": NOW, "finished_at": NOW + timedelta(seconds=90)}
    mine = request_in(queue, 1, Status.FAILED, attempt=2, **times)
    for number in (1, 2):
        Attempt.objects.create(
            request=mine,
            number=number,
            started_at=NOW + timedelta(seconds=number),
            finished_at=NOW + timedelta(seconds=number + 30),
            outcome=AttemptOutcome.FAILED,
            error={"type": "KeyError", "message": "page", "at": "2026-11-20T20:00:00+00:00"},
            traceback="File handlers.py, line 7",
        )
    page = operator.get(f"{REQUESTS}{mine.id}/change/")
    told = [(event.what, event.seconds) for event in page.context["page"].events]
    assert told == [("Accepted", None), ("Attempt 1 failed", 30), ("Attempt 2 failed", 30), ("Failed", None)]
    assert page.content.decode().count("File handlers.py, line 7") == 2


@pytest.mark.parametrize(
    "text",
    ['{"a":[1,{"b":1.10}],"c":"x,{y}\\"z"}', "[]", "{}", "[[],{}]", '"a"', "null", '{"a":{},"b":[1,2]}', "1E400"],
)
def test_json_is_shown_in_lines_and_to_the_letter(text: str) -> None:
    shown = pretty(text)
    assert "".join(line.strip() for line in shown.replace(": ", ":").splitlines()) == text
    assert json.loads(shown) == json.loads(text)
