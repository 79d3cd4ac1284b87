"""pg-boss, `key_strict_fifo`: see bench/node/pg_boss.js."""

from bench.peers.base import Peer
from bench.peers.node import script


def peer(name: str) -> Peer:
    work, control = script("pg_boss", "work"), script("pg_boss", "control")
    return Peer("pg-boss, key_strict_fifo", "per user", "PostgreSQL", work, control)
