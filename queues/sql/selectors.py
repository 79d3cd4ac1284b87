"""The requests of one status that operators list.

Each starts from the queues that are not at rest: a search by status, or backwards by id, could read millions of
finished requests. The limits keep the planner from doing so.
"""

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
