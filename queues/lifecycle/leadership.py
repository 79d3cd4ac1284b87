"""Who leads a shard: a lease in PostgreSQL, on its clock, that only a leader who makes progress renews.

A leader that is frozen, cut off or dead renews nothing, and another takes its place. Two at once cost duplicates, never
order: what they publish and mark is guarded by the queues' own rows.
"""

import os
import secrets
import socket

from queues.sql.leadership import LAST_SIGN, LEAD_IS_FREE, OPEN_SHARD, RENEW_LEAD, RESIGN_LEAD, TAKE_LEAD

LEAD_SECONDS = 3.5  # how long a lead lasts that is not renewed: succeeded within 5 s, the standby's look included


class Leadership:
    """One dispatcher's claim to lead one shard."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.holder = f"{socket.gethostname()[:100]} {os.getpid()} {secrets.token_hex(8)}"
        self.epoch = 0

    def free(self) -> bool:
        """Whether it could be taken now: its lease is over, or it is ours."""
        row = LEAD_IS_FREE.row(shard=self.shard, holder=self.holder)
        return row is None or bool(row.free)

    def take(self) -> bool:
        """Lead from now on, for LEAD_SECONDS; False: another does."""
        values = {"shard": self.shard, "holder": self.holder, "seconds": LEAD_SECONDS}
        if LEAD_IS_FREE.row(shard=self.shard, holder=self.holder) is None:
            OPEN_SHARD.rows(shard=self.shard)
        row = TAKE_LEAD.row(**values)
        if row is not None:
            self.epoch = row.epoch
        return row is not None

    def renew(self) -> bool:
        """Lead for LEAD_SECONDS more, to be called after progress only; False: it was succeeded."""
        row = RENEW_LEAD.row(shard=self.shard, holder=self.holder, epoch=self.epoch, seconds=LEAD_SECONDS)
        return row is not None and bool(row.leads)

    def resign(self) -> None:
        """Let another lead at once. Nothing happens where it does already."""
        RESIGN_LEAD.rows(shard=self.shard, holder=self.holder, epoch=self.epoch)


def last_sign(shards: int) -> float | None:
    """Seconds since the leaders of all these shards gave a sign: the longest silent one's. None: one has no leader."""
    row = LAST_SIGN.row(shards=shards)
    return None if row is None or row.known < shards else max(0.0, row.seconds)


def led(shards: int) -> int:
    """How many of these shards have a leader now."""
    row = LAST_SIGN.row(shards=shards)
    return 0 if row is None else int(row.led)
