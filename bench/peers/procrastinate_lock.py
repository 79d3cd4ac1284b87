"""Procrastinate: jobs in PostgreSQL; a job's `lock`, here its user, has them run one after another, in order."""

import os
import sys
from typing import Any

import procrastinate
import psycopg

from bench import trace
from bench.peers.base import THREADS, Peer, module
from bench.peers.control import serve

DATABASE = os.environ["DATABASE_URL"]
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DATABASE))


@app.task(name="bench.job", retry=procrastinate.RetryStrategy(max_attempts=3, wait=0), pass_context=False)
def job(user: int, n: int, ms: float, fail: bool) -> None:
    trace.perform({"user": user, "n": n, "ms": ms, "fail": fail})


def peer(name: str) -> Peer:
    command = [sys.executable, "-m", "procrastinate", "--app", "bench.peers.procrastinate_lock.app", "worker"]
    command += ["--concurrency", str(THREADS)]
    return Peer("Procrastinate, lock", "per user", "PostgreSQL", command, module("procrastinate_lock"))


def serve_jobs() -> None:
    """Makes its tables where they are not there."""
    with app.open():
        sql = psycopg.connect(DATABASE, autocommit=True)
        if sql.execute("SELECT to_regclass('procrastinate_jobs')").fetchone() == (None,):
            app.schema_manager.apply_schema()

        def add(jobs: list[dict[str, Any]]) -> None:
            of_user: dict[int, list[dict[str, Any]]] = {}
            for one in jobs:
                of_user.setdefault(one["user"], []).append(one)
            for user, own in of_user.items():
                job.configure(lock=f"user-{user}").batch_defer(*own)
            if len(jobs) > 1:
                sql.execute("ANALYZE procrastinate_jobs")

        def outcomes() -> int:
            row = sql.execute("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'").fetchone()
            return int(row[0]) if row else 0

        def clear() -> None:
            sql.execute("TRUNCATE procrastinate_jobs, procrastinate_events CASCADE")

        serve(add, outcomes, clear)


if __name__ == "__main__":
    serve_jobs()
