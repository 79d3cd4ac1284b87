"""What kill -9 and a wiped broker cost: the seconds until the work went on, and whether everything came right.

Each accident happens at its worst moment to real processes of its own, with requests under way.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import pika
import psycopg

from bench.place import Place, wait_for
from bench.report import Report
from bench.users import backlog, users, waiting
from processing.broker.pointers import queue_name
from processing.broker.tokens import TOKEN_QUEUE
from queues.enqueue.accept import accept
from queues.kinds import find
from queues.lifecycle.lease import WORKERS
from queues.values import Submission
from scripts.servers.process import Process, descendants

STEP_MS = 50


@dataclass
class Outcome:
    """Seconds from the accident to the next request that finished, and to the last."""

    went_on: float
    over: float


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """Every accident a few times; the medians would hide the worst, so the worst is told too."""
    accidents: dict[str, Callable[[Place], Outcome]] = {
        "kill -9 of a worker in the middle of a turn": killed_worker,
        "kill -9 of the dispatcher between publishing and marking": killed_dispatcher,
        "a user's RabbitMQ queue is deleted": deleted_queue,
        "all drain tokens are purged": purged_tokens,
    }
    times = 1 if quick else 3
    table = report.table(f"recover: worst of {times}", "accident", "went on after", "all done after", "order")
    for what, happen in accidents.items():
        found = []
        for _ in range(times):
            here.empty()
            found.append(happen(here))
            check(here)
        went_on, over = max(one.went_on for one in found), max(one.over for one in found)
        table.add_row(what, f"{went_on:.2f} s", f"{over:.2f} s", "kept")
    report.show(table)


def killed_worker(here: Place) -> Outcome:
    """Two worker processes; the one that holds the user's queue dies while it runs the 3rd of 10 slow requests."""
    with running(here, workers=2) as (_, workers):
        (user,) = users(here, "recover", 1)
        slow = find("demo.steps", 1)
        accept(
            user,
            [Submission(slow, f'{{"steps": 4, "delay_ms": {STEP_MS}}}') for _ in range(10)],
            session_id=None,
        )
        before = wait_until_done(here, 2)
        time.sleep(STEP_MS / 1000)
        holder = here.one(
            "SELECT a.application_name FROM queues_userqueue q JOIN pg_locks l ON l.locktype = 'advisory'"
            " AND l.classid = %s AND l.objid::bigint = q.worker_id JOIN pg_stat_activity a USING (pid)"
            " WHERE q.state = 'draining'",
            WORKERS,
        )
        died = next(worker for name, worker in workers.items() if name == holder)
        child = descendants(died.pid)[0]
        return accident(here, lambda: child.signal(9), before)


def killed_dispatcher(here: Place) -> Outcome:
    """Two dispatchers; the leader dies when RabbitMQ has the messages and PostgreSQL does not know it yet."""
    with running(here, dispatchers=2) as (dispatchers, _):
        for dispatcher in dispatchers.values():
            dispatcher.pause()
        of = users(here, "recover", 20)
        backlog(of, 200)
        with psycopg.connect(here.variables["DATABASE_URL"]) as holding:
            holding.execute("SELECT FROM queues_userqueue WHERE unpublished FOR UPDATE")  # marking has to wait
            for dispatcher in dispatchers.values():
                dispatcher.resume()
            blocked = (
                "SELECT application_name, pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND application_name LIKE 'dispatcher-%' AND datname = current_database()"
            )
            wait_for(lambda: here.sql.execute(blocked).fetchone(), "a dispatcher that is about to mark")
            row = here.sql.execute(blocked).fetchone()
            assert row is not None
            leader, backend = dispatchers[row[0]], row[1]

            def die() -> None:
                leader.signal(9)
                here.one("SELECT pg_terminate_backend(%s)", backend)  # or it would mark after all, for nobody
                holding.rollback()

            return accident(here, die, 0)


def deleted_queue(here: Place) -> Outcome:
    """Somebody deletes the queue of a user with requests waiting in it."""
    with running(here) as (_, workers):
        (user,) = users(here, "recover", 1)
        held_back(here, workers, [user], 50)
        queue = here.one("SELECT id FROM queues_userqueue WHERE active")
        assert isinstance(queue, int)

        def delete() -> None:
            on_broker(here, lambda channel: channel.queue_delete(queue_name(queue)))
            resume(workers)

        return accident(here, delete, 0)


def purged_tokens(here: Place) -> Outcome:
    """Somebody purges the queue of drain tokens while a hundred users wait for theirs."""
    with running(here) as (_, workers):
        held_back(here, workers, users(here, "recover", 100), 500)

        def purge() -> None:
            on_broker(here, lambda channel: channel.queue_purge(TOKEN_QUEUE))
            resume(workers)

        return accident(here, purge, 0)


def accident(here: Place, happen: Callable[[], None], done_before: int) -> Outcome:
    """Let it happen; the seconds until one more request is done, and until all are."""
    happen()
    began = time.perf_counter()
    wait_for(lambda: done(here) > done_before, "the next outcome", every=0.002)
    went_on = time.perf_counter() - began
    wait_for(lambda: waiting(here) == 0, "all outcomes")
    return Outcome(went_on, time.perf_counter() - began)


@contextmanager
def running(
    here: Place, dispatchers: int = 1, workers: int = 1
) -> Iterator[tuple[dict[str, Process], dict[str, Process]]]:
    """Dispatchers and worker processes by the names that PostgreSQL knows their connections by; at work, and warm."""
    names = [f"dispatcher-{n}" for n in range(dispatchers)]
    first = {name: here.manage(name, "dispatch", PGAPPNAME=name) for name in names}
    names = [f"worker-{n}" for n in range(workers)]
    command = ("work", "--processes", "1", "--threads", "8")
    second = {name: here.manage(name, *command, PGAPPNAME=name) for name in names}
    lock = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND granted"
    wait_for(lambda: here.one(lock, WORKERS) == workers, "workers at work", every=0.05)
    backlog(users(here, "recover", 100), 1_000)
    wait_for(lambda: waiting(here) == 0, "warm workers")
    here.empty()
    try:
        yield first, second
    finally:
        here.stop(*first.values(), *second.values())


def held_back(here: Place, workers: dict[str, Process], of: list[UUID], requests: int) -> None:
    """A backlog that RabbitMQ has and no worker has looked at."""
    for worker in workers.values():
        worker.pause()
    backlog(of, requests)
    wait_for(
        lambda: here.one("SELECT count(*) FROM queues_userqueue WHERE unpublished") == 0, "the backlog in RabbitMQ"
    )
    time.sleep(0.2)  # the last tokens are on their way


def resume(workers: dict[str, Process]) -> None:
    for worker in workers.values():
        worker.resume()


def on_broker(here: Place, act: Callable[[pika.adapters.blocking_connection.BlockingChannel], object]) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(here.variables["RABBITMQ_URL"]))
    act(connection.channel())
    connection.close()


def done(here: Place) -> int:
    found = here.one("SELECT count(*) FROM queues_request WHERE finished_at IS NOT NULL")
    assert isinstance(found, int)
    return found


def wait_until_done(here: Place, count: int) -> int:
    wait_for(lambda: done(here) >= count, f"{count} outcomes", every=0.002)
    return done(here)


def check(here: Place) -> None:
    """Everything succeeded, in order, never two of a user at once. Raises RuntimeError."""
    unfinished = here.one("SELECT count(*) FROM queues_request WHERE status <> 'succeeded'")
    broken = here.one(
        "SELECT count(*) FROM (SELECT started_at, lag(finished_at) OVER (PARTITION BY queue_id ORDER BY seq) AS before"
        " FROM queues_request) r WHERE started_at < before"
    )
    if unfinished or broken:
        raise RuntimeError(f"{unfinished} requests did not succeed, {broken} overtook the one before")
