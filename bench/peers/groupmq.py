"""GroupMQ: see bench/node/groupmq.js."""

from bench.peers.base import Peer
from bench.peers.node import script


def peer(name: str) -> Peer:
    return Peer("GroupMQ", "per user", "Redis", script("groupmq", "work"), script("groupmq", "control"))
