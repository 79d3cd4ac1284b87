"""The ledger can fail: with a part of the protocol switched off, the same faults break a promise, and it says which."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
from pika.exceptions import AMQPError

from scripts.chaos import journal
from scripts.chaos.command import Course, run
from scripts.chaos.fault import Fault, Place, Planned
from scripts.chaos.faults.rabbitmq import channel, user_queues
from scripts.chaos.member import Member
from scripts.chaos.stack import LEASE_SECONDS
from tests.waiting import until

RUNNER = Path(__file__).parent / "without.py"
# The database itself forbids an idle queue that owes something.
LET_IDLE_OWE = "ALTER TABLE queues_userqueue DROP CONSTRAINT idle_owes_nothing"


def who_runs(place: Place) -> Member:
    """A worker in the middle of a long run."""
    place.clients.want("chaos.work", ms=6000)

    def running() -> Member | None:
        last = {(line.pid, line.thread): line for line in journal.read(place.stack.journal)}
        long = {line.pid for line in last.values() if line.what == "begin" and time.monotonic() - line.at > 0.6}
        return next((member for member in place.stack.of("worker") if long & member.children.keys()), None)

    return cast("Member", until(running, 90, "something runs for long"))


def freeze_who_runs(place: Place) -> Iterator[None]:
    """When it goes on, another one is running the same request."""
    member = who_runs(place)
    assert member.process is not None
    member.process.pause()
    yield
    member.process.resume()


def kill_who_runs(place: Place) -> Iterator[None]:
    """It leaves a leased queue behind."""
    place.stack.kill(who_runs(place))
    yield


def lose_what_waits(place: Place) -> Iterator[None]:
    """Purge every user's queue, again and again, until requests waited in some of them."""
    for _ in range(8):
        place.clients.want("chaos.work", ms=300)
    names = user_queues(place).values()
    lost, deadline = 0, time.monotonic() + 20
    while lost < 5 and time.monotonic() < deadline:
        with suppress(AMQPError), channel(place) as ours:
            lost += sum(ours.queue_purge(name).method.message_count for name in names)
    assert lost >= 5, "no request waited in RabbitMQ"
    yield


ZOMBIE = Fault("worker.freeze-running", freeze_who_runs, LEASE_SECONDS + 1.5, LEASE_SECONDS + 1.5)
DEAD = Fault("worker.kill-running", kill_who_runs, 0, 0)
LOSS = Fault("rabbitmq.lose-waiting", lose_what_waits, 0, 0)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("without", "faults", "sql", "broken"),
    [
        ("nothing", [ZOMBIE, LOSS, DEAD], "", set()),
        ("fence", [ZOMBIE], "", {"unfenced"}),
        ("recheck", [LOSS] * 2, LET_IDLE_OWE, {"lost"}),
        ("sweeper", [DEAD], "", {"lost"}),
    ],
)
def test_the_ledger_finds_what_is_switched_off(
    monkeypatch: pytest.MonkeyPatch, without: str, faults: list[Fault], sql: str, broken: set[str]
) -> None:
    monkeypatch.setenv("WITHOUT", without)
    planned = [Planned(n, fault, n, fault.longest, 1.0, True) for n, fault in enumerate(faults, 1)]
    course = Course(
        planned,
        1,
        users=6,
        threads=3,
        rate=60,
        drain_seconds=8 if broken else 60,
        manage=RUNNER,
        sql=sql,
        keep=False,
    )
    figures = run(course)
    assert broken <= {name for name, count in figures["violations"].items() if count}, figures
    assert figures["kept"] == (not broken), figures
    if without == "nothing":
        assert figures["kept"], figures
        assert figures["zombie overlaps"] >= 1, "the zombie did not come back while another ran"
