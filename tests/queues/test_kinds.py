"""Kinds grow: versions side by side, one that is gone is refused, and what waits for it is shown before."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pydantic import BaseModel

import queues
from processing.handlers import handler
from processing.schedules import writing
from queues import kinds
from queues.models import Request
from queues.sql.figures import KINDS_IN_USE
from tests.processing.crew import new_user
from tests.processing.kinds import kept
from tests.queues.api import Caller
from tests.queues.commands import run
from tests.queues.rows import a_long_story

pytestmark = pytest.mark.django_db


class Old(BaseModel):
    pages: int


class New(BaseModel):
    pages: int
    period: str


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    def work(request: Any, payload: Any) -> None:
        return None

    with kept():
        handler("test.report", version=1, schema=Old)(work)
        handler("test.report", version=2, schema=New, permission="queues.view_request")(work)
        yield


def drop(name: str, version: int) -> None:
    """What a release without it has."""
    del kinds._kinds[name, version]
    left = [kind for key, kind in kinds._kinds.items() if key[0] == name]
    if left:
        kinds._newest[name] = left[-1]
    else:
        del kinds._newest[name]


def test_two_versions_stand_side_by_side_each_with_its_schema() -> None:
    user = new_user()
    queues.submit(user, "test.report", {"pages": 1}, version=1)
    queues.submit(user, "test.report", {"pages": 1, "period": "May"}, check_permission=False)
    assert list(Request.objects.order_by("seq").values_list("version", flat=True)) == [1, 2]
    with pytest.raises(queues.Invalid):
        queues.submit(user, "test.report", {"pages": 1})


def test_a_version_that_is_gone_is_refused_with_those_that_there_are() -> None:
    drop("test.report", 1)
    answer = Caller().post("requests", {"kind": "test.report", "payload": {"pages": 1}, "version": 1})
    assert (answer.status, answer.errors) == (400, {"version": "unknown_version"})
    assert answer.json["errors"][0]["detail"] == "test.report has no such version; there is 2."


def test_check_shows_what_waits_for_a_version_that_is_gone() -> None:
    user, other = new_user(), new_user()
    queues.submit(user, "test.report", {"pages": 1}, version=1)
    queues.submit(other, "test.report", {"pages": 1}, version=1, not_before=timezone.now() + timedelta(days=1))
    queues.submit(user, "demo.echo", 1)
    assert run("kinds", "check").status == 0
    drop("test.report", 1)
    ran = run("kinds", "check", "--json")
    assert ran.status == 5
    assert ran.said == "2 requests would have no handler with this code."
    (told,) = ran.json
    assert [told[name] for name in ("kind", "version", "what", "count", "users")] == [
        "test.report",
        1,
        "requests",
        2,
        2,
    ]


def test_check_shows_schedules_of_a_kind_that_is_gone() -> None:
    writing.add(new_user().id, '{"pages": 1}', {"name": "n", "kind": "test.report", "version": 1, "every_seconds": 60})
    writing.add(new_user().id, "1", {"name": "n", "kind": "demo.echo", "every_seconds": 60})
    assert run("kinds", "check").status == 0
    drop("test.report", 1)
    ran = run("kinds", "check", "--json")
    assert (ran.status, [(one["what"], one["kind"]) for one in ran.json]) == (5, [("schedules", "test.report")])


def test_what_is_finished_is_neither_counted_nor_read() -> None:
    queue = a_long_story(new_user())
    unfinished = Request.objects.filter(queue=queue, finished_at=None)
    rows = KINDS_IN_USE.rows()
    assert sum(row.unfinished for row in rows) == unfinished.count() > 0
    assert sum(row.waiting for row in rows) == unfinished.count() - 1, "one runs"


def test_list_shows_every_kind_and_who_may_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    queues.submit(new_user(), "test.report", {"pages": 1}, version=1)
    told = {(one["kind"], one["version"]): one for one in run("kinds", "list", "--json").json}
    assert told["test.report", 1]["waiting"] == 1
    assert [told["test.report", version]["newest"] for version in (1, 2)] == [False, True]
    assert told["test.report", 2]["permission"] == "queues.view_request"
    assert {"demo.echo", "http.call"} <= {kind for kind, _ in told}
