"""Real processes that are killed in the worst moments: nothing is lost, order is kept, and it goes on soon.

The times are printed (pytest -s). On a busy machine most of them is the start of a process.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from accounts.models import User
from processing.broker import tokens
from processing.broker.pointers import queue_name
from queues import throughput
from queues.limits import deployment
from queues.models import Attempt
from tests.processing.crew import (
    Wire,
    all_done,
    new_user,
    queue_of,
    requests_of,
    statuses_of,
    submit,
    submit_with_one_attempt_left,
)
from tests.processing.journal import Journal
from tests.processing.service import GRACE_SECONDS, START_SECONDS, Service
from tests.waiting import until


@pytest.fixture(scope="module")
def running(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"))
    yield service
    service.stop()


@pytest.fixture
def service(running: Service, transactional_db: None) -> Iterator[Service]:
    """The running service; what it said during a test is shown if the test fails."""
    said = running.output.stat().st_size
    yield running
    print(running.output.read_bytes()[said:].decode())


def run_all(journal: Journal, users: list[User], count: int, ms: float) -> dict[str, int]:
    for user in users:
        submit(user, *[journal.payload(ms)] * count, kind="test.journal")
    return {str(user.id): count for user in users}


def succeeded_this_hour() -> int:
    """Requests of the journal's kind, as the board counts them."""
    hour = throughput.read()
    assert hour is not None
    return hour.by_kind.get("test.journal", Counter())["succeeded"]


def test_sigterm_lets_a_running_handler_finish(service: Service, journal: Journal) -> None:
    """The first one here: what it counts comes from no other."""
    user = new_user()
    submit(user, *[journal.payload(ms=400)] * 4, kind="test.journal")
    before = succeeded_this_hour()
    service.lead()
    (begun,) = until(lambda: journal.begun(user), START_SECONDS)
    os.kill(begun.pid, signal.SIGTERM)
    until(all_done, START_SECONDS)
    assert journal.violations({str(user.id): 4}) == [], "nothing ran twice"
    assert not Attempt.objects.exists()
    until(lambda: succeeded_this_hour() == before + 4, 10, "the process that ended handed in what it had counted")


def test_a_worker_killed_in_the_middle_of_a_turn_loses_nothing(service: Service, journal: Journal) -> None:
    users = [new_user() for _ in range(3)]
    accepted = run_all(journal, users, 60, ms=15)
    service.lead()
    until(lambda: len(journal.entries()) > 30, START_SECONDS)
    last = journal.entries()[-1]
    os.kill(last.pid, signal.SIGKILL)
    killed_at = time.monotonic()
    victim = next(user for user in users if str(user.id) == last.user)
    began = until(lambda: [e for e in journal.begun(victim, since=killed_at) if e.pid != last.pid], 20)[0].at
    print(f"a killed worker's queue went on after {began - killed_at:.2f} s")
    until(all_done, 60)
    assert journal.violations(accepted, killed=[last.pid]) == []
    assert all(set(statuses_of(user)) == {"succeeded"} for user in users)
    assert began - killed_at < 8


def test_a_worker_process_that_dies_is_started_again(service: Service, journal: Journal) -> None:
    user = new_user()
    service.lead()

    def pids() -> set[int]:
        """Of the workers that ran a request: enough of them are sent for each to get one."""
        submit(user, *[journal.payload(ms=30)] * 4, kind="test.journal")
        until(all_done, 60)
        return {entry.pid for entry in journal.entries()}

    before = until(lambda: len(found := pids()) >= 2 and found, START_SECONDS)
    victim = max(before)
    os.kill(victim, signal.SIGKILL)
    until(lambda: pids() - before, START_SECONDS, "a worker is started in the dead one's place")


def test_a_request_that_kills_its_worker_fails_after_its_attempts_and_lets_others_run(
    service: Service, journal: Journal
) -> None:
    ways = ["exit", "segmentation fault", "out of memory"]
    poisoned, other, slow = [new_user() for _ in ways], new_user(), new_user()
    for user, way in zip(poisoned, ways, strict=True):
        submit(user, way, kind="test.poison")
        submit(user, journal.payload(), kind="test.journal")
    submit(other, *[journal.payload(ms=5)] * 20, kind="test.journal")
    submit(slow, journal.payload(ms=2500), kind="test.journal")  # crash after crash takes it along
    service.lead()
    began = time.monotonic()
    until(all_done, 150)
    print(f"after 9 killed workers everything was finished, in {time.monotonic() - began:.1f} s")
    for user in poisoned:
        assert statuses_of(user) == ["failed", "succeeded"]
        poison = requests_of(user)[0]
        assert list(Attempt.objects.filter(request=poison).values_list("outcome", flat=True)) == ["lost"] * 3
    assert set(statuses_of(other)) == {"succeeded"}
    assert statuses_of(slow) == ["succeeded"], "no other's crash costs a request its last attempt"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_after_crashes_the_last_attempt_runs_in_a_process_of_its_own(service: Service, journal: Journal) -> None:
    users = [new_user() for _ in range(4)]  # more than may be alone at a time: the rest wait for their turn
    for user in users:
        submit_with_one_attempt_left(user, journal.payload(ms=300))
        submit(user, journal.payload(), kind="test.journal")
    service.lead()
    until(all_done, START_SECONDS)
    alone = [journal.begun(user)[0] for user in users]
    assert len({one.pid for one in alone}) == 4
    assert {one.pid for one in alone}.isdisjoint(journal.begun(user)[1].pid for user in users), "one request each"
    assert journal.violations(dict.fromkeys((str(user.id) for user in users), 2)) == []
    for user in users:
        assert [(r.status, r.attempt) for r in requests_of(user)] == [("succeeded", 3), ("succeeded", 1)]


@pytest.mark.parametrize("ms", [400, 6000], ids=["shorter than the grace time", "longer"])
def test_a_process_of_its_own_stops_with_its_worker(service: Service, journal: Journal, ms: float) -> None:
    user = new_user()
    submit_with_one_attempt_left(user, journal.payload(ms))
    service.lead()
    (begun,) = until(lambda: journal.begun(user), START_SECONDS)
    os.kill(parent_of(begun.pid), signal.SIGTERM)
    until(lambda: not Path(f"/proc/{begun.pid}").exists(), 20, "it outlived its worker")
    if ms > 1000 * GRACE_SECONDS:
        again = until(lambda: journal.begun(user)[1:], START_SECONDS)[0]
        assert again.attempt == 3, "no attempt was counted"
    until(all_done, START_SECONDS)
    assert [(r.status, r.attempt) for r in requests_of(user)] == [("succeeded", 3)]
    assert len(journal.begun(user)) == (2 if ms > 1000 * GRACE_SECONDS else 1)


@pytest.mark.parametrize("loss", ["the user's queue is deleted", "the tokens are purged", "the token queue is deleted"])
def test_what_rabbitmq_loses_is_published_again(service: Service, journal: Journal, wire: Wire, loss: str) -> None:
    users = [new_user() for _ in range(6)]
    accepted = run_all(journal, users, 40, ms=10)
    service.lead()
    until(lambda: len(journal.entries()) > 20, START_SECONDS)
    if loss == "the user's queue is deleted":
        wire.delete(queue_name(queue_of(users[0]).id))
    elif loss == "the tokens are purged":
        wire.purge(tokens.TOKEN_QUEUE)
    else:
        wire.delete(tokens.TOKEN_QUEUE)
    lost_at = time.monotonic()
    seen = {user.id: len(journal.begun(user)) for user in users}
    until(lambda: all(len(journal.begun(user)) > min(seen[user.id], 39) for user in users), 40, "a queue stands still")
    print(f"{loss}: every queue had gone on after {time.monotonic() - lost_at:.2f} s")
    until(all_done, 60)
    assert journal.violations(accepted) == []


def test_sigterm_gives_a_queue_back_and_counts_no_attempt(service: Service, journal: Journal) -> None:
    user = new_user()
    submit(user, journal.payload(ms=6000), *[journal.payload()] * 3, kind="test.journal")
    service.lead()
    (begun,) = until(lambda: journal.begun(user), START_SECONDS)
    os.kill(begun.pid, signal.SIGTERM)
    asked_at = time.monotonic()
    again = until(lambda: journal.begun(user)[1:], START_SECONDS)[0]
    print(
        f"{again.at - asked_at:.2f} s after SIGTERM with {GRACE_SECONDS} s of grace, the request began again elsewhere"
    )
    until(all_done, START_SECONDS)
    assert journal.violations({str(user.id): 4}, killed=[begun.pid]) == []
    assert (again.seq, again.attempt) == (1, 1), "no attempt was counted"
    assert not Attempt.objects.exists()
    assert not [e for e in journal.entries() if e.what == "end" and e.pid == begun.pid], "they ran side by side"


def test_a_dispatcher_killed_between_publishing_and_marking_loses_nothing(service: Service, journal: Journal) -> None:
    service.leaderless()
    users = [new_user() for _ in range(3)]
    accepted = run_all(journal, users, 20, ms=1)
    service.start("dispatch-and-die").wait(START_SECONDS)
    died_at = time.monotonic()
    assert [queue_of(user).published_seq for user in users] == [0, 0, 0], "RabbitMQ has them, PostgreSQL does not know"
    service.lead()
    until(all_done, START_SECONDS)
    began = min(journal.begun(user)[0].at for user in users)
    print(f"a killed dispatcher's work went on after {began - died_at:.2f} s, the start of the next one included")
    assert journal.violations(accepted) == []


def test_a_standby_dispatcher_takes_over_when_the_leader_is_killed(service: Service, journal: Journal) -> None:
    user = new_user()
    service.leaderless()
    leader = service.dispatch()
    service.dispatch()
    submit(user, journal.payload(), kind="test.journal")
    until(all_done, START_SECONDS)
    leader.kill()
    killed_at = time.monotonic()
    submit(user, journal.payload(), kind="test.journal")
    until(all_done, START_SECONDS)
    began = journal.begun(user)[-1].at
    print(f"the standby dispatcher took over after {began - killed_at:.2f} s")
    assert journal.violations({str(user.id): 2}) == []
    assert began - killed_at < 10


def test_a_worker_killed_with_permits_of_its_kind_returns_them_and_none_too_many(
    service: Service, journal: Journal
) -> None:
    deployment.set_limits("test.journal", max_concurrency=3)
    users = [new_user() for _ in range(8)]
    accepted = run_all(journal, users, 8, ms=60)
    service.lead()
    until(lambda: len(journal.entries()) > 30, START_SECONDS)
    victim = journal.entries()[-1].pid
    os.kill(victim, signal.SIGKILL)
    until(all_done, 60, "a permit is lost")
    assert journal.violations(accepted, killed=[victim]) == []
    assert all(set(statuses_of(user)) == {"succeeded"} for user in users)
    entries = journal.entries()
    died = max(entry.at for entry in entries if entry.pid == victim)
    running: set[tuple[str, int]] = set()
    most = 0
    for entry in entries:
        if entry.at > died:
            running = {one for one in running if one[1] != victim}
        if entry.what == "begin":
            running.add((entry.user, entry.pid))
        else:
            running.discard((entry.user, entry.pid))
        most = max(most, len(running))
    assert 2 <= most <= 3
