"""What operators type: it finds, shows, steers and forgets, asks before, and keeps who did what and why."""

import gc
import json
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from accounts.models import User
from queues.exceptions import NotPossible
from queues.lifecycle import control
from queues.management import command_base
from queues.management.command_base import Exit, positive, shown, span
from queues.management.commands import failed as failed_command
from queues.management.commands import queue as queue_command
from queues.management.commands import queues as queues_command
from queues.models import Attempt, KindLimit, OperatorAction, Request, UserQueue
from queues.operations import selectors
from queues.states import QueueState, Status
from scripts.place import ROOT
from tests.processing.crew import new_user, submit
from tests.queues.commands import run
from tests.queues.rows import queue_of, request_in

pytestmark = pytest.mark.django_db

AGES_AGO = timezone.now() - timedelta(days=100)


def a_queue(user: User, waiting: int, **fields: Any) -> UserQueue:
    queue = queue_of(user, last_seq=waiting, published_seq=waiting, state=QueueState.READY, **fields)
    for seq in range(1, waiting + 1):
        request_in(queue, seq, Status.QUEUED, timezone.now() - timedelta(minutes=waiting))
    return queue


def blocked(user: User) -> UserQueue:
    queue = queue_of(user, last_seq=2, published_seq=2, state=QueueState.BLOCKED)
    request_in(queue, 1, Status.RETRYING, attempt=3)
    request_in(queue, 2, Status.QUEUED)
    return queue


# Looking


def test_queues_are_listed_worst_first_and_those_at_rest_left_out() -> None:
    deep, shallow, rests = new_user(), new_user(), new_user()
    a_queue(shallow, 2, seconds_each=60.0)
    a_queue(deep, 5, seconds_each=0.5)
    queue_of(rests, last_seq=9, published_seq=9, done_seq=9)
    assert [row["user"] for row in run("queues", "list", "--json").json] == [deep.username, shallow.username]
    assert next(r["user"] for r in run("queues", "list", "--json", "--sort", "service_time").json) == shallow.username
    assert next(r["user"] for r in run("queues", "list", "--json", "--sort", "age").json) == deep.username
    (one,) = run("queues", "list", "--json", "--limit", "1").json
    assert (one["depth"], one["avg_service_seconds"], one["state"]) == (5, 0.5, "ready")
    assert one["oldest_waiting_seconds"] == pytest.approx(300, abs=60)


def test_a_table_is_aligned_and_no_name_steers_the_terminal() -> None:
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


# Steering


def test_nothing_happens_until_somebody_says_yes() -> None:
    queue = a_queue(new_user(), 3)
    ran = run("queue", "purge", queue.pk)
    assert (ran.status, ran.said) == (
        Exit.NOT_CONFIRMED, "This would purge 1 queue with 3 requests. Add --yes to do it.",
    )  # fmt: skip
    ran = run("queue", "purge", queue.pk, "--dry-run")
    assert "would purge 1 queue with 3 requests" in ran.err
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


@pytest.mark.parametrize("wrong", ["-1", "nan", "inf", "1e300", "soon", ""])
def test_a_time_that_cannot_be_waited_for_is_said(wrong: str) -> None:
    assert "argument --interval: invalid seconds value" in run("queues", "top", f"--interval={wrong}").said
    assert "argument --patience: invalid seconds value" in run("user", "erase", "x", f"--patience={wrong}").said


@pytest.mark.parametrize("wrong", ["0", "-1", "99999999999999999999", "many"])
def test_a_number_that_cannot_be_counted_to_is_said(wrong: str) -> None:
    assert "argument --limit: invalid positive value" in run("queues", "list", f"--limit={wrong}").said
    assert "argument --batch-size: invalid positive value" in run("doctor", f"--batch-size={wrong}").said
    assert run("queues", "list", "--limit", 2**31 - 1).status == Exit.DONE


@pytest.mark.django_db(transaction=True)
def test_an_argument_that_is_no_text_is_said() -> None:
    queue = a_queue(new_user(), 1)
    ran = run("queue", "pause", queue.pk, "--yes", "--reason", "caf\udce9")
    assert (ran.status, ran.said) == (Exit.USAGE, "This is no text: 'caf\\udce9'.")
    assert run("queues", "show", "\udcff").status == Exit.USAGE
    assert not UserQueue.objects.get().paused


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


# Forgetting


def test_old_requests_are_forgotten_in_batches_and_failed_ones_kept() -> None:
    queue = queue_of(new_user(), last_seq=9, published_seq=9, done_seq=7, state=QueueState.READY)
    for seq in range(1, 6):
        gone = request_in(queue, seq, Status.SUCCEEDED, AGES_AGO, id=looking_back(AGES_AGO, seq))
    Attempt.objects.create(request=gone, number=1, started_at=AGES_AGO, finished_at=AGES_AGO, outcome="failed")
    kept = [
        request_in(queue, 6, Status.FAILED, AGES_AGO, id=looking_back(AGES_AGO, 6)),
        request_in(queue, 7, Status.SUCCEEDED),
        request_in(queue, 8, Status.CANCELLED, AGES_AGO, id=looking_back(AGES_AGO, 8)),  # ahead of the head
        request_in(queue, 9, Status.QUEUED, AGES_AGO, id=looking_back(AGES_AGO, 9), retry_of=gone),
    ]
    words = ("requests", "prune", "--older-than", "30d", "--batch-size", "2", "--json")
    assert run(*words, "--dry-run").json["would_delete"] == 5
    ran = run(*words, "--yes")
    assert ran.json["deleted"] == 5
    assert "2 deleted" in ran.err
    assert "4 deleted" in ran.err
    assert set(Request.objects.values_list("id", flat=True)) == {request.id for request in kept}
    assert Request.objects.get(seq=9).retry_of_id is None
    assert OperatorAction.objects.get().outcome == "5 deleted"
    assert run(*words, "--yes", "--status", "failed").json["deleted"] == 1


def looking_back(moment: Any, number: int) -> Any:
    """An id as it would have been given then."""
    return selectors.UUID(int=(int(moment.timestamp() * 1000) << 80) + (7 << 76) + (2 << 62) + number)


def test_the_longest_age_of_all_is_one_that_can_be_asked_for() -> None:
    longest = f"{command_base.LONGEST_SPAN.days}d"
    assert run("requests", "prune", "--older-than", longest, "--dry-run", "--json").json["would_delete"] == 0
    for words in (("requests", "list"), ("failed", "summary")):
        assert run(*words, "--since", longest, "--json").json == []


# The dead letters


@pytest.fixture
def dead() -> list[Request]:
    users = new_user(), new_user()
    found = []
    for user in users:
        queue = queue_of(user, last_seq=3, published_seq=3, done_seq=3)
        for seq, kind in enumerate(("demo.echo", "demo.flaky", "demo.echo"), 1):
            error = {"type": "Timeout" if seq == 2 else "Refused", "message": "no", "at": AGES_AGO.isoformat()}
            found.append(request_in(queue, seq, Status.FAILED, kind=kind, payload={"failures": 0}, error=error))
    return found


def test_failures_are_counted_by_kind_and_error(dead: list[Request]) -> None:
    rows = run("failed", "summary", "--json").json
    assert [(r["kind"], r["error_type"], r["requests"], r["queues"]) for r in rows] == [
        ("demo.echo", "Refused", 4, 2),
        ("demo.flaky", "Timeout", 2, 2),
    ]
    assert run("failed", "summary", "--since", "1h", "--json").json == rows
    assert "demo.flaky" in run("failed", "summary", "--kind", "demo.flaky").lines[1]


def test_all_failed_of_a_kind_are_retried_in_order_and_only_once(dead: list[Request]) -> None:
    words = ("failed", "retry", "--kind", "demo.echo", "--json")
    assert run(*words).status == Exit.NOT_CONFIRMED
    assert run(*words, "--dry-run").json == {"would_retry": 4}
    assert len(run(*words, "--yes", "--limit", "1").json) == 1
    assert len(run(*words, "--yes", "--per-minute", "60000").json) == 3
    assert run(*words, "--yes").json == {"would_retry": 0}
    assert OperatorAction.objects.count() == 2
    for queue in UserQueue.objects.all():
        again = Request.objects.filter(queue=queue, seq__gt=3).order_by("seq")
        assert [r.retry_of.seq for r in again if r.retry_of] == [1, 3]


def test_retries_are_read_in_pages_and_each_waits_its_time(
    dead: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    real = control.retry_once

    def fails_again(request_id: Any) -> None:
        real(request_id)
        again = Request.objects.filter(retry_of=request_id)
        again.update(status=Status.FAILED, finished_at=timezone.now())
        told.append(request_id)

    monkeypatch.setattr(failed_command, "sleep", lambda seconds: told.append(seconds))
    monkeypatch.setattr(control, "retry_once", fails_again)
    ran = run("failed", "retry", "--yes", "--per-minute", "120", "--batch-size", "4", "--json")
    ids = [request.id for request in sorted(dead, key=lambda one: (one.queue_id, one.seq))]
    assert [row["request"] for row in ran.json] == [str(one) for one in ids]
    assert told == [step for number, one in enumerate(ids) for step in (0.5 if number else 0.0, one)]


def test_failures_are_exported_for_the_operators_eyes_alone(dead: list[Request], tmp_path: Path) -> None:
    path = tmp_path / "failed.jsonl"
    ran = run("failed", "export", "--output", path)
    assert ran.err.strip() == "6 exported"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    exported = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["id"] for row in exported} == {str(request.id) for request in dead}
    assert exported[0]["payload"] == {"failures": 0}
    assert len(run("failed", "export", "--kind", "demo.flaky").lines) == 2
    again = run("failed", "export", "--output", path)
    assert (again.status, "File exists" in again.said) == (Exit.USAGE, True)


# What all share


def test_a_database_that_is_away_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise OperationalError("connection refused\nIs the server running?")

    monkeypatch.setattr(control.UserQueue.objects, "select_related", away)
    ran = run("queues", "show", "1")
    assert (ran.status, ran.said) == (Exit.SERVER_AWAY, "PostgreSQL does not answer: connection refused")


def test_arguments_are_read_as_one_means_them() -> None:
    assert (span("90s"), span("2w")) == (timedelta(seconds=90), timedelta(days=14))
    for wrong in ("", "5", "d", "-1d", "1y", "٣d", "99999w", "9" * 30 + "d"):
        with pytest.raises(ValueError):  # noqa: PT011  (argparse says it)
            span(wrong)
    assert span("18000d") == command_base.LONGEST_SPAN
    with pytest.raises(ValueError):  # noqa: PT011
        span("18001d")
    with pytest.raises(ValueError):  # noqa: PT011
        positive("0")
    assert [shown(value) for value in (None, "", True, 1.25, [1], "a\nb\x07")] == [
        "-",
        "-",
        "yes",
        "1.2",
        "[1]",
        "a b?",
    ]


def test_a_container_whose_user_has_no_name_is_known_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(command_base.getpass, "getuser", nobody)
    assert command_base.whoever().startswith("uid ")


def test_a_shell_learns_how_it_ended_and_gets_the_output_alone(transactional_db: None) -> None:
    def typed(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "manage.py", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    ended = typed("queues", "list", "--json")
    assert (ended.returncode, json.loads(ended.stdout)) == (Exit.DONE, [])
    missing = typed("queue", "pause", "nobody", "--yes")
    assert (missing.returncode, missing.stdout) == (Exit.NOT_FOUND, "")
    assert missing.stderr.startswith("CommandError: There is no queue 'nobody'")
    assert typed("queue", "dance").returncode == Exit.USAGE


def test_whoever_has_seen_enough_ends_it_without_a_traceback(transactional_db: None) -> None:
    queue = queue_of(new_user())
    for _ in range(20):
        request_in(queue, None, Status.FAILED, payload="x" * 20_000)
    command = [sys.executable, "manage.py", "failed", "export", "--batch-size", "1"]
    ran = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ran.stdout is not None
    assert ran.stderr is not None
    with ran.stdout, ran.stderr:
        assert ran.stdout.read(1) == b"{"
        ran.stdout.close()
        said = ran.stderr.read().decode()
    assert (ran.wait(60), said.strip()) == (Exit.REFUSED, "CommandError: Nobody reads on; the rest was not done.")


# Kinds


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
