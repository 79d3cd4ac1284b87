"""What the loss of PostgreSQL's disk costs: which accepted requests are gone (RPO), and when all goes on (RTO).

Requests come in through the API and are run by workers. Then PostgreSQL is killed with -9 and its folder deleted; what
docs/operations.md says is typed; and every request that a client was told of is looked for. RabbitMQ goes on
meanwhile: it has messages about requests that the restored database never heard of, and their numbers are given again.
"""

import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import psycopg

from bench.alone.backup import KeptPostgresql, moment
from bench.alone.recover import check, done
from bench.place import LOGS, Place, wait_for
from bench.report import Report
from scripts.place import ROOT, free_port
from scripts.run.application import readiness, services
from scripts.run.client import Client
from scripts.servers import redis

USERS = 8
EVERY = 0.02  # seconds between two batches of a user: more than the workers finish meanwhile
BACK = 3.0  # seconds before the crash: the moment that is gone back to
ROUND = {"kind": "demo.steps", "payload": {"steps": 1, "delay_ms": 10}}


@dataclass(frozen=True)
class Way:
    """How the WAL is kept, and how far it is replayed."""

    name: str
    synchronous: bool = False
    back: float = 0.0


WAYS = [
    Way(f"up to {BACK:g} s before", back=BACK),
    Way("all WAL"),
    Way("all, synchronous", synchronous=True),
]


@dataclass
class User:
    """One client's user: what it was told is accepted, as (sequence, id, when the answer came, monotonic)."""

    token: str
    accepted: list[tuple[int, str, float]] = field(default_factory=list)


@dataclass
class Loss:
    """Requests accepted and lost; the newest that is kept was accepted `kept` seconds before the crash."""

    accepted: int
    lost: int
    kept: float


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """Three disasters of one system, one after the other; each of them begins with a backup of what the last left."""
    seconds = 4.0 if quick else 8.0
    table = report.table(
        f"restore: {seconds:g} s of requests after the base backup, then kill -9; in seconds",
        "restored", "lost", "newest", "server", "API", "went on", "all done",
    )  # fmt: skip
    with private(here) as (server, there):
        port = free_port()
        users = begin(there, port)
        for way in WAYS:
            _disaster(server, there, port, users, way, seconds, table)
        doctor = _manage(there, "doctor", "--all")
        if doctor.returncode:
            raise RuntimeError(f"doctor ended with {doctor.returncode}:\n{doctor.stdout}")
    report.show(table)
    report.say("RPO: lost of those accepted; the newest that is kept was accepted so long before the crash.")
    report.say("RTO: since the restore began, until PostgreSQL was there, the API ready, one more finished, and all.")


@contextmanager
def private(here: Place) -> Iterator[tuple[KeptPostgresql, Place]]:
    """A PostgreSQL to be lost, with the schema, and processes that use it."""
    with KeptPostgresql(LOGS / "restore") as server:
        there = Place({**here.variables, "DATABASE_URL": server.url})
        try:
            done = _manage(there, "migrate", "--verbosity", "0")
            if done.returncode:
                raise RuntimeError(f"migrate failed: {done.stderr}")
            yield server, there
        finally:
            _kill_all(there)
            there.sql.close()


def begin(there: Place, port: int) -> list[User]:
    """Start the processes and register the users."""
    _start_all(there, port)
    wait_for(lambda: readiness(port)[0], "a ready API", every=0.05)
    client, users = Client(port), []
    for number in range(USERS):
        login = {"username": f"restore-{number}", "password": "an unusual one of a bench"}
        client.get("POST", "/api/v1/auth/register", login)
        users.append(User(client.get("POST", "/api/v1/auth/token", login)["access"]))
    return users


def _disaster(
    server: KeptPostgresql, there: Place, port: int, users: list[User], way: Way, seconds: float, table: Any
) -> None:
    for user in users:
        user.accepted.clear()
    server.receive(way.synchronous)
    target = None
    crashed = threading.Event()
    with ThreadPoolExecutor(USERS) as pool:
        clients = [pool.submit(submit, port, user, crashed) for user in users]
        try:
            before = done(there)
            wait_for(lambda: done(there) > before, "a first outcome")
            server.take_base()
            time.sleep(seconds - way.back)
            if way.back:
                target = moment(server.url)
                time.sleep(way.back)
        finally:
            crash = time.monotonic()
            crashed.set()
            server.lose()
        for client in clients:
            client.result()
    _kill_all(there)

    began = time.monotonic()
    server.restore(target)
    up = time.monotonic() - began
    there.sql.close()
    there.sql = psycopg.connect(server.url, autocommit=True)
    loss = weigh(there, users, crash)
    before = done(there)
    with redis.connect(there.variables["REDIS_URL"]) as client:
        client.flushdb()
    rebuilt = _manage(there, "rebuild_broker", "--yes")
    if rebuilt.returncode:
        raise RuntimeError(f"rebuild_broker failed: {rebuilt.stderr}")
    _start_all(there, port)
    wait_for(lambda: readiness(port)[0], "a ready API", every=0.02)
    ready = time.monotonic() - began
    for user in users:  # they get the numbers of those that are lost
        Client(port, user.token).get("POST", "/api/v1/requests/batch", {"requests": batch()})
    wait_for(lambda: done(there) > before, "the next outcome", every=0.005)
    went_on = time.monotonic() - began
    resting = "SELECT NOT EXISTS (SELECT FROM queues_userqueue WHERE done_seq < last_seq OR state <> 'idle')"
    wait_for(lambda: there.one(resting), "all outcomes")
    over = time.monotonic() - began
    check(there)
    _check_counters(there)
    row = [f"{value:.1f}" for value in (loss.kept, up, ready, went_on, over)]
    table.add_row(way.name, f"{loss.lost}/{loss.accepted}", *row)


_numbers = count(1)


def batch() -> list[dict[str, Any]]:
    """What is asked for at once. No two echoes are alike, so that a result tells whose it is."""
    echoes = [{"kind": "demo.echo", "payload": {"n": next(_numbers)}} for _ in range(3)]
    return [echoes[0], ROUND, *echoes[1:]]


def submit(port: int, user: User, crashed: threading.Event) -> None:
    """One client, until there is nobody who accepts. Raises RuntimeError when it is refused before the crash."""
    client = Client(port, user.token)
    while not crashed.wait(EVERY):
        try:
            status, answer = client.ask("POST", "/api/v1/requests/batch", {"requests": batch()})
        except (OSError, http.client.HTTPException) as wrong:
            status, answer = 0, wrong
        answered = time.monotonic()
        if status == 202:
            user.accepted += [(one["sequence"], one["id"], answered) for one in answer["requests"]]
        elif not crashed.is_set():
            raise RuntimeError(f"a submission was answered {status} {answer} before the crash")


def weigh(there: Place, users: list[User], crash: float) -> Loss:
    """Look for all that was accepted. Raises RuntimeError when one is lost that came before one that is kept."""
    rows = there.sql.execute("SELECT id::text FROM queues_request")
    known = {row[0] for row in rows}
    kept: list[float] = []
    for user in users:
        newest = max((seq for seq, id_, _ in user.accepted if id_ in known), default=0)
        if any(seq < newest and id_ not in known for seq, id_, _ in user.accepted):
            raise RuntimeError("a request is lost that was accepted before another that is kept")
        kept += [crash - answered for _, id_, answered in user.accepted if id_ in known]
    accepted = sum(len(user.accepted) for user in users)
    return Loss(accepted, accepted - len(kept), max(0.0, min(kept)))


def _check_counters(there: Place) -> None:
    """Raises RuntimeError when counters and rows differ, or a request has the result of another."""
    wrong = there.one(
        "SELECT count(*) FROM queues_userqueue q WHERE published_seq <> last_seq OR done_seq <> last_seq OR last_seq <>"
        " (SELECT count(DISTINCT seq) FROM queues_request r WHERE r.queue_id = q.id)"
    )
    mixed = there.one(
        "SELECT count(*) FROM queues_request WHERE kind = 'demo.echo' AND payload::jsonb IS DISTINCT FROM result::jsonb"
    )
    if wrong or mixed:
        raise RuntimeError(f"the counters of {wrong} queues are wrong, {mixed} requests have the result of another")


def _start_all(there: Place, port: int) -> None:
    for service in services(port):
        there.start(f"restore-{service.name}", service.command)


def _kill_all(there: Place) -> None:
    """None of those who spoke to the lost PostgreSQL may speak to the restored one."""
    for process in there.started:
        process.kill()
    there.started.clear()


def _manage(there: Place, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *arguments],
        env=there.variables,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
