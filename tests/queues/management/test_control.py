"""What operators do: it asks before, and keeps who did what and why."""

import gc
from typing import Any

import pytest
from django.db import OperationalError

from accounts.models import User
from queues.exceptions import NotPossible
from queues.lifecycle import control
from queues.management import command_base
from queues.management.command_base import Exit
from queues.management.commands import queue as queue_command
from queues.models import KindLimit, OperatorAction, Request, UserQueue
from queues.states import QueueState, Status
from tests.processing.crew import new_user, submit
from tests.queues.commands import run
from tests.queues.management.conftest import a_queue
from tests.queues.rows import queue_of, request_in

pytestmark = pytest.mark.django_db


def blocked(user: User) -> UserQueue:
    queue = queue_of(user, last_seq=2, published_seq=2, state=QueueState.BLOCKED)
    request_in(queue, 1, Status.RETRYING, attempt=3)
    request_in(queue, 2, Status.QUEUED)
    return queue


def test_nothing_happens_until_somebody_says_yes() -> None:
    user = new_user()
    queue = a_queue(user, 3)
    said = f"would purge 1 queue with 3 requests, of {user.username}"
    ran = run("queue", "purge", queue.pk)
    assert (ran.status, ran.said) == (Exit.NOT_CONFIRMED, f"This {said}. Add --yes to do it.")
    ran = run("queue", "purge", queue.pk, "--dry-run")
    assert said in ran.err
    assert Request.objects.filter(finished_at=None).count() == 3
    assert not OperatorAction.objects.exists()


def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = a_queue(new_user(), 1)

    class Terminal:
        def __init__(self, answer: str) -> None:
            self.answer = answer

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.answer

    monkeypatch.setattr(command_base.sys, "stdin", Terminal("\n"))
    assert run("queue", "pause", queue.pk).status == Exit.NOT_CONFIRMED
    monkeypatch.setattr(command_base.sys, "stdin", Terminal("y\n"))
    assert run("queue", "pause", queue.pk).status == Exit.DONE
    queue.refresh_from_db()
    assert queue.paused


def test_who_did_what_and_why_is_kept() -> None:
    queue = a_queue(new_user(), 3)
    run("queue", "purge", queue.pk, "--yes", "--reason", "asked for by its owner")
    kept = OperatorAction.objects.get()
    assert (kept.command, kept.reason) == (f"queue purge {queue.pk}", "asked for by its owner")
    assert "@" in kept.by
    assert (kept.outcome, kept.finished_at is not None) == ("1 purged, 0 refused", True)
    assert set(Request.objects.values_list("status", flat=True)) == {"cancelled"}


def test_what_is_refused_is_said_and_the_rest_is_done() -> None:
    stuck, fine = blocked(new_user()), a_queue(new_user(), 1)
    ran = run("queue", "skip", fine.pk, stuck.pk, "--yes", "--json")
    assert (ran.status, ran.said) == (Exit.REFUSED, "1 skipped, 1 refused")
    assert [row["result"].partition(":")[0] for row in ran.json] == ["refused", "skipped"]
    assert Request.objects.get(queue=stuck, seq=1).status == "failed"


def test_all_queues_of_a_state_are_chosen_at_once() -> None:
    one, other = blocked(new_user()), blocked(new_user())
    a_queue(new_user(), 1)
    ran = run("queue", "skip", "--state", "blocked", "--yes", "--json")
    assert {row["queue"] for row in ran.json} == {one.pk, other.pk}
    assert run("queue", "skip", "--state", "blocked", "--yes").status == Exit.DONE, "none is left"
    assert run("queue", "skip", "--yes").status == Exit.USAGE
    assert run("queue", "skip", one.pk, "--state", "blocked", "--yes").status == Exit.USAGE


def test_no_more_than_a_batch_is_held_and_what_is_printed_is_one_table_or_one_array(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queues = [blocked(User.objects.create_user(name)) for name in ("al", "bo", "cy", "dora-the-explorer", "ed")]
    seen: list[int] = []

    def held() -> int:
        gc.collect()
        return sum(type(one) is UserQueue for one in gc.get_objects())

    def skip(queue_id: int) -> None:
        seen.append(held() - before)
        UserQueue.objects.filter(id=queue_id).update(state=QueueState.READY)

    monkeypatch.setitem(queue_command.VERBS, "skip", (skip, *queue_command.VERBS["skip"][1:]))
    before = held()
    ran = run("queue", "skip", "--state", "blocked", "--yes", "--batch-size", "2")
    assert len(seen) == 5
    assert max(seen) <= 4, "a page, and the one before it"
    assert [line.split()[1] for line in ran.lines] == ["user", "al", "bo", "cy", "dora-the-explorer", "ed"]
    assert [line for line in ran.err.splitlines() if " of " in line] == ["2 of 5", "4 of 5"]
    queues = [blocked(User.objects.create_user(f"other-{number}")) for number in range(3)]
    words = ("queue", "skip", "--state", "blocked", "--batch-size", "2", "--json")
    assert [row["queue"] for row in run(*words, "--dry-run").json] == [queue.pk for queue in queues]
    ran = run(*words, "--yes")
    assert [(row["queue"], row["result"]) for row in ran.json] == [(queue.pk, "skipped") for queue in queues]
    assert OperatorAction.objects.order_by("-id")[0].outcome == "3 skipped, 0 refused"


def test_what_was_done_before_the_database_went_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    queues = [a_queue(new_user(), 1) for _ in range(3)]

    def goes(queue_id: int, **_: Any) -> None:
        if queue_id == queues[2].pk:
            raise OperationalError("gone")

    monkeypatch.setitem(queue_command.VERBS, "purge", (goes, "purged", ""))
    ran = run("queue", "purge", "--state", "ready", "--yes", "--batch-size", "2", "--json")
    assert ran.status == Exit.SERVER_AWAY
    assert [row["queue"] for row in ran.json] == [queues[0].pk, queues[1].pk]
    assert OperatorAction.objects.get().outcome == "2 purged, 0 refused"


def test_a_queue_that_is_erased_meanwhile_is_refused_and_the_rest_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    gone, fine = a_queue(new_user(), 1), a_queue(new_user(), 1)

    def erased(*_: Any) -> bool:
        User.objects.filter(queue=gone).delete()
        return True

    monkeypatch.setattr(command_base.OperatorCommand, "confirm", erased)
    ran = run("queue", "pause", gone.pk, fine.pk, "--json")
    assert ran.status == Exit.REFUSED
    assert [row["result"] for row in ran.json] == ["refused: it has just been erased", "paused"]


def test_pause_resume_and_republish_do_what_they_say() -> None:
    queue = a_queue(new_user(), 3)
    run("queue", "pause", queue.pk, "--yes")
    run("queue", "republish", queue.pk, "--yes")
    queue.refresh_from_db()
    assert (queue.paused, queue.state, queue.published_seq, queue.last_seq) == (True, "idle", 0, 3)
    shown_ = run("queues", "show", queue.pk, "--json").json
    assert ("@" in shown_["paused_by"], shown_["resumed_by"]) == (True, "operator")
    assert shown_["paused_at"].endswith("Z")
    with pytest.raises(NotPossible):
        control.resume(queue.pk)
    run("queue", "resume", queue.pk, "--yes")
    queue.refresh_from_db()
    assert not queue.paused
    assert run("queues", "show", queue.pk, "--json").json["resumed_by"] is None
    control.pause(queue.pk)
    assert run("queues", "show", queue.pk, "--json").json["resumed_by"] == "owner or operator"
    UserQueue.objects.filter(id=queue.pk).update(state=QueueState.DRAINING)
    ran = run("queue", "republish", queue.pk, "--yes")
    assert (ran.status, "A worker has the queue" in ran.out) == (Exit.REFUSED, True)


def test_requests_are_cancelled_and_retried() -> None:
    user = new_user()
    submit(user, 1, 2, kind="demo.echo")
    first, second = Request.objects.filter(queue__user=user).order_by("seq")
    assert run("requests", "cancel", first.id, "--yes").status == Exit.DONE
    ran = run("requests", "cancel", first.id, second.id, "--yes", "--json")
    assert ran.status == Exit.REFUSED
    assert "cancelled already" in ran.json[0]["result"]
    assert run("requests", "retry", first.id, "--yes").status == Exit.DONE
    assert Request.objects.get(retry_of=first).seq == 3
    User.objects.filter(id=user.id).update(is_active=False)
    assert "not active" in run("requests", "retry", first.id, "--yes").out


def test_a_kind_is_paused_limited_and_let_go_by_command() -> None:
    assert run("kind", "pause", "demo.echo", "--yes", "--reason", "why not").status == Exit.DONE

    def now() -> dict[str, Any]:
        (row,) = [row for row in run("kind", "list", "--json").json if row["kind"] == "demo.echo"]
        return dict(row)

    assert now()["paused"]
    assert KindLimit.objects.get(kind="demo.echo").paused_by.endswith(": why not")
    assert run("kind", "resume", "demo.echo", "--yes").status == Exit.DONE
    assert run("kind", "limit", "demo.echo", "--max-concurrency", 3, "--rate", "5/10s", "--yes").status == Exit.DONE
    assert {name: now()[name] for name in ("paused", "max_concurrency", "rate", "set_here", "running", "waiting")} == {
        "paused": False, "max_concurrency": 3, "rate": "5/10s", "set_here": True, "running": 0, "waiting": 0,
    }  # fmt: skip
    assert run("kind", "limit", "demo.echo", "--rate", "none", "--yes").status == Exit.DONE
    assert (now()["max_concurrency"], now()["rate"]) == (3, None)
    assert run("kind", "limit", "demo.echo", "--reset", "--yes").status == Exit.DONE
    assert (now()["set_here"], now()["running"]) == (False, None)
    assert [action.command for action in OperatorAction.objects.order_by("id")][:2] == [
        "kind pause demo.echo", "kind resume demo.echo",
    ]  # fmt: skip
