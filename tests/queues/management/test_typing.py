"""How commands are typed, and how they end."""

import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError

from queues.lifecycle import control
from queues.management import command_base
from queues.management.command_base import Exit, as_text, positive, span
from queues.models import UserQueue
from queues.states import Status
from scripts.place import ROOT
from tests.processing.crew import new_user
from tests.queues.commands import run
from tests.queues.management.conftest import a_queue
from tests.queues.rows import queue_of, request_in

pytestmark = pytest.mark.django_db


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
    assert [as_text(value) for value in (None, "", True, 1.25, [1], "a\nb\x07")] == [
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
