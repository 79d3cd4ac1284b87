"""What operators list and show."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from accounts.models import User
from queues.management.command_base import Exit
from queues.management.commands import queues as queues_command
from queues.models import Attempt, KindLimit, UserQueue
from queues.operations import selectors
from queues.states import Status
from tests.processing.crew import new_user
from tests.queues.commands import run
from tests.queues.management.conftest import AGES_AGO, a_queue
from tests.queues.rows import queue_of, request_in

pytestmark = pytest.mark.django_db


def test_queues_are_listed_worst_first_and_those_at_rest_left_out() -> None:
    deep, shallow, rests = new_user(), new_user(), new_user()
    a_queue(shallow, 2, avg_service_seconds=60.0)
    a_queue(deep, 5, avg_service_seconds=0.5)
    queue_of(rests, last_seq=9, published_seq=9, done_seq=9)
    assert [row["user"] for row in run("queues", "list", "--json").json] == [deep.username, shallow.username]
    assert next(r["user"] for r in run("queues", "list", "--json", "--sort", "service_time").json) == shallow.username
    assert next(r["user"] for r in run("queues", "list", "--json", "--sort", "age").json) == deep.username
    (one,) = run("queues", "list", "--json", "--limit", "1").json
    assert (one["depth"], one["avg_service_seconds"], one["state"]) == (5, 0.5, "ready")
    assert one["oldest_waiting_seconds"] == pytest.approx(300, abs=60)


def test_a_table_is_aligned_and_no_name_controls_the_terminal() -> None:
    user = User.objects.create(username="\x1b[2Jevil")
    a_queue(user, 11)
    a_queue(new_user(), 2)
    ran = run("queues", "list")
    assert "\x1b" not in ran.out
    header, first, second = ran.lines
    assert header.startswith("queue") or header.lstrip().startswith("queue")
    at = header.index("depth")
    assert (first[at : at + 5], second[at : at + 5]) == ("   11", "    2")


def test_one_queue_is_shown_by_number_user_id_or_name_in_any_case() -> None:
    user = new_user()
    queue = a_queue(user, 3)
    for name in (queue.pk, user.id, user.username, user.username.upper()):
        shown_ = run("queues", "show", name, "--json").json
        assert (shown_["queue"], shown_["depth"], len(shown_["next"])) == (queue.pk, 3, 3)
    assert [line.split()[1] for line in run("queues", "show", queue.pk).lines[-3:]] == ["1", "2", "3"]


@pytest.mark.parametrize("name", ["nobody", "999999999", "٣", "018f0000-0000-7000-8000-000000000000", "a\0b", "9" * 30])
def test_what_does_not_exist_is_said(name: str) -> None:
    ran = run("queues", "show", name)
    assert ran.status == Exit.NOT_FOUND
    assert "There is no queue" in ran.said
    assert run("requests", "show", name).status == Exit.NOT_FOUND


def test_top_looks_so_many_times() -> None:
    a_queue(new_user(), 3)
    ran = run("queues", "top", "--times", "2", "--interval", "0", "--json")
    first, second = map(json.loads, ran.lines)
    assert first["depth"] == second["depth"] == 3
    assert len(first["queues"]) == 1
    assert "depth=3" in run("queues", "top", "--times", "1").lines[0]


def test_top_paints_a_terminal_until_somebody_has_seen_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    user = new_user()
    a_queue(user, 3)
    painted: list[Any] = []

    class Screen:
        def __enter__(self) -> "Screen":
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, picture: Any, refresh: bool) -> None:
            painted.append(picture)
            if len(painted) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(queues_command, "Live", lambda **_: Screen())
    monkeypatch.setattr(queues_command, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    ran = run("queues", "top", "--interval", "0")
    assert (ran.status, ran.out, len(painted)) == (Exit.DONE, "", 2)
    assert "depth 3" in painted[0].title
    assert user.username in [*painted[0].columns[1].cells]


def test_listing_reads_no_queue_at_rest() -> None:
    users = User.objects.bulk_create(User(username=f"resting-{n}") for n in range(2_000))
    UserQueue.objects.bulk_create(UserQueue(user=user) for user in users)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE accounts_user, queues_userqueue")
    plan = selectors.with_oldest(selectors.busy()).order_by(selectors.ORDERS["depth"]).explain()
    assert "queue_active" in plan
    assert "Seq Scan on queues_userqueue" not in plan


def test_requests_are_found_by_status_kind_user_and_age() -> None:
    user = new_user()
    queue = a_queue(user, 2)
    old = request_in(queue_of(new_user()), None, Status.FAILED, AGES_AGO, kind="demo.steps")
    assert {row["status"] for row in run("requests", "list", "--queue", user.username, "--json").json} == {"queued"}
    assert [row["request"] for row in run("requests", "list", "--status", "failed", "--json").json] == [str(old.id)]
    assert [row["request"] for row in run("requests", "list", "--kind", "demo.steps", "--json").json] == [str(old.id)]
    assert len(run("requests", "list", "--since", "1h", "--json").json) == 2
    assert len(run("requests", "list", "--status", "queued", "--json").json) == 2
    for status in Status:
        run("requests", "list", "--status", status.value, "--json").json  # noqa: B018  (each is asked for in its way)
    assert run("requests", "show", old.id, "--json").json["status"] == "failed"
    queue.refresh_from_db()


def test_a_payload_is_shown_only_when_it_is_asked_for() -> None:
    request = request_in(a_queue(new_user(), 0), None, Status.FAILED, payload={"secret": 1}, error=None)
    Attempt.objects.create(
        request=request, number=1, started_at=AGES_AGO, finished_at=AGES_AGO, outcome="failed",
        error={"type": "Oops", "message": "no", "at": AGES_AGO.isoformat()},
    )  # fmt: skip
    assert "secret" not in run("requests", "show", request.id).out
    assert "secret" in run("requests", "show", request.id, "--payload").out
    assert run("requests", "show", request.id, "--json").json["attempts"][0]["error"]["type"] == "Oops"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["pause", "no.kind"], Exit.NOT_FOUND, "There is no kind 'no.kind'"),
        (["limit", "no.kind", "--rate", "1/m"], Exit.NOT_FOUND, "There is no kind 'no.kind'"),
        (["limit", "demo.echo", "--rate", "x/y"], Exit.USAGE, "--rate x/y: write up to 100000 for a time"),
        (["limit", "demo.echo", "--max-concurrency", "0"], Exit.USAGE, "write a whole number from 1, or none."),
        (["limit", "demo.echo", "--max-concurrency=-2"], Exit.USAGE, "write a whole number from 1, or none."),
        (["limit", "demo.echo"], Exit.USAGE, "Give --max-concurrency or --rate, or --reset alone."),
        (["limit", "demo.echo", "--reset", "--rate", "1/m"], Exit.USAGE, "or --reset alone."),
    ],
    ids=str,
)
def test_what_does_not_fit_of_a_kind_changes_nothing(words: list[str], status: int, said: str) -> None:
    ran = run("kind", *words, "--yes")
    assert ran.status == status
    assert said in ran.said + ran.err
    assert not KindLimit.objects.exists()
