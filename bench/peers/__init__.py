"""Those that `./run bench` compares: one file each, all driven in the same way (`base.Peer`)."""

import importlib

from bench.names import PEERS
from bench.peers.base import Peer


def make(name: str) -> Peer:
    """The peer of that name; nothing of it runs yet."""
    made: Peer = importlib.import_module(f"bench.peers.{PEERS[name]}").peer(name)
    return made
