"""Faults of PostgreSQL: restarted, silent, refusing, out of connections; answers that are lost."""

from collections.abc import Iterator
from contextlib import suppress

import psycopg

from scripts.chaos.fault import Place, fault
from scripts.chaos.stack import MOST_CONNECTIONS


@fault("postgresql.restart", 0, 1)
def restart_database(place: Place) -> Iterator[None]:
    place.stack.postgresql.stop()
    yield
    place.stack.start_again(place.stack.postgresql)


@fault("postgresql.kill")
def kill_database(place: Place) -> Iterator[None]:
    """kill -9 of all of it: it recovers from its log."""
    place.stack.postgresql.kill()
    yield
    place.stack.start_again(place.stack.postgresql)


@fault("postgresql.terminate")
def terminate_backends(place: Place) -> Iterator[None]:
    with place.stack.database() as database:
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
    yield


@fault("postgresql.exhaust", 1, 1.5)
def exhaust_connections(place: Place) -> Iterator[None]:
    """Every connection is taken, and half of ours have just been lost."""
    taken: list[psycopg.Connection] = []
    place.stack.tell_proxy("reset", "postgresql", share=0.5)
    with suppress(psycopg.OperationalError):
        while len(taken) < MOST_CONNECTIONS:
            taken.append(psycopg.connect(place.stack.postgresql.url, connect_timeout=5))
    place.detail = f"{len(taken)} taken"
    yield
    for connection in taken:
        connection.close()


@fault("postgresql.half-open", 0.5, 3)
def half_open_database(place: Place) -> Iterator[None]:
    place.stack.tell_proxy("hold", "postgresql")
    yield
    place.stack.tell_proxy("release", "postgresql", reset=place.dice.random() < 0.5)


@fault("postgresql.refuse", 0.5, 2)
def refuse_database(place: Place) -> Iterator[None]:
    place.stack.tell_proxy("refuse", "postgresql")
    yield
    place.stack.tell_proxy("accept", "postgresql")


@fault("postgresql.reset")
def reset_database(place: Place) -> Iterator[None]:
    place.stack.tell_proxy("reset", "postgresql", share=place.dice.choice([0.2, 0.5]))
    yield


@fault("postgresql.lost-answers")
def lose_answers(place: Place) -> Iterator[None]:
    """What some connections ask next is done (a commit, too), but they never hear of it."""
    place.stack.tell_proxy("deafen", "postgresql", count=place.dice.choice([5, 10]))
    yield
