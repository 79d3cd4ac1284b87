"""Celery with RabbitMQ and its results in PostgreSQL (its database backend); no order. Its default pool: processes."""

import os
import sys
from typing import Any

import psycopg
from celery import Celery  # type: ignore[import-untyped]  # it has none

from bench import trace
from bench.peers.base import THREADS, Peer, module
from bench.peers.control import serve

DATABASE = os.environ["DATABASE_URL"]

app = Celery(
    "bench", broker=os.environ["RABBITMQ_URL"], backend="db+postgresql+psycopg://" + DATABASE.partition("://")[2]
)
app.conf.broker_connection_retry_on_startup = True


@app.task(name="bench.job", autoretry_for=(trace.HeadFailed,), retry_backoff=False, default_retry_delay=0.1)
def job(job: dict[str, Any]) -> dict[str, Any]:
    return trace.perform(job)


def peer(name: str) -> Peer:
    command = [sys.executable, "-m", "celery", "-A", "bench.peers.celery_results", "worker", "--loglevel", "ERROR"]
    command += ["--concurrency", str(THREADS), "--without-gossip", "--without-mingle", "-n", "worker-{number}@%h"]
    return Peer("Celery + results in PostgreSQL", None, "PostgreSQL", command, module("celery_results"))


def add(jobs: list[dict[str, Any]]) -> None:
    for one in jobs:
        job.delay(one)


def outcomes() -> int:
    with psycopg.connect(DATABASE) as sql:
        exists = sql.execute("SELECT to_regclass('celery_taskmeta')").fetchone()
        if not exists or exists[0] is None:
            return 0
        row = sql.execute("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'").fetchone()
        return int(row[0]) if row else 0


def clear() -> None:
    app.control.purge()
    with psycopg.connect(DATABASE) as sql:
        if sql.execute("SELECT to_regclass('celery_taskmeta')").fetchone() != (None,):
            sql.execute("TRUNCATE celery_taskmeta")


if __name__ == "__main__":
    serve(add, outcomes, clear)
