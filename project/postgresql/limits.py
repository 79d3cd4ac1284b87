"""How long PostgreSQL may take, by what a process is: `play` says that once, at its start."""

from functools import lru_cache
from typing import Literal, NamedTuple

from django.conf import settings

Role = Literal["api", "dispatcher", "worker", "command"]

ANSWER_SECONDS = 0.5  # PostgreSQL keeps to a limit by itself; an answer that is later than this does not come
MIGRATION_LOCK_SECONDS = 1.0  # whoever reads a table waits behind a migration that waits for it


class Limits(NamedTuple):
    """Seconds: for a statement, for a lock that it waits for, and for doing nothing inside a transaction."""

    statement: float
    lock: float
    idle: float

    @property
    def answer(self) -> float:
        """Seconds after which the client gives up."""
        return self.statement + ANSWER_SECONDS


_playing: Role = "command"


def play(role: Role) -> None:
    """From now on this process's new connections have the limits of `role`."""
    global _playing
    _playing = role


def role() -> Role:
    """What this process is."""
    return _playing


def of_role() -> Limits:
    """The limits of this process's own statements."""
    return _limits(_playing)


@lru_cache
def _limits(role: Role) -> Limits:
    env = settings.ENV
    if role == "api":
        return Limits(env.api_statement_seconds, min(2.0, env.api_statement_seconds), 5.0)
    if role == "dispatcher":
        return Limits(env.background_statement_seconds, 1.0, 5.0)
    if role == "worker":
        return Limits(env.background_statement_seconds, 0.1, 10.0)  # a row that is locked is tried again, by itself
    return Limits(env.command_statement_seconds, 60.0, 60.0)  # a shell's forgotten transaction slows down every user


@lru_cache
def of_handler(time_limit: float) -> Limits:
    """A handler's own statements: its kind's time limit ends them, and these only what outlives that."""
    return Limits(time_limit + 5.0, time_limit + 5.0, time_limit + 10.0)


@lru_cache
def of_async_handlers() -> Limits:
    """The statements of all of a process's async handlers take turns: one that waits for a row keeps others waiting."""
    return Limits(settings.ENV.background_statement_seconds, 1.0, 10.0)


WATCH = Limits(2.0, 0.05, 5.0)  # the thread that looks after all turns of a process waits for nobody's row
