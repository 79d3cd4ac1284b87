"""GET /requests: pages by sequence, filters, and cursors that hold whatever is sent as one."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from queues.models import Request
from queues.representation import pagination
from queues.sql.statement import Statement
from queues.states import QueueState, Status
from tests.queues.api import Caller
from tests.queues.rows import NOW, a_long_story, queue_of, request_in

pytestmark = pytest.mark.django_db


def listed(caller: Caller, query: str = "") -> list[Any]:
    answer = caller.get(f"requests?{query}")
    assert answer.status == 200, answer.content
    return [request["sequence"] for request in answer.json["results"]]


def follow(caller: Caller, url: str | None, way: str = "next") -> list[list[str]]:
    """The ids on each page from `url` on."""
    pages = []
    while url:
        parts = urlsplit(url)
        answer = caller.get(f"{parts.path.removeprefix('/api/v1/')}?{parts.query}")
        assert answer.status == 200, answer.content
        pages.append([request["id"] for request in answer.json["results"]])
        url = answer.json[way]
    return pages


def test_the_newest_come_first_and_what_has_no_place_yet_before_them(alice: Caller) -> None:
    a_long_story(alice.user)
    assert listed(alice) == [None] * 5 + list(range(12, 0, -1))
    assert listed(alice, "order=asc") == list(range(1, 13)) + [None] * 5
    times = [request["created_at"] for request in alice.get("requests").json["results"][:5]]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 12, 16, 17, 200])
@pytest.mark.parametrize("narrowed", ["", "&status=cancelled", "&kind=demo.echo"])
def test_pages_hold_every_request_once_in_order_there_and_back(
    alice: Caller, order: str, limit: int, narrowed: str
) -> None:
    a_long_story(alice.user)
    a_long_story(Caller().user)
    whole = follow(alice, f"/api/v1/requests?order={order}&limit=200{narrowed}")
    assert len(whole) == 1
    pages = follow(alice, f"/api/v1/requests?order={order}&limit={limit}{narrowed}")
    assert [one for page in pages for one in page] == whole[0]
    assert all(len(page) == limit for page in pages[:-1])
    last = f"/api/v1/requests?order={order}&limit={limit}{narrowed}"
    while True:
        parts = urlsplit(last)
        following = alice.get(f"requests?{parts.query}").json["next"]
        if following is None:
            break
        last = following
    back = follow(alice, last, "previous")
    assert [one for page in reversed(back) for one in page][-len(pages[-1]) :] == pages[-1]
    assert sorted({one for page in back for one in page}) == sorted(whole[0])


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(("largest", "limit"), [(0, 200), (30, 200), (30, 2), (10_000, 17)])
def test_a_page_that_gets_too_large_ends_early_and_the_next_goes_on(
    alice: Caller, monkeypatch: pytest.MonkeyPatch, order: str, largest: int, limit: int
) -> None:
    a_long_story(alice.user)
    whole = follow(alice, f"/api/v1/requests?order={order}&limit=200")[0]
    monkeypatch.setattr(pagination, "LARGEST_PAGE_BYTES", largest)
    monkeypatch.setattr(pagination, "AT_A_TIME", 3)
    pages = follow(alice, f"/api/v1/requests?order={order}&limit={limit}")
    assert [one for page in pages for one in page] == whole
    assert max(map(len, pages)) <= (4 if largest <= 30 else limit)


def test_a_page_stays_where_it_is_while_more_is_submitted(alice: Caller) -> None:
    for _ in range(4):
        alice.submit()
    following = alice.get("requests?limit=2").json["next"]
    alice.submit()
    assert listed(alice, urlsplit(following).query) == [2, 1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=running", [8]),
        ("status=queued", [12, 10, 9]),
        ("status=retrying", []),
        ("status=scheduled", [None] * 3),
        ("status=succeeded", [7, 5, 1]),
        ("status=failed", [6, 2]),
        ("status=cancelled", [None, 11, 3]),
        ("status=expired", [None, 4]),
        ("kind=demo.steps", [12, 9, 6, 3]),
        ("kind=demo.steps&status=failed", [6]),
        ("kind=never.heard.of", []),
        (f"created_after={quote((NOW + timedelta(minutes=15)).isoformat())}", [None] * 2),
        (f"created_before={quote((NOW + timedelta(minutes=3)).isoformat())}", [2, 1]),
        ("created_after=2000-01-01T00:00:00Z&created_before=2000-01-02T00:00:00Z", []),
    ],
    ids=lambda value: value.partition("T")[0] if isinstance(value, str) else None,  # without the time of day
)
def test_filters_show_what_they_name(alice: Caller, query: str, expected: list[int | None]) -> None:
    a_long_story(alice.user)
    assert listed(alice, query) == expected


def test_what_a_filter_shows_has_the_status_that_was_asked_for(alice: Caller) -> None:
    a_long_story(alice.user)
    for status in Status.values:
        for request in alice.get(f"requests?status={status}").json["results"]:
            assert request["status"] == status


def test_a_head_between_attempts_is_retrying_and_not_running(alice: Caller) -> None:
    queue = queue_of(
        alice.user, last_seq=2, published_seq=2, state=QueueState.WAITING, wake_at=NOW + timedelta(hours=1)
    )
    request_in(queue, 1, Status.RETRYING, attempt=1)
    request_in(queue, 2, Status.QUEUED)
    assert [listed(alice, f"status={s}") for s in ("retrying", "queued", "running")] == [[1], [2], []]


def test_a_user_who_never_asked_for_anything_has_an_empty_list(alice: Caller) -> None:
    assert alice.get("requests").json == {"results": [], "next": None, "previous": None}


def test_nobody_lists_somebody_elses(alice: Caller) -> None:
    a_long_story(alice.user)
    bob = Caller()
    mine = bob.submit()["id"]
    theirs = alice.get("requests?limit=1").json["next"]
    assert follow(bob, "/api/v1/requests") == [[mine]]
    stolen = alice.get(f"requests?{urlsplit(theirs).query}").json["results"]
    assert not {r["id"] for r in stolen} & {one for page in follow(bob, theirs) for one in page}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("colour=red", "colour"),
        ("status=", "status"),
        ("status=done", "status"),
        ("status=queued&status=failed", "status"),
        ("status=%00", "status"),
        (f"kind={'x' * 101}", "kind"),
        ("order=up", "order"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=1e3", "limit"),
        (f"limit={'9' * 5000}", "limit"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-11-20", "created_after"),
        ("created_after=2026-11-20T00:00:00", "created_after"),
        ("created_before=99999-01-01T00:00:00Z", "created_before"),
        ("created_before=0001-01-01T00:00:00%2B23:59", "created_before"),
        ("created_before=2026-11-20T00:00:00+01:00", "created_before"),
    ],
)
def test_a_parameter_that_does_not_fit_is_named(alice: Caller, query: str, field: str) -> None:
    answer = alice.get(f"requests?{query}")
    assert (answer.status, list(answer.errors)) == (400, [field])


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "AAA", "p=notadate", "PgAAAAAAAAA", "PgAAAAAAAAAAAA", "é", "%00", "A" * 5000, "cD0xMjM=", "===="],
)
def test_a_cursor_that_is_none_of_ours_is_refused(alice: Caller, cursor: str) -> None:
    alice.submit()
    answer = alice.get(f"requests?cursor={cursor}")
    assert (answer.status, list(answer.errors)) == (400, ["cursor"])


@pytest.mark.parametrize(
    "cursor", ["PoAAAAAAAAAA", "Pn__________", "PAAAAAAAAAAA", "PP__________", "Pv___________________38"]
)
def test_a_cursor_to_where_nothing_is_shows_nothing_or_all(alice: Caller, cursor: str) -> None:
    alice.submit()
    for order in ("asc", "desc"):
        answer = alice.get(f"requests?cursor={cursor}&order={order}")
        assert answer.status in (200, 400)


def test_a_page_of_many_takes_as_many_queries_as_one_of_few(alice: Caller) -> None:
    a_long_story(alice.user)
    counts = []
    for limit in (1, 17):
        with CaptureQueriesContext(connection) as queries:
            alice.get(f"requests?limit={limit}&order=asc")
        counts.append(len(queries))
    assert counts[0] <= counts[1] <= 4
    assert Request.objects.count() == 17


def test_a_page_reads_no_results_that_it_does_not_show(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = queue_of(alice.user, last_seq=60, published_seq=60, done_seq=60)
    for seq in range(1, 61):
        request_in(queue, seq, Status.SUCCEEDED, result="x" * 500_000)
        request_in(queue, None, Status.SCHEDULED, not_before=NOW + timedelta(hours=1))
    read: list[int] = []
    tuples = Statement.tuples

    def counted(statement: Statement, **values: Any) -> list[tuple[Any, ...]]:
        rows = tuples(statement, **values)
        read.extend(len(value) for row in rows for value in row if isinstance(value, str))
        return rows

    monkeypatch.setattr(Statement, "tuples", counted)
    assert listed(alice, "limit=50") == [None] * 50
    assert 0 < sum(read) < 10_000, "characters"


def test_times_show_the_same_whether_or_not_they_spare_a_walk(alice: Caller) -> None:
    """What was scheduled long ago takes its place among the newest: no stretch of places rules it out."""
    queue = queue_of(alice.user, last_seq=40, published_seq=40, done_seq=40)
    hours = {3: 0, 17: 1, 25: 2, 26: 9, 39: 1}  # of those that were scheduled: when they were created
    created = {seq: NOW + timedelta(hours=hours.get(seq, seq)) for seq in range(1, 41)}
    for seq, at in created.items():
        request_in(queue, seq, Status.SUCCEEDED, at, not_before=at if seq in hours else None)
    moments = [NOW + timedelta(hours=hour, minutes=30) for hour in range(-2, 43, 3)]
    for after in [None, *moments]:
        for before in [None, *moments]:
            query = "limit=200&order=asc" + (f"&created_after={quote(after.isoformat())}" if after else "")
            query += f"&created_before={quote(before.isoformat())}" if before else ""
            expected = [s for s, at in created.items() if (not after or at > after) and (not before or at < before)]
            assert listed(alice, query) == expected
            assert listed(alice, query.replace("asc", "desc")) == expected[::-1]


def test_times_at_the_ends_of_the_calendar_are_times(alice: Caller) -> None:
    alice.submit()
    first, last = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
    assert listed(alice, f"created_after={first}&created_before={last}") == [1]
    assert listed(alice, f"created_after={last}") == listed(alice, f"created_before={first}") == []
