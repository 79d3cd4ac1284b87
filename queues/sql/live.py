"""What is new for those who follow a queue."""

from queues.sql.reads import QUEUE_COLUMNS, REQUEST_COLUMNS, TEXT_COLUMNS
from queues.sql.statement import Statement

# The queue, and the moment at which this look began.
QUEUE_NOW = Statement(f"""
    SELECT {QUEUE_COLUMNS}, extract(epoch FROM now())::float8 AS now FROM queues_userqueue q WHERE q.id = %(queue)s
""")  # noqa: S608  (columns' names)

# In this order: what is final since, with the head; what is new in line; what was given up amid the line; what is newly
# scheduled, and what was and is no more. Each is read from an index, at its place; NOT IN looks into a hash, ALL would
# compare each with each.
CHANGED_REQUESTS = Statement(f"""
    SELECT {REQUEST_COLUMNS}, {TEXT_COLUMNS} FROM queues_request r JOIN (
        (SELECT id FROM queues_request WHERE queue_id = %(queue)s AND seq > %(done)s AND seq <= %(head)s
         ORDER BY seq LIMIT %(rows)s)
        UNION ALL
        (SELECT id FROM queues_request WHERE queue_id = %(queue)s AND seq > greatest(%(last)s, %(head)s)
         ORDER BY seq LIMIT %(rows)s)
        UNION ALL
        (SELECT id FROM queues_request WHERE queue_id = %(queue)s AND given_up IS NOT NULL
         AND seq > %(head)s AND seq <= %(last)s AND seq NOT IN (SELECT unnest(%(ended)s::bigint[]))
         ORDER BY seq LIMIT %(rows)s)
        UNION ALL
        (SELECT id FROM queues_request WHERE queue_id = %(queue)s AND due_at IS NOT NULL
         AND id NOT IN (SELECT unnest(%(scheduled)s::uuid[])) ORDER BY id LIMIT %(rows)s)
        UNION ALL
        (SELECT id FROM queues_request WHERE id = ANY(%(scheduled)s::uuid[]) AND due_at IS NULL LIMIT %(rows)s)
    ) changed USING (id) ORDER BY r.seq NULLS LAST, r.id
""")  # noqa: S608

# What was given up without ever having had a place.
GIVEN_UP_BESIDE = Statement(f"""
    SELECT {REQUEST_COLUMNS}, {TEXT_COLUMNS} FROM queues_request r
    WHERE queue_id = %(queue)s AND seq IS NULL AND finished_at > to_timestamp(%(since)s) ORDER BY id LIMIT %(rows)s
""")  # noqa: S608

# Which sessions live, and the version of their user's queue: any update of a row gives it another xmin.
PULSE = Statement("""
    SELECT s.id AS session, q.xmin::text AS version
    FROM accounts_session s JOIN accounts_user u ON u.id = s.user_id AND u.is_active
    LEFT JOIN queues_userqueue q ON q.user_id = u.id
    WHERE s.id = ANY(%(sessions)s::uuid[]) AND s.ended_at IS NULL
""")
