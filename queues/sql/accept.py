"""The statements that make a body a committed row; as `protocol.py` says."""

from queues.sql.definitions import DEPTH, LIMIT, MOST_PLACES, PLACES, STANDS
from queues.sql.statement import Statement

# The rows of accepted requests, once `queue` has given places to each user's.
_REQUESTS = """
    request AS (
        INSERT INTO queues_request (id, queue_id, seq, status, kind, version, payload, max_attempts, on_failure,
                                    not_before, expires_at, retry_of_id, trace, traceparent, bytes, attempt,
                                    created_at)
        SELECT v.id, queue.id, queue.before + v.place, CASE WHEN v.place IS NULL THEN 'scheduled' ELSE 'queued' END,
               v.kind, v.version, v.payload::json, v.max_attempts, v.on_failure, v.not_before, v.expires_at, v.retry_of,
               v.trace, v.traceparent, v.bytes, 0, clock_timestamp()
        FROM queue JOIN json_to_recordset(%(requests)s::json) AS v (
            user_id uuid, id uuid, place bigint, kind text, version int, payload text, max_attempts int,
            on_failure text, not_before timestamptz, expires_at timestamptz, retry_of uuid, trace text,
            traceparent text, bytes int) USING (user_id)
        RETURNING id, queue_id, seq, created_at
    )
    SELECT request.id, request.seq, request.created_at, queue.id AS queue_id, queue.done_seq, queue.given_up_ahead,
           queue.avg_service_seconds, queue.stands, NULL::uuid AS locked
    FROM request JOIN queue ON queue.id = request.queue_id
"""

# Room for so many bytes more. What waits is added up only where a user keeps so much that it could be too much; and
# that counts only if the statement, which may have waited for the queue's lock, sees all that was accepted until now.
_ROOM = """AND q.bytes_stored + {bytes} <= %(most_stored)s
          AND (q.bytes_stored + {bytes} <= %(most_waiting)s OR {bytes} + (
                  SELECT coalesce(sum(r.bytes), 0) FROM (
                      SELECT bytes FROM queues_request
                      WHERE queue_id = q.id AND seq > q.done_seq AND finished_at IS NULL ORDER BY seq) r) + (
                  SELECT coalesce(sum(r.bytes), 0) FROM (
                      SELECT bytes FROM queues_request
                      WHERE queue_id = q.id AND due_at IS NOT NULL ORDER BY due_at) r) <= %(most_waiting)s
              AND EXISTS (SELECT FROM queues_userqueue seen WHERE seen.id = q.id
                          AND seen.last_seq = q.last_seq AND seen.bytes_stored = q.bytes_stored))
"""

# The outbox: a place in line and the request in one commit. No row: no such session, no queue yet, or it is full.
ACCEPT = Statement(f"""
    WITH queue AS (
        UPDATE queues_userqueue q SET last_seq = last_seq + %(places)s, bytes_stored = bytes_stored + %(bytes)s
        FROM accounts_user u
        WHERE q.user_id = %(user)s AND u.id = q.user_id AND u.is_active
          AND (%(session)s::uuid IS NULL OR EXISTS (
              SELECT FROM accounts_session s WHERE s.id = %(session)s AND s.user_id = u.id AND s.ended_at IS NULL))
          AND {DEPTH} + %(places)s <= {LIMIT}
          AND {PLACES} + %(places)s <= {MOST_PLACES}
          AND (%(scheduled)s = 0 OR %(scheduled)s <= {LIMIT} - (
              SELECT count(*) FROM (
                  SELECT FROM queues_request WHERE queue_id = q.id AND due_at IS NOT NULL ORDER BY due_at) r))
          {_ROOM.format(bytes="%(bytes)s::bigint")}
        RETURNING q.id, q.user_id, q.last_seq - %(places)s AS before, q.done_seq, q.given_up_ahead,
                  q.avg_service_seconds,
                  {STANDS} AS stands
    ), {_REQUESTS}
""")  # noqa: S608  # of constants

# The same for several users, with nothing scheduled. It waits for nobody's lock, so one user's queue never holds up
# another's, and it deadlocks with nobody: what is locked is left out and told in a row of its own, what ACCEPT refuses
# is left out. (CASE has only those looked at again whom it did not lock.)
_TOGETHER = """
    WITH asked AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(asked)s::json) AS v (
            user_id uuid, session_id uuid, places bigint, bytes bigint)
    ), unlocked AS (
        SELECT q.id, asked.user_id, asked.places, asked.bytes FROM asked CROSS JOIN LATERAL (
            SELECT q.id {own} FOR NO KEY UPDATE OF q SKIP LOCKED) q
    ), queue AS (
        UPDATE queues_userqueue q SET last_seq = last_seq + v.places, bytes_stored = bytes_stored + v.bytes
        FROM unlocked v
        WHERE q.id = v.id AND q.id = ANY (ARRAY (SELECT id FROM unlocked)) -- bounds the scan, whatever join is planned
          AND {depth} + v.places <= {limit}
          AND {places} + v.places <= {most_places}
          {room}
        RETURNING q.id, q.user_id, q.last_seq - v.places AS before, q.done_seq, q.given_up_ahead,
                  q.avg_service_seconds,
                  {stands} AS stands
    ), {requests}
    UNION ALL
    SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, asked.user_id
    FROM asked LEFT JOIN unlocked USING (user_id)
    WHERE CASE WHEN unlocked.id IS NULL THEN (SELECT true {own}) END
"""
_OWN = """FROM queues_userqueue q JOIN accounts_user u ON u.id = q.user_id
            {session}
            WHERE q.user_id = asked.user_id AND u.is_active"""
_PARTS = {
    "room": _ROOM.format(bytes="v.bytes"), "requests": _REQUESTS, "depth": DEPTH, "limit": LIMIT, "stands": STANDS,
    "places": PLACES, "most_places": MOST_PLACES,
}  # fmt: skip
_SESSION = "JOIN accounts_session s ON s.id = asked.session_id AND s.user_id = u.id AND s.ended_at IS NULL"

# Each with a session.
ACCEPT_TOGETHER = Statement(_TOGETHER.format(own=_OWN.format(session=_SESSION), **_PARTS))

# For what comes from nobody's session: messages of Kafka, and schedules.
ACCEPT_MESSAGES = Statement(_TOGETHER.format(own=_OWN.format(session=""), **_PARTS))

# The first time a user asks for anything. Two at once: one of them makes it.
OPEN_QUEUE = Statement("INSERT INTO queues_userqueue (user_id) VALUES (%(user)s) ON CONFLICT (user_id) DO NOTHING")
