"""Who leads a shard: a lease in PostgreSQL, on its clock, that only a leader who makes progress renews.

A leader that is frozen, cut off or dead renews nothing, and another takes its place. Two at once cost duplicates, never
order: what they publish and mark is guarded by the queues' own rows.
"""

import os
import secrets
import socket

from queues.sql.statement import Statement

LEAD_SECONDS = 3.5  # how long a lead lasts that is not renewed: succeeded within 5 s, the standby's look included

# Nothing here waits for the row: who has it locked keeps others from taking the lead, too.

# No row: nobody has led this shard yet.
LOOK = Statement("""
    SELECT lead_until < clock_timestamp() OR holder = %(holder)s AS free FROM queues_leadership WHERE shard = %(shard)s
""")

# The first one ever.
OPEN = Statement("""
    INSERT INTO queues_leadership (shard, holder, epoch, lead_until) VALUES (%(shard)s, '', 0, now())
    ON CONFLICT (shard) DO NOTHING
""")

# No row: somebody else was faster.
TAKE = Statement("""
    UPDATE queues_leadership SET holder = %(holder)s, epoch = epoch + 1, renewed_at = clock_timestamp(),
        lead_until = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE shard IN (SELECT shard FROM queues_leadership WHERE shard = %(shard)s
                      AND (lead_until < clock_timestamp() OR holder = %(holder)s) FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING epoch
""")

# A sign of the leader; whether it still leads. It does while its row is locked by whomever: nobody can take the lead.
RENEW = Statement("""
    WITH mine AS (
        SELECT shard FROM queues_leadership
        WHERE shard = %(shard)s AND holder = %(holder)s AND epoch = %(epoch)s FOR NO KEY UPDATE SKIP LOCKED
    ), renewed AS (
        UPDATE queues_leadership l SET renewed_at = clock_timestamp(),
            lead_until = clock_timestamp() + make_interval(secs => %(seconds)s)
        FROM mine WHERE l.shard = mine.shard
    )
    SELECT holder = %(holder)s AND epoch = %(epoch)s AS leads FROM queues_leadership WHERE shard = %(shard)s
""")

# It ends in order: the next one need not wait until the lease is over.
RESIGN = Statement("""
    UPDATE queues_leadership SET lead_until = now(), renewed_at = NULL
    WHERE shard IN (SELECT shard FROM queues_leadership WHERE shard = %(shard)s AND holder = %(holder)s
                      AND epoch = %(epoch)s FOR NO KEY UPDATE SKIP LOCKED)
""")

# The leader that has been silent for longest, and how many shards are led.
LAST_SIGN = Statement("""
    SELECT count(renewed_at) AS known, count(*) FILTER (WHERE lead_until > clock_timestamp()) AS led,
           extract(epoch FROM clock_timestamp() - min(renewed_at))::float8 AS seconds
    FROM queues_leadership WHERE shard < %(shards)s
""")


class Leadership:
    """One dispatcher's claim to lead one shard."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.holder = f"{socket.gethostname()[:100]} {os.getpid()} {secrets.token_hex(8)}"
        self.epoch = 0

    def free(self) -> bool:
        """Whether it could be taken now: its lease is over, or it is ours."""
        row = LOOK.row(shard=self.shard, holder=self.holder)
        return row is None or bool(row.free)

    def take(self) -> bool:
        """Lead from now on, for LEAD_SECONDS; False: another does."""
        values = {"shard": self.shard, "holder": self.holder, "seconds": LEAD_SECONDS}
        if LOOK.row(shard=self.shard, holder=self.holder) is None:
            OPEN.rows(shard=self.shard)
        row = TAKE.row(**values)
        if row is not None:
            self.epoch = row.epoch
        return row is not None

    def renew(self) -> bool:
        """Lead for LEAD_SECONDS more, to be called after progress only; False: it was succeeded."""
        row = RENEW.row(shard=self.shard, holder=self.holder, epoch=self.epoch, seconds=LEAD_SECONDS)
        return row is not None and bool(row.leads)

    def resign(self) -> None:
        """Let another lead at once. Nothing happens where it does already."""
        RESIGN.rows(shard=self.shard, holder=self.holder, epoch=self.epoch)


def last_sign(shards: int) -> float | None:
    """Seconds since the leaders of all these shards gave a sign: the longest silent one's. None: one has no leader."""
    row = LAST_SIGN.row(shards=shards)
    return None if row is None or row.known < shards else max(0.0, row.seconds)


def led(shards: int) -> int:
    """How many of these shards have a leader now."""
    row = LAST_SIGN.row(shards=shards)
    return 0 if row is None else int(row.led)
