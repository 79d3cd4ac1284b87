"""BullMQ, a queue a user: in one process, in two, and in two with a Redis that syncs each write to its disk."""

import shutil

from bench.peers.base import Peer, Unavailable
from bench.peers.node import script
from bench.place import OWN, Place, wait_for
from scripts.place import free_port, port_taken

FORMS = {
    "bullmq": ("BullMQ, a queue a user, one process", 1, False),
    "bullmq-two": ("BullMQ, a queue a user, two processes", 2, False),
    "bullmq-fsync": ("BullMQ, two processes, appendfsync always", 2, True),
}


def peer(name: str) -> Peer:
    title, processes, synced = FORMS[name]
    work, control = script("bullmq", "work"), script("bullmq", "control")
    made = Peer(title, "per user", "Redis", work, control, per_user=True, processes=processes)
    made.prepare = synced_redis if synced else None
    return made


def synced_redis(here: Place) -> dict[str, str]:
    """A Redis of our own that writes each change to its disk before it answers; it ends with the bench."""
    if "redis" not in here.servers:
        server = shutil.which("redis-server")
        if not server:
            raise Unavailable("redis-server is not installed, and the borrowed one is not to be reconfigured")
        port = free_port()
        folder = OWN / "synced-redis"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        process = here.start("synced-redis", [*command, "--appendonly", "yes", "--appendfsync", "always"])
        here.servers["redis"] = process, port
        wait_for(lambda: port_taken(port), "a Redis that syncs")
    return {"BENCH_REDIS_URL": f"redis://127.0.0.1:{here.servers['redis'][1]}/0"}
