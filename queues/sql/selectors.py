"""The requests of one status that operators list.

Each starts from the queues that are not at rest: a search by status, or backwards by id, could read millions of
finished requests. The limits keep the planner from doing so.
"""

from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet

from queues.sql.definitions import BEGUN_TO
from queues.sql.statement import Statement

LOOKED_AT = 5_000

# The queues that are not at rest.
_BUSY = """(SELECT id, done_seq, state FROM queues_userqueue WHERE active
     UNION ALL
     SELECT id, done_seq, state FROM queues_userqueue WHERE unpublished AND NOT active)"""

# In line and not at work: the head of a queue that is drained runs, and that of a blocked one blocks it.
QUEUED = Statement(f"""
    SELECT r.id FROM {_BUSY} q
    CROSS JOIN LATERAL (SELECT id FROM queues_request
                        WHERE queue_id = q.id AND seq > {BEGUN_TO} AND finished_at IS NULL
                          AND status = 'queued'
                        ORDER BY seq LIMIT {LOOKED_AT}) r
    LIMIT {LOOKED_AT}
""")  # noqa: S608  (constants)

# Heads whose next attempt is awaited.
RETRYING = Statement(f"""
    SELECT r.id FROM {_BUSY} q
    CROSS JOIN LATERAL (SELECT id FROM queues_request
                        WHERE queue_id = q.id AND seq = q.done_seq + 1 AND status = 'retrying' OFFSET 0) r
    WHERE q.state NOT IN ('draining', 'blocked')
    LIMIT {LOOKED_AT}
""")  # noqa: S608  (constants)

# Heads that wait for a decision.
BLOCKED = Statement(f"""
    SELECT r.id FROM queues_userqueue q
    CROSS JOIN LATERAL (SELECT id FROM queues_request
                        WHERE queue_id = q.id AND seq = q.done_seq + 1 AND finished_at IS NULL OFFSET 0) r
    WHERE q.active AND q.state = 'blocked'
    LIMIT {LOOKED_AT}
""")  # noqa: S608  (constants)

# Of several queues the newest of each, from the index of their places.
NEWEST_OF = Statement("""
    SELECT r.id FROM unnest(%(queues)s::bigint[]) q (id)
    CROSS JOIN LATERAL (SELECT id FROM queues_request WHERE queue_id = q.id ORDER BY seq DESC LIMIT %(each)s) r
""")

# Bulk actions of the admin.

# Whoever takes one holds its row until its group is recorded, and others take others. What waited longest goes first.
NEXT_BULK_ACTION = Statement("""
    SELECT id, targets[position + 1 : position + %(count)s] AS following
    FROM queues_bulkaction WHERE finished_at IS NULL AND next_at <= statement_timestamp() ORDER BY next_at LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED
""")

# Where PostgreSQL counts, not a hundred thousand rows come.
COUNT_BY_QUEUE = "SELECT queue_id, count(*) FROM chosen GROUP BY queue_id"

# The selection as it is now, in one statement, each user's in order. A page that is sent twice freezes it once.
FREEZE = """
    INSERT INTO queues_bulkaction
        (confirmation, user_id, page, name, reason, given, targets, total, later, skipped, failed)
    SELECT %s, %s, %s, %s, %s, %s::jsonb, targets, total, '{}', '{}', '{}'
    FROM (SELECT array_agg(queue_id || ' ' || id ORDER BY queue_id, seq, id) AS targets, count(*) AS total
          FROM chosen) frozen
    WHERE total BETWEEN 1 AND %s
    ON CONFLICT (confirmation) DO NOTHING RETURNING id
"""


def of_chosen(statement: str, chosen: QuerySet[Any, Any], *values: Any) -> list[Any]:
    """Run a statement about `chosen`, the rows of a query; its rows. None for a query that can have none."""
    try:
        text, choosing = chosen.query.sql_with_params()
    except EmptyResultSet:
        return []
    with connection.cursor() as cursor:
        cursor.execute(f"WITH chosen AS ({text}) {statement}", [*choosing, *values])
        return list(cursor.fetchall())
