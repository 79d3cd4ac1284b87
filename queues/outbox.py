"""What RabbitMQ is still owed: accepted requests to publish, and queues to wake. The dispatcher's side."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from queues import transitions
from queues.statements import (
    DEAD_LEASES,
    ENTER_LINE,
    MARK_PUBLISHED,
    REAP,
    STALE_READY,
    UNPUBLISHED,
    WAKE,
)


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of all queues one dispatcher leads: those whose id leaves `number` when divided by `of`."""

    number: int
    of: int


@dataclass(slots=True)
class Parcel:
    """The next requests of one queue that RabbitMQ lacks, in order; `before` is published_seq as it was read."""

    queue_id: int
    before: int
    requests: list[tuple[int, UUID]] = field(default_factory=list)

    @property
    def target(self) -> int:
        """published_seq once all of it is published."""
        return self.requests[-1][0]


def unpublished(shard: Shard, after: int, queues: int, each: int, but: Sequence[int] = ()) -> list[Parcel]:
    """The next `each` requests of the next `queues` queues with an id above `after` that have any, `but` for some."""
    parcels: list[Parcel] = []
    for row in UNPUBLISHED.rows(
        shards=shard.of, shard=shard.number, after=after, queues=queues, each=each, but=list(but)
    ):
        if not parcels or parcels[-1].queue_id != row.queue_id:
            parcels.append(Parcel(row.queue_id, row.published_seq))
        parcels[-1].requests.append((row.seq, row.id))
    return parcels


def mark_published(parcels: Sequence[Parcel]) -> list[int]:
    """The broker has them. Returns the queues that woke up and want a token; those moved by another are left alone, as
    are those whose row is locked.
    """
    return mark_unlocked(parcels)[0]


def mark_unlocked(parcels: Sequence[Parcel]) -> tuple[list[int], list[Parcel]]:
    """As `mark_published`; the second is what has to be marked later, because the queue's row is locked."""
    rows = MARK_PUBLISHED.rows(
        ids=[p.queue_id for p in parcels], before=[p.before for p in parcels], target=[p.target for p in parcels]
    )
    woken = [row.id for row in rows if row.woken]
    if len(rows) == len(parcels):
        return woken, []
    had = {row.id for row in rows}
    return woken, [parcel for parcel in parcels if parcel.queue_id not in had]


def wake(shard: Shard, count: int) -> list[int]:
    """Ready the queues whose backoff is over. Returns those that want a token."""
    return [row.id for row in WAKE.rows(shards=shard.of, shard=shard.number, count=count) if row.woken]


def enter_line(shard: Shard, count: int) -> int:
    """Give scheduled requests that are due their sequence numbers. Returns how many."""
    rows = ENTER_LINE.rows(shards=shard.of, shard=shard.number, count=count)
    transitions.queued(rows)
    return len(rows)


def dead_leases(shard: Shard, lock_class: int, count: int) -> list[tuple[int, int, bool]]:
    """Queues (id, fence, lease expired) whose worker is silent, or seems dead: its lock of `lock_class` is free."""
    rows = DEAD_LEASES.rows(shards=shard.of, shard=shard.number, lock_class=lock_class, count=count)
    return [(row.id, row.fence, row.expired) for row in rows]


def stale_ready(shard: Shard, seconds: float, count: int) -> list[int]:
    """At most `count` queues that have been ready for `seconds` and get another token, the longest ready first."""
    return [row.id for row in STALE_READY.rows(shards=shard.of, shard=shard.number, seconds=seconds, count=count)]


def reap(shard: Shard, seconds: float, count: int) -> list[int]:
    """Queues idle for `seconds`, which RabbitMQ need not keep. They are published to afresh when work comes."""
    return [row.id for row in REAP.rows(shards=shard.of, shard=shard.number, seconds=seconds, count=count)]
