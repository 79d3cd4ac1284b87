"""Graphile Worker, `queueName`: see bench/node/graphile_worker.js."""

from bench.peers.base import Peer
from bench.peers.node import script


def peer(name: str) -> Peer:
    work, control = script("graphile_worker", "work"), script("graphile_worker", "control")
    return Peer("Graphile Worker, queueName", "per user", None, work, control)
