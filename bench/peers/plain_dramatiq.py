"""Dramatiq alone: one shared queue on RabbitMQ, its default middleware and persistent messages; no order, no record."""

import os
import sys
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench import trace
from bench.peers.base import THREADS, Peer, module
from bench.peers.control import serve

QUEUE = "plain"
RETURNS = "BENCH_RETURNS"
FORMS = {
    "dramatiq": ("Dramatiq alone", {}),
    "dramatiq-returning": ("Dramatiq alone, whose job returns a value", {RETURNS: "1"}),
}

broker = RabbitmqBroker(url=os.environ["RABBITMQ_URL"])
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE, max_retries=2, min_backoff=100)
def job(job: dict[str, Any]) -> dict[str, Any] | None:
    result = trace.perform(job)
    return result if os.environ.get(RETURNS) else None  # without a place for it, Dramatiq warns of each


def peer(name: str) -> Peer:
    command = [sys.executable, "-m", "dramatiq", "bench.peers.plain_dramatiq", "--skip-logging"]
    command += ["--processes", "1", "--threads", str(THREADS)]
    title, variables = FORMS[name]
    return Peer(title, None, None, command, module("plain_dramatiq"), variables)


def add(jobs: list[dict[str, Any]]) -> None:
    for one in jobs:
        job.send(one)


def clear() -> None:
    broker.declare_queue(QUEUE, ensure=True)
    broker.flush(QUEUE)


if __name__ == "__main__":
    serve(add, lambda: None, clear)
