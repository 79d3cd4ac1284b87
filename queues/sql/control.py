"""The statements beside the protocol that move counters and states: what ends without a worker, what a locked
queue's row becomes, and what is deleted.
"""

from queues.sql.statement import Statement

# What is told of each request that ended: to the log, the metrics, and the receivers of the signal.
_ENDED = """
    r.id, q.user_id, r.queue_id, r.seq, r.kind, r.version, r.attempt, r.trace, r.status, r.error, r.started_at,
    r.finished_at
"""

_END = f"""
    UPDATE queues_request r SET
        status = %(status)s, finished_at = clock_timestamp(), error = coalesce(%(error)s::json, r.error)
    FROM queues_userqueue q
    WHERE q.id = r.queue_id AND r.finished_at IS NULL AND {{which}}
    RETURNING {_ENDED}
"""  # noqa: S608  (constants)

# From one place in line to another, of a queue that this transaction has locked.
END_IN_LINE = Statement(
    _END.format(
        which="""r.id = ANY (ARRAY (
        SELECT id FROM queues_request WHERE queue_id = %(queue)s AND seq >= %(first)s AND seq <= %(last)s ORDER BY seq))
"""
    )
)

# Not in line yet, so no queue is locked: whoever ends one first, or gives it its place, has it.
END_SCHEDULED = Statement(_END.format(which="r.id = %(id)s AND r.status = 'scheduled'"))

# All of a queue, by the small index of what never got a place.
END_ALL_SCHEDULED = Statement(_END.format(which="r.queue_id = %(queue)s AND r.seq IS NULL AND r.status = 'scheduled'"))

# Waiting for its first attempt, and its `expires_at` has passed: final. What a worker has claimed is the worker's to
# end. Their queues stay locked until the transaction ends: PASS_OVER moves their heads in it.
EXPIRE = Statement(f"""
    WITH lapsed AS MATERIALIZED (
        SELECT r.id, q.user_id FROM queues_request r JOIN queues_userqueue q ON q.id = r.queue_id
        WHERE r.lapses_at <= now() AND r.attempt = 0 AND r.queue_id %% %(shards)s = %(shard)s
          AND (r.seq IS NULL OR q.state <> 'draining' OR r.seq > q.done_seq + q.claimed)
        ORDER BY r.lapses_at LIMIT %(count)s
        FOR NO KEY UPDATE OF q SKIP LOCKED FOR NO KEY UPDATE OF r SKIP LOCKED
    )
    UPDATE queues_request r SET status = 'expired', finished_at = clock_timestamp()
    FROM lapsed q WHERE r.id = q.id
    RETURNING {_ENDED}
""")  # noqa: S608  (constants)

WRITTEN = (
    "last_seq", "published_seq", "done_seq", "given_up_ahead", "state", "state_since", "paused", "operator_paused",
    "paused_at", "paused_by", "fence", "crash_recovery_until_seq", "wake_at", "idle_since", "moved_at", "bytes_stored",
)  # fmt: skip

# The row that this transaction has locked and looked at, so nobody has moved it meanwhile: lifecycle/locking.py.
WRITE_LOCKED = Statement(f"""
    UPDATE queues_userqueue SET {", ".join(f"{name} = %({name})s" for name in WRITTEN)} WHERE id = %(id)s
""")  # noqa: S608  (columns' names)

# Of queues that this transaction has locked, in which so many requests (`ended`) were made final ahead of done_seq:
# move it past what is final at the head, unless a worker has the queue, and wake those whose head is a new one. Of each
# no more than `most` places are looked at, so that none takes the others' time: a worker passes over the rest.
PASS_OVER = Statement("""
    WITH head AS MATERIALIZED (
        SELECT id, done_seq, published_seq, state AS before, v.ended,
               CASE WHEN state = 'draining' THEN done_seq ELSE coalesce((
                   SELECT seq - 1 FROM queues_request r
                   WHERE r.queue_id = p.id AND r.seq > p.done_seq AND r.seq <= p.done_seq + %(most)s
                     AND r.finished_at IS NULL
                   ORDER BY seq LIMIT 1), least(last_seq, done_seq + %(most)s)) END AS done
        FROM queues_userqueue p
        JOIN unnest(%(ids)s::bigint[], %(ended)s::bigint[]) AS v (queue_id, ended) ON v.queue_id = p.id
        WHERE p.id = ANY (%(ids)s::bigint[])
    )
    UPDATE queues_userqueue q SET
        done_seq = h.done, published_seq = greatest(q.published_seq, h.done),
        given_up_ahead = greatest(0, q.given_up_ahead + h.ended - (h.done - q.done_seq)),
        moved_at = CASE WHEN h.done > q.done_seq THEN now() ELSE q.moved_at END,
        state = h.state,
        state_since = CASE WHEN h.state <> q.state THEN now() ELSE q.state_since END,
        wake_at = CASE WHEN h.state <> 'waiting' THEN NULL WHEN h.done > q.done_seq THEN now() ELSE q.wake_at END,
        idle_since = CASE WHEN h.state = 'idle' AND h.done > q.done_seq THEN now() ELSE q.idle_since END
    FROM (
        SELECT head.*, CASE WHEN done = done_seq THEN before WHEN published_seq <= done THEN 'idle'
                            WHEN before = 'blocked' THEN 'waiting' ELSE before END AS state
        FROM head) h
    WHERE q.id = h.id AND q.id = ANY (%(ids)s::bigint[])
""")

# The queue's row first, as everybody locks; one that is locked keeps its requests until the next time.
DELETE_REQUESTS = Statement("""
    WITH queue AS MATERIALIZED (
        SELECT id FROM queues_userqueue
        WHERE id IN (SELECT queue_id FROM queues_request WHERE id = ANY(%(ids)s))
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM queues_request WHERE id = ANY(%(ids)s) AND queue_id IN (SELECT id FROM queue)
        RETURNING id, queue_id, bytes
    ), attempt AS (
        DELETE FROM queues_attempt WHERE request_id = ANY(%(ids)s) AND request_id IN (SELECT id FROM gone)
    ), retry AS (
        UPDATE queues_request SET retry_of_id = NULL
        WHERE retry_of_id = ANY(%(ids)s) AND NOT id = ANY(%(ids)s) AND retry_of_id IN (SELECT id FROM gone)
    ), freed AS (
        UPDATE queues_userqueue q SET bytes_stored = greatest(0, q.bytes_stored - n.bytes)
        FROM (SELECT queue_id, sum(bytes) AS bytes FROM gone GROUP BY queue_id) n WHERE q.id = n.queue_id
    )
    SELECT id FROM gone
""")
