"""How long requests waited and ran lately, by kind: percentiles over the newest ones that are final."""

from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from queues import kinds
from queues.operations.selectors import first_id
from queues.sql.statement import Statement

WITHIN = timedelta(hours=1)
NEWEST = 1000  # requests of each kind that are looked at

# Through the index on (kind, id), so that ten million finished requests cost nothing. The newest are cut off first:
# those that still wait are passed over only after that, or a deep backlog would be read to its end.
PERCENTILES = Statement("""
    SELECT k.kind, count(*) AS requests,
           percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY waited) AS waited,
           percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY ran) AS ran
    FROM unnest(%(kinds)s::text[]) k (kind)
    CROSS JOIN LATERAL (
        SELECT extract(epoch FROM started_at - greatest(created_at, not_before)) AS waited,
               extract(epoch FROM finished_at - started_at) AS ran
        FROM (SELECT created_at, not_before, started_at, finished_at FROM queues_request
              WHERE kind = k.kind AND id > %(first)s ORDER BY id DESC LIMIT %(newest)s) newest
        WHERE started_at IS NOT NULL AND finished_at IS NOT NULL) ended
    GROUP BY k.kind ORDER BY count(*) DESC, k.kind
""")


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one kind's requests: p50, p95 and p99 of each. `ran` includes the pauses between attempts."""

    kind: str
    requests: int
    waited: list[float]
    ran: list[float]


def look() -> list[Latency]:
    """Of every kind that has any in the last hour, the most frequent first."""
    names = sorted({kind.name for kind in kinds.all_kinds()})
    rows = PERCENTILES.rows(kinds=names, first=first_id(timezone.now() - WITHIN), newest=NEWEST)
    return [Latency(row.kind, row.requests, row.waited, row.ran) for row in rows]
