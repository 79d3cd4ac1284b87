"""How long requests waited and ran lately, by kind: percentiles over the newest ones that are final."""

from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from queues import kinds
from queues.operations.selectors import first_id
from queues.sql.figures import PERCENTILES

WITHIN = timedelta(hours=1)
NEWEST = 1000  # requests of each kind that are looked at


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one kind's requests: p50, p95 and p99 of each. `ran` includes the pauses between attempts."""

    kind: str
    requests: int
    waited: list[float]
    ran: list[float]


def percentiles() -> list[Latency]:
    """Of every kind that has any in the last hour, the most frequent first."""
    names = sorted({kind.name for kind in kinds.all_kinds()})
    rows = PERCENTILES.rows(kinds=names, first=first_id(timezone.now() - WITHIN), newest=NEWEST)
    return [Latency(row.kind, row.requests, row.waited, row.ran) for row in rows]
