"""The ledger can fail: with a part of the protocol switched off, the same faults break a promise, and it says which."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from project.local.chaos import journal
from project.local.chaos.command import Course, run
from project.local.chaos.faults import FAULTS, Fault, Place, Planned
from project.local.chaos.stack import LEASE_SECONDS

RUNNER = Path(__file__).parent / "without.py"
# The database itself forbids an idle queue that owes something.
LET_IDLE_OWE = "ALTER TABLE queues_userqueue DROP CONSTRAINT idle_owes_nothing"


def freeze_who_runs(place: Place) -> Iterator[None]:
    """Freeze a worker in the middle of a long run; when it goes on, another one is running the same request."""
    place.clients.want("chaos.work", ms=6000)
    deadline = time.monotonic() + 30
    pid = None
    while pid is None and time.monotonic() < deadline:
        time.sleep(0.1)
        open_ = {}
        for line in journal.read(place.stack.journal):
            open_[line.pid, line.thread] = line
        now = time.monotonic()
        pid = next((line.pid for line in open_.values() if line.what == "begin" and now - line.at > 0.6), None)
    member = next(member for member in place.stack.of("worker") if pid in member.children)
    assert member.process is not None
    member.process.pause()
    yield
    member.process.resume()


ZOMBIE = Fault("worker.freeze-running", freeze_who_runs, LEASE_SECONDS + 1.5, LEASE_SECONDS + 1.5)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("without", "faults", "sql", "broken"),
    [
        ("nothing", [ZOMBIE, FAULTS["rabbitmq.queue-purge"], FAULTS["worker.kill-all"]], "", set()),
        ("fence", [ZOMBIE], "", {"unfenced"}),
        ("recheck", [FAULTS["rabbitmq.queue-purge"]] * 3, LET_IDLE_OWE, {"lost"}),
        ("sweeper", [FAULTS["worker.kill-all"]] * 2, "", {"lost"}),
    ],
)
def test_the_ledger_finds_what_is_switched_off(
    monkeypatch: pytest.MonkeyPatch, without: str, faults: list[Fault], sql: str, broken: set[str]
) -> None:
    monkeypatch.setenv("WITHOUT", without)
    planned = [Planned(n, fault, n, fault.longest, 1.0, True) for n, fault in enumerate(faults, 1)]
    course = Course(planned, 1, users=6, threads=3, rate=60, drain_seconds=20, manage=RUNNER, sql=sql, keep=not broken)
    figures = run(course)
    assert broken <= {name for name, count in figures["violations"].items() if count}, figures
    assert figures["kept"] is not broken, figures
    if without == "nothing":
        assert figures["kept"], figures
        assert figures["zombie overlaps"] >= 1, "the zombie did not come back while another ran"
