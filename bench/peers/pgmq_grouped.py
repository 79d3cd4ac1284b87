"""pgmq: messages in PostgreSQL, by plain SQL that its Python client brings; grouped reads give the heads of groups.

A group is a user. pgmq has no worker of its own: this one reads as many heads as it has threads, and archives together
what they have done.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from bench import trace
from bench.peers.base import THREADS, Peer, module
from bench.peers.control import serve

QUEUE = "bench"
INVISIBLE = 30  # seconds, of what a worker has read
PAUSE = 0.02  # seconds after nothing was there


def peer(name: str) -> Peer:
    work = [*module("pgmq_grouped"), "work"]
    return Peer("pgmq, grouped reads", "per user", "PostgreSQL", work, module("pgmq_grouped"))


def work() -> None:
    sql = connect()
    with ThreadPoolExecutor(THREADS) as threads:
        while True:
            heads = sql.execute(
                "SELECT msg_id, message FROM pgmq.read_grouped_head(%s, %s, %s)", [QUEUE, INVISIBLE, THREADS]
            ).fetchall()
            if not heads:
                time.sleep(PAUSE)
                continue
            succeeded = list(threads.map(lambda head: attempt(head[1]), heads))
            done = [number for (number, _), well in zip(heads, succeeded, strict=True) if well]
            sql.execute("SELECT pgmq.archive(%s, %s::bigint[])", [QUEUE, done])
            for number, _ in heads:
                if number not in done:
                    sql.execute("SELECT pgmq.set_vt(%s, %s::bigint, 0)", [QUEUE, number])


def attempt(job: dict[str, Any]) -> bool:
    try:
        trace.perform(job)
    except trace.HeadFailed:
        return False
    return True


def connect() -> psycopg.Connection[Any]:
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)


def control() -> None:
    """Makes the schema and the queue where they are not there."""
    sql = connect()
    if sql.execute("SELECT to_regclass('pgmq.meta')").fetchone() == (None,):
        sql.execute((files("pgmq") / "sql" / "pgmq.sql").read_bytes())
        sql.execute("SELECT pgmq.create(%s)", [QUEUE])
        sql.execute("SELECT pgmq.create_fifo_index(%s)", [QUEUE])

    def add(jobs: list[dict[str, Any]]) -> None:
        for first in range(0, len(jobs), 1000):
            some = jobs[first : first + 1000]
            groups = [Jsonb({"x-pgmq-group": f"user-{job['user']}"}) for job in some]
            send = "SELECT pgmq.send_batch(%s, %s::jsonb[], %s::jsonb[])"
            sql.execute(send, [QUEUE, [Jsonb(job) for job in some], groups])
        if len(jobs) > 1:
            sql.execute(f"ANALYZE pgmq.q_{QUEUE}")

    def outcomes() -> int:
        row = sql.execute(f"SELECT count(*) FROM pgmq.a_{QUEUE}").fetchone()
        return int(row[0]) if row else 0

    serve(add, outcomes, lambda: sql.execute(f"TRUNCATE pgmq.q_{QUEUE}, pgmq.a_{QUEUE}") and None)


if __name__ == "__main__":
    work() if "work" in sys.argv else control()
