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

broker = RabbitmqBroker(url=os.environ["RABBITMQ_URL"])
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE, max_retries=2, min_backoff=100)
def job(job: dict[str, Any]) -> None:
    trace.perform(job)


def peer(name: str) -> Peer:
    command = [sys.executable, "-m", "dramatiq", "bench.peers.plain_dramatiq", "--skip-logging"]
    command += ["--processes", "1", "--threads", str(THREADS)]
    return Peer("Dramatiq alone", None, None, command, module("plain_dramatiq"))


def add(jobs: list[dict[str, Any]]) -> None:
    for one in jobs:
        job.send(one)


def clear() -> None:
    broker.declare_queue(QUEUE, ensure=True)
    broker.flush(QUEUE)


if __name__ == "__main__":
    serve(add, lambda: None, clear)
