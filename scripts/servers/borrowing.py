"""Servers for a while: a test session, a demo or a bench gets places of its own and leaves nothing behind."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import psycopg

from scripts.place import LOCAL, lock, read_state, write_state
from scripts.servers import postgresql, rabbitmq, redis
from scripts.servers.found import Found
from scripts.servers.process import birth
from scripts.servers.rabbitmq import Control, Rabbitmq
from scripts.servers.servers import FOLDERS, Search, Servers, places

SESSIONS = LOCAL / "sessions"


@contextmanager
def borrowed(purpose: str, *, keep_servers: bool) -> Iterator[Servers]:
    """A new database, virtual host and Redis number until the block ends. Several can be borrowed at once.

    Servers that had to be started stay for the next run (`keep_servers`), or are this block's alone and end with it,
    even when we are killed. Raises SetupError when a server can neither be found nor started.
    """
    name = f"ordered_work_{purpose}_{os.getpid()}_{secrets.token_hex(3)}"
    folder = SESSIONS / name
    with lock("sessions"):
        clear_the_dead()
        write_state(folder / "state.json", {"pid": os.getpid(), "born": birth(os.getpid())})
    found: list[Found] = []
    try:
        if keep_servers:
            with lock("servers"):
                found = Search(LOCAL, guarded=False, own_vhost=name).all()
        else:
            found = Search(folder, guarded=True, own_vhost=name).all()
        servers = places(found, name, as_named=False)
        lasting = [one.title for one in found if keep_servers or not one.private]
        private = [one.title for one in found if one.private]
        write_state(folder / "places.json", {**asdict(servers), "lasting": lasting, "private": private})
        with redis.connect(servers.redis_url) as client:
            client.ping()  # connected, so that the number stays ours even when somebody flushes it
            yield servers
    finally:
        all_back = give_back(folder)
        for one in found:
            if one.private and not keep_servers:
                one.private.remove()
        if all_back:
            shutil.rmtree(folder, ignore_errors=True)


def clear_the_dead() -> None:
    """Removes what sessions left behind that were killed, or that a server did not let remove what was theirs."""
    for folder in SESSIONS.glob("*"):
        owner = read_state(folder / "state.json")
        if (not owner or birth(owner["pid"]) != owner["born"]) and give_back(folder):
            shutil.rmtree(folder, ignore_errors=True)


def give_back(folder: Path) -> bool:
    """Removes the database, the virtual host and the keys that `folder` knows of, on servers that go on without us.

    False when PostgreSQL or Redis did not let us: busy, restarting, or away. It can be called again.
    """
    state = read_state(folder / "places.json")
    lasting = state.get("lasting", [])
    if "RabbitMQ" in lasting and state["queue_prefix"]:
        rabbitmq.delete_queues(state["rabbitmq_url"], state["queue_prefix"], users=queues_of(state["database_url"]))
    elif "RabbitMQ" in lasting:
        rabbitmq.drop_vhost(state["rabbitmq_url"], control_of(state["private"]))
    left = 0
    for title, error, remove in (
        ("PostgreSQL", psycopg.Error, lambda: postgresql.drop_database(state["database_url"])),
        ("Redis", redis.Error, lambda: redis.give_back(state["redis_url"], state.get("redis_prefix", ""))),
    ):
        try:
            if title in lasting:
                remove()
        except error:
            left += 1
    return not left


def queues_of(database_url: str) -> int:
    """The highest number that a user's queue had; a guess when the database is gone, as after tests."""
    with contextlib.suppress(psycopg.Error), postgresql.connect(database_url) as connection:
        row = connection.execute("SELECT last_value FROM queues_userqueue_id_seq").fetchone()
        return int(row[0]) if row else 0
    return 5000


def control_of(private: list[str]) -> Control | None:
    """The `rabbitmqctl` of the private broker that stays, when it is ours that was borrowed from."""
    ours = Rabbitmq(LOCAL / FOLDERS["RabbitMQ"])
    return ours.control if "RabbitMQ" in private and ours.running() else None
