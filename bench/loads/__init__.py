"""What each peer is put through: one file a load, each with `users` and `measure`."""

import importlib
from types import ModuleType

# The name on the command line -> its module, in the order in which a peer meets them.
LOADS = {
    "deep": "backlog",
    "middle": "backlog",
    "wide": "backlog",
    "slow": "backlog",
    "failing": "backlog",
    "round-trip": "round_trip",
    "noisy": "noisy",
    "kill": "kill",
}


def find(name: str) -> ModuleType:
    return importlib.import_module(f"bench.loads.{LOADS[name]}")
