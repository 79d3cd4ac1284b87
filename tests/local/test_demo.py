"""`./run demo` keeps what it promises, and sees what was not kept."""

import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from project.local import verdict
from project.local.client import ACCEPTED
from project.local.demo import Demonstrator, Program
from project.local.place import ROOT


def test_every_promise_is_kept(environment: dict[str, str]) -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "project.local", "demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "Every promise was kept." in demo.stdout


def request(sequence: int, created: float, started: float, finished: float, **more: Any) -> dict[str, Any]:
    times = {"created_at": created, "started_at": started, "finished_at": finished}
    shown = {name: datetime.fromtimestamp(at, UTC).isoformat() for name, at in times.items()}
    return {"sequence": sequence, "status": "succeeded", "attempt": 1, "error": None} | shown | more


def user(name: str, *requests: dict[str, Any], accepted: int | None = None, **others: int) -> Demonstrator:
    answers = Counter({ACCEPTED: len(requests) if accepted is None else accepted} | others)
    work = [{"kind": "demo.echo", "payload": 1}]
    programs = [Program([work] * answers.total(), connections=1)]
    return Demonstrator(name, "some load", programs, answers=answers, requests=list(requests))


FLOOD = user("flo", request(1, 0, 1, 2), request(2, 0, 2, 9))
QUIET = user("sam", request(1, 1, 1.5, 3), request(2, 1, 3.1, 4))


def judge(*users: Demonstrator) -> tuple[int, str]:
    console = Console(width=120, record=True, quiet=True)
    with console.capture():
        status = verdict.give(console, list(users), 9.0)
    return status, console.export_text()


def test_a_run_in_which_all_is_well_is_said_to_be_so() -> None:
    status, _ = judge(FLOOD, QUIET)
    assert status == 0


@pytest.mark.parametrize(
    ("quiet", "fault"),
    [
        (user("sam", request(1, 1, 2, 3), request(2, 1, 2.5, 4)), "overlap"),
        (user("sam", request(1, 1, 5, 6), request(2, 1, 2, 3)), "order"),
        (user("sam", request(1, 1, 1.5, 2), request(3, 1, 2, 3)), "order"),
        (user("sam", request(1, 1, 1.5, 2), accepted=2), "count"),
        (user("sam", request(1, 1, 1.5, 2), **{"429 full": 1}), "count"),
        (user("sam", request(1, 1, 1.5, 2, status="failed", error={"type": "x"})), "count"),
    ],
)
def test_what_was_not_kept_is_seen(quiet: Demonstrator, fault: str) -> None:
    assert [kind for kind, found in verdict.broken(quiet).items() if found][:1] == [fault] or verdict.broken(quiet)[
        fault
    ]
    assert judge(FLOOD, quiet)[0] == 1


def test_a_quiet_user_who_waited_for_the_flood_is_seen() -> None:
    slow = user("sam", request(1, 1, 5, 6))
    assert verdict.quiet_waits([FLOOD, slow]) == ([4.0], 9.0)
    assert judge(FLOOD, slow)[0] == 1


def test_waiting_for_ones_own_requests_is_no_waiting_for_others() -> None:
    patient = user("sam", request(1, 1, 1, 8), request(2, 1, 8.5, 9))
    waits, _ = verdict.quiet_waits([FLOOD, patient])
    assert waits == [0.0, 0.5]


def test_a_flood_that_nobody_met_proves_nothing() -> None:
    late = user("sam", request(1, 20, 20, 21))
    assert judge(FLOOD, late)[0] == 1
