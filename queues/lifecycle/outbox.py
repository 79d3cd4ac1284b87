"""What RabbitMQ is still owed: accepted requests to publish, and queues to wake. The dispatcher's side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from queues import event_log
from queues.sql.dispatch import (
    BROUGHT,
    DEAD_LEASES,
    DELETE_IDLE_QUEUES,
    MARK_PUBLISHED,
    PROMOTE_SCHEDULED,
    RENAME,
    RENAME_TOKENS,
    STALE_READY,
    TOKEN_GENERATION,
    UNPUBLISHED,
    WAKE,
)


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of all queues one dispatcher leads: those whose id leaves `number` when divided by `of`."""

    number: int
    of: int


class PublishBatch(NamedTuple):
    """The requests of one queue that RabbitMQ lacks: those behind `before`, which is published_seq as it was read, up
    to `target`, which is published_seq once they are published.

    `generation` says which name RabbitMQ's queue had then.
    """

    queue_id: int
    generation: int
    before: int
    target: int


def unpublished(shard: Shard, after: int, queues: int, but: Sequence[int] = ()) -> list[PublishBatch]:
    """What RabbitMQ lacks of the next `queues` queues with an id above `after` that have any of it, `but` for some."""
    rows = UNPUBLISHED.rows(shards=shard.of, shard=shard.number, after=after, queues=queues, but=list(but))
    return [PublishBatch._make(row) for row in rows]


def mark_published(batches: Sequence[PublishBatch]) -> tuple[list[int], list[PublishBatch]]:
    """The broker has them. Returns the queues that woke up and want a token, and what has to be marked later, because
    somebody has the queue's row locked. Those that another moved meanwhile are left alone.
    """
    rows = MARK_PUBLISHED.rows(
        ids=[p.queue_id for p in batches],
        generations=[p.generation for p in batches],
        before=[p.before for p in batches],
        target=[p.target for p in batches],
    )
    woken = [row.id for row in rows if row.woken]
    if len(rows) == len(batches):
        return woken, []
    had = {row.id for row in rows}
    return woken, [batch for batch in batches if batch.queue_id not in had]


def rename(queues: Sequence[tuple[int, int]]) -> list[int]:
    """Give RabbitMQ's queues of these (id, generation) other names, and have all that waits published there.

    Returns those that have one now. Left alone are those that a worker has, or somebody's lock, or another renamed.
    """
    if not queues:
        return []
    rows = RENAME.rows(ids=[id_ for id_, _ in queues], generations=[generation for _, generation in queues])
    return [row.id for row in rows]


def brought(shard: Shard, after: int, count: int) -> list[Any]:
    """The next queues (id, generation) that RabbitMQ should hold messages of, and no worker takes from."""
    return BROUGHT.rows(shards=shard.of, shard=shard.number, after=after, count=count)


def token_generation() -> int:
    """Which name the queue of tokens has."""
    row = TOKEN_GENERATION.row()
    assert row is not None  # noqa: S101  (an aggregate)
    return int(row.generation)


def rename_tokens(generation: int) -> int:
    """Give the queue of tokens another name, unless that was done since `generation` was read; which one it has now."""
    RENAME_TOKENS.rows(generation=generation)
    return token_generation()


def wake(shard: Shard, count: int) -> list[int]:
    """Ready the queues whose backoff is over. Returns those that want a token."""
    return [row.id for row in WAKE.rows(shards=shard.of, shard=shard.number, count=count) if row.woken]


def enter_line(shard: Shard, count: int) -> int:
    """Give scheduled requests that are due their sequence numbers. Returns how many."""
    rows = PROMOTE_SCHEDULED.rows(shards=shard.of, shard=shard.number, count=count)
    event_log.queued(rows)
    return len(rows)


class DoubtfulLease(NamedTuple):
    """A lease whose time is over (`expired`), or whose worker seems dead."""

    queue_id: int
    fence: int
    worker_id: int
    expired: bool


def dead_leases(shard: Shard, lock_class: int, count: int) -> list[DoubtfulLease]:
    """Those of silent workers, and of workers whose lock of `lock_class` is free."""
    rows = DEAD_LEASES.rows(shards=shard.of, shard=shard.number, lock_class=lock_class, count=count)
    return [DoubtfulLease._make(row) for row in rows]


def stale_ready(shard: Shard, seconds: float, count: int) -> list[int]:
    """At most `count` queues that have been ready for `seconds` and get another token, the longest ready first."""
    return [row.id for row in STALE_READY.rows(shards=shard.of, shard=shard.number, seconds=seconds, count=count)]


def reap(shard: Shard, seconds: float, kept: int, count: int) -> list[tuple[int, int]]:
    """Queues (id, generation) idle for `seconds`, which RabbitMQ need not keep.

    It does keep the `kept` of all shards that became idle last, but none that was renamed. The others are made afresh
    when work comes.
    """
    rows = DELETE_IDLE_QUEUES.rows(shards=shard.of, shard=shard.number, seconds=seconds, kept=kept, count=count)
    return [(row.id, row.generation) for row in rows]
