"""GET /api/v1/auth/me/export: all that is kept of the caller, in bounded memory, and of nobody else."""

import gc
import tracemalloc
from collections import Counter
from typing import Any

import orjson
import pytest
from django.db import connection

from accounts.audit import SecurityEvent
from accounts.models import User
from project.web import rate_limit
from project.web.rate_limit import Limit
from queues.api import export
from queues.models import Request, UserQueue
from queues.states import Status
from tests.accounts.people import Api, make_user
from tests.queues.rows import queue_of, request_in

pytestmark = pytest.mark.usefixtures("no_limit_reached")

EXPORT = "auth/me/export"

MANY = """
    INSERT INTO queues_request (id, queue_id, seq, kind, payload, status, max_attempts, on_failure, trace, attempt,
        result, created_at, started_at, finished_at)
    SELECT gen_random_uuid(), %s, n, 'demo.echo', '{"n": 1}', 'succeeded', 3, 'continue', '', 1, '"done"',
        now(), now(), now()
    FROM generate_series(1, %s) n
"""


def lines_of(answer: Any) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in answer.getvalue().splitlines()]


def free_places() -> int:
    """How many exports may begin in this process."""
    return export.AT_ONCE - len(export._places.taken)


def with_requests(user: User, count: int) -> None:
    queue = queue_of(user)
    UserQueue.objects.filter(id=queue.id).update(last_seq=count, published_seq=count, done_seq=count)
    with connection.cursor() as cursor:
        cursor.execute(MANY, [queue.id, count])
        cursor.execute("ANALYZE queues_request")  # as autovacuum does; else it is planned for an empty table


@pytest.mark.django_db
def test_an_export_has_all_of_the_caller_and_nothing_of_others() -> None:
    user, other = make_user(username="zoe"), make_user()
    for owner in (user, other):
        with_requests(owner, 3)
    api = Api.of(user)
    answer = api.get(EXPORT)
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/x-ndjson")
    assert answer["Content-Disposition"] == 'attachment; filename="export.jsonl"'
    lines = lines_of(answer)
    assert Counter(line["record"] for line in lines) == {
        "account": 1, "session": 1, "security_event": 1, "queue": 1, "request": 3, "end": 1,
    }  # fmt: skip
    assert lines[0]["username"] == "zoe"
    assert lines[-1] == {"record": "end", "records": 7}
    assert all(len(line["attempts"]) == 1 for line in lines if line["record"] == "request")
    mine = {str(id_) for id_ in Request.objects.filter(queue__user=user).values_list("id", flat=True)}
    assert {line["id"] for line in lines if line["record"] == "request"} == mine
    assert str(other.id) not in answer.getvalue().decode()
    assert SecurityEvent.objects.filter(user_id=user.id).values_list("event", flat=True).last() == "exported"
    assert free_places() == export.AT_ONCE


@pytest.mark.django_db
def test_an_export_takes_no_more_memory_the_more_there_is() -> None:
    user = make_user()
    with_requests(user, 1_000)
    held = []
    tracemalloc.start()
    try:
        for _ in Api.of(user).get(EXPORT).streaming_content:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert len(held) > 5
    assert max(held[3:]) - held[2] < 200_000, held  # the lines since have more


@pytest.mark.django_db(transaction=True)
def test_a_client_that_goes_away_gives_its_place_back() -> None:
    user = make_user()
    with_requests(user, 1000)
    answer = Api.of(user).get(EXPORT)
    next(iter(answer.streaming_content))
    assert free_places() == export.AT_ONCE - 1
    answer.close()
    assert free_places() == export.AT_ONCE


@pytest.mark.django_db
def test_more_at_once_are_told_to_come_back_and_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "EXPORTS", Limit("exports", 1, window=3600))
    api = Api.of(make_user())
    held = [Api.of(make_user()).get(EXPORT) for _ in range(export.AT_ONCE)]
    for _ in range(3):
        refused = api.get(EXPORT)
        assert (refused.status_code, refused["Retry-After"]) == (503, "10")
    for answer in held:
        answer.getvalue()
    assert api.get(EXPORT).getvalue()


@pytest.mark.django_db
def test_one_user_takes_one_place_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "EXPORTS", Limit("exports", 2, window=3600))
    api = Api.of(make_user())
    held = api.get(EXPORT)
    for _ in range(3):
        refused = api.get(EXPORT)
        assert (refused.status_code, refused["Retry-After"]) == (429, "10")
    assert Api.of(make_user()).get(EXPORT).getvalue(), "another user's"
    assert held.getvalue()
    assert api.get(EXPORT).getvalue()


@pytest.mark.django_db
def test_exports_of_one_user_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "EXPORTS", Limit("exports", 1, window=3600))
    api = Api.of(make_user())
    assert api.get(EXPORT).getvalue()
    assert api.get(EXPORT).status_code == 429
    assert free_places() == export.AT_ONCE
    assert Api.of(make_user()).get(EXPORT).getvalue()


@pytest.mark.django_db
def test_one_that_takes_too_long_ends_without_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "LONGEST_SECONDS", -1.0)
    monkeypatch.setattr(export, "CHUNK", 100)
    user = make_user()
    request_in(queue_of(user), None, Status.CANCELLED)
    assert lines_of(Api.of(user).get(EXPORT))[-1]["record"] != "end"
    assert free_places() == export.AT_ONCE
