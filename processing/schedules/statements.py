"""The SQL of schedules whose turn it is, by name. None waits for a locked row but those that the caller holds."""

from queues.sql.statement import Statement

# A round: each user's schedules that are due, by their due times. The more users there are, the fewer of each.
ROUND = Statement("""
    WITH due AS MATERIALIZED (
        SELECT id, user_id, next_at, row_number() OVER (PARTITION BY user_id ORDER BY next_at, id) AS place
        FROM schedules_schedule WHERE look_at <= now()
    )
    SELECT array_agg(id ORDER BY place) AS ids, array_agg(next_at ORDER BY place) AS due_times FROM due
    WHERE place <= greatest(1, %(most)s / (SELECT count(*) FROM due WHERE place = 1))
    GROUP BY user_id ORDER BY min(next_at), user_id
""")

# What became of schedules that the caller has locked.
MOVE = Statement("""
    UPDATE schedules_schedule s SET
        next_at = v.next_at, look_at = v.look_at, last_error = v.last_error,
        last_due_at = coalesce(v.last_due_at, s.last_due_at),
        last_request_id = coalesce(v.last_request_id, s.last_request_id)
    FROM json_to_recordset(%(moves)s::json) AS v (
        id uuid, next_at timestamptz, look_at timestamptz, last_error text, last_due_at timestamptz,
        last_request_id uuid)
    WHERE s.id = v.id
""")

# All of a user's, also those that become due meanwhile: a queue without room is tried once, in the order of due times.
PUT_OFF = Statement("""
    UPDATE schedules_schedule SET
        last_error = CASE WHEN look_at <= now() THEN %(why)s ELSE last_error END,
        look_at = now() + make_interval(secs => %(seconds)s)
    WHERE id IN (
        SELECT id FROM schedules_schedule
        WHERE user_id = %(user)s AND look_at < now() + make_interval(secs => %(seconds)s)
        FOR NO KEY UPDATE SKIP LOCKED)
""")
