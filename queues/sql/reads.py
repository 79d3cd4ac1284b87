"""What an owner reads of their queue. Each asks in the same statement whether the owner's session lives."""

from django.db.models import Model
from django.db.models.fields.generated import GeneratedField

from queues.models import Request, UserQueue
from queues.sql.definitions import DEPTH, FINISHED_LATELY, HELD_BACK, OLDEST_WAITING, STANDS
from queues.sql.statement import Statement

# The columns read of a queue and of a request: all but the generated ones and what nobody is shown; JSON as text.
JSON_COLUMNS = ("payload", "result", "error")
NOT_SHOWN = ("on_failure", "bytes", "traceparent")


def _columns(model: type[Model]) -> list[str]:
    return [
        field.attname
        for field in model._meta.concrete_fields
        if field.attname not in (*JSON_COLUMNS, *NOT_SHOWN) and not isinstance(field, GeneratedField)
    ]


QUEUE, REQUEST = _columns(UserQueue), _columns(Request)
SHOWN = [*REQUEST, *(f"{name}_text" for name in JSON_COLUMNS)]
QUEUE_COLUMNS = ", ".join(f"q.{name} AS queue_{name}" for name in QUEUE)
REQUEST_COLUMNS = ", ".join(f"r.{name} AS request_{name}" for name in REQUEST)
TEXT_COLUMNS = ", ".join(f"r.{name}::text" for name in JSON_COLUMNS)

# One row while the session lives, whatever it is joined to; none once it has ended.
LIVING_SESSION = """
    accounts_session s JOIN accounts_user u
        ON u.id = s.user_id AND u.is_active AND s.id = %(session)s AND u.id = %(user)s AND s.ended_at IS NULL
"""

# For who reads nothing from PostgreSQL, a cached result for instance.
OWN_SESSION = Statement(f"SELECT FROM {LIVING_SESSION}")

# The session and the queue in one round trip; the columns are NULL for who never asked for anything.
OWN_QUEUE = Statement(f"""
    SELECT {QUEUE_COLUMNS} FROM {LIVING_SESSION} LEFT JOIN queues_userqueue q ON q.user_id = u.id
""")  # noqa: S608  (of constants)

# Joined through the user's own queue: another's request looks like one that does not exist.
OWN_REQUEST = Statement(f"""
    SELECT {QUEUE_COLUMNS}, {REQUEST_COLUMNS}, {TEXT_COLUMNS}
    FROM {LIVING_SESSION}
    LEFT JOIN (queues_userqueue q JOIN queues_request r ON r.queue_id = q.id AND r.id = %(request)s) ON q.user_id = u.id
""")  # noqa: S608  (columns' names)

# The subqueries are looked up one by one, by their keys: no plan reads a table for a group of one. A queue is read for
# who asks for it, or for a request of it. LIMIT keeps the request's queue out of its lookup: a plan made while queues
# are short would walk along the queue.
OWN_REQUESTS = Statement(f"""
    SELECT ask.n, mine.*, found.*
    FROM json_to_recordset(%(asks)s::json) AS ask(n int, u uuid, s uuid, q boolean, r uuid)
    CROSS JOIN LATERAL (
        SELECT FROM accounts_session s JOIN accounts_user u ON u.id = s.user_id AND u.is_active
        WHERE s.id = ask.s AND s.user_id = ask.u AND s.ended_at IS NULL LIMIT 1) living
    LEFT JOIN LATERAL (
        SELECT {QUEUE_COLUMNS} FROM queues_userqueue q WHERE q.user_id = ask.u AND ask.q LIMIT 1) mine ON true
    LEFT JOIN LATERAL (
        SELECT {REQUEST_COLUMNS}, {TEXT_COLUMNS} FROM queues_request r
        WHERE r.id = ask.r AND r.bytes <= %(most_bytes)s LIMIT 1) found ON found.request_queue_id = mine.queue_id
""")  # noqa: S608  (columns' names)

# Reads no more than the head, the next one, and the newest outcomes, however deep the queue is.
QUEUE_SUMMARY = Statement(f"""
    SELECT q.state, q.paused, {DEPTH} AS depth, q.waiting_limit, q.avg_service_seconds, {STANDS} AS stands,
           head.id AS head, ({OLDEST_WAITING}) AS oldest_waiting_at, lately.outcomes, lately.seconds,
           held.kind AS held_kind, held.reason AS held_reason, held.until AS held_until
    FROM {LIVING_SESSION}
    LEFT JOIN queues_userqueue q ON q.user_id = u.id
    LEFT JOIN LATERAL (
        SELECT id, finished_at FROM queues_request
        WHERE queue_id = q.id AND seq > q.done_seq AND seq <= q.done_seq + 1 ORDER BY seq LIMIT 1
    ) head ON head.finished_at IS NULL
    LEFT JOIN LATERAL (
        SELECT k.kind, CASE WHEN paused THEN 'paused' WHEN full_until > clock_timestamp() THEN 'rate'
                            ELSE 'max_concurrency' END AS reason,
               CASE WHEN NOT paused AND full_until > clock_timestamp() THEN full_until END AS until
        FROM queues_permit p JOIN queues_kindlimit k USING (kind) CROSS JOIN LATERAL (
            SELECT max(s.at + make_interval(secs => k.rate_seconds)) AS full_until FROM queues_kindstart s
            WHERE s.kind = k.kind AND s.n = k.starts + 1 - k.rate_most) first
        WHERE p.queue_id = q.id AND p.fence IS NULL AND {HELD_BACK} LIMIT 1) held ON true
    CROSS JOIN LATERAL ({FINISHED_LATELY}) lately
""")  # noqa: S608  (a constant)

# How many requests between the head and each of some places in line are final already: what lies between two of these
# places is read once, from the index.
GIVEN_UP_BETWEEN = Statement("""
    SELECT v.seq, (sum(v.count) OVER (ORDER BY v.seq))::bigint AS count FROM (
        SELECT place.seq, (SELECT count(*) FROM queues_request r
                           WHERE r.queue_id = %(queue)s AND r.given_up IN ('failed', 'cancelled', 'expired')
                           AND r.seq > place.behind AND r.seq < place.seq)
        FROM (SELECT seq, lag(seq, 1, %(done)s::bigint) OVER (ORDER BY seq) AS behind
              FROM unnest(%(places)s::bigint[]) seq) place
    ) v
""")

# What is new for those who follow a queue. PULSE asks for all of them at once whose session lives.

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
""")  # noqa: S608  (of constants)

# What was given up without ever having had a place.
GIVEN_UP_BESIDE = Statement(f"""
    SELECT {REQUEST_COLUMNS}, {TEXT_COLUMNS} FROM queues_request r
    WHERE queue_id = %(queue)s AND seq IS NULL AND finished_at > to_timestamp(%(since)s) ORDER BY id LIMIT %(rows)s
""")  # noqa: S608  (of constants)

# Which sessions live, and the version of their user's queue: any update of a row gives it another xmin.
PULSE = Statement("""
    SELECT s.id AS session, q.xmin::text AS version
    FROM accounts_session s JOIN accounts_user u ON u.id = s.user_id AND u.is_active
    LEFT JOIN queues_userqueue q ON q.user_id = u.id
    WHERE s.id = ANY(%(sessions)s::uuid[]) AND s.ended_at IS NULL
""")
