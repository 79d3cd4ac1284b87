"""The hot statements, by name. Each is one transaction, guarded by its WHERE: the number of rows says who won.

Here are a worker's: lease, claim, record. Accepting has its own in `accept.py`, the dispatcher in `dispatch.py`.
They are planned once, maybe while the tables are empty. A place in line is therefore looked up as a range of one, in
order: only the index of places serves that. Another would seem as good, and read all requests of the user.
Nothing else moves a counter or a state, and each moves as `docs/architecture.md` draws it. Who makes a request final
without moving done_seq past it adds one to given_up_ahead, and who moves done_seq past such a request takes one away,
in the same transaction. They run on the database's clock: now() is when the statement began, clock_timestamp() when it
got the row's lock.
"""

from queues.sql.definitions import FEW
from queues.sql.statement import Statement

# A request that a worker runs, as queues.values.Work has it. `limited`: it needs a permit (permits.py). These are few
# rows, read once a statement.
_WORK = """
    id, seq, kind, version, payload::text, attempt, max_attempts, on_failure, finished_at,
    coalesce(expires_at <= clock_timestamp() AND attempt = 0, false) AS expired,
    cancel_asked_at IS NOT NULL AS cancel_asked, trace, traceparent,
    extract(epoch FROM greatest(created_at, not_before))::float8 AS ready_at,
    extract(epoch FROM started_at)::float8 AS began_at,
    kind = ANY (ARRAY (SELECT kind FROM queues_kindlimit
                         WHERE paused OR most IS NOT NULL OR rate_most IS NOT NULL)) AS limited
"""

# ready -> draining, for many queues, and the head of each with it. The head is locked so that it is read as it is now,
# not as it was when the statement began: a cancel may have come in between. One that somebody else has locked is read
# with the claim instead. Where a worker died lately, a queue is leased by itself and its head is not claimed yet: its
# holder may leave it to another process (`left`), and a crash until then costs no attempt.
_LEASE = """
    WITH asked AS MATERIALIZED (
        SELECT DISTINCT id FROM json_to_recordset(%(asked)s::json) AS v (id bigint) ORDER BY id
    ), free AS MATERIALIZED (
        SELECT q.id FROM asked CROSS JOIN LATERAL (
            SELECT id FROM queues_userqueue WHERE id = asked.id AND NOT paused AND {guard}
            FOR NO KEY UPDATE {wait}) q
    ), lease AS (
        UPDATE queues_userqueue SET
            state = 'draining', state_since = now(), fence = fence + 1, worker_id = %(worker_id)s,
            lease_until = clock_timestamp() + make_interval(secs => %(seconds)s),
            claimed = CASE WHEN done_seq < crash_recovery_until_seq THEN 0 ELSE 1 END, claimed_at = clock_timestamp()
        WHERE id = ANY (ARRAY (SELECT id FROM free))
        RETURNING id AS queue_id, user_id, generation, fence, done_seq, published_seq, crash_recovery_until_seq,
                  claimed_at
    )
    SELECT asked.id AS asked, q.left_out, lease.*, head.* FROM asked
    LEFT JOIN lease ON lease.queue_id = asked.id
    LEFT JOIN LATERAL (
        SELECT true AS left_out FROM queues_userqueue
        WHERE id = asked.id AND lease.queue_id IS NULL AND state = 'ready' AND NOT paused LIMIT 1) q ON true
    LEFT JOIN LATERAL (
        SELECT {work} FROM queues_request
        WHERE queue_id = lease.queue_id AND seq > lease.done_seq AND seq <= lease.done_seq + 1
        ORDER BY seq LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) head ON true
"""

LEASE = Statement(
    _LEASE.format(work=_WORK, wait="", guard="(state = 'ready' OR state = 'draining' AND fence = %(left)s)")
)

# It waits for nobody's lock, so one user's queue never holds up another's: what is locked is `left_out`.
LEASE_TOGETHER = Statement(
    _LEASE.format(work=_WORK, wait="SKIP LOCKED", guard="state = 'ready' AND done_seq >= crash_recovery_until_seq")
)

# The requests of claims that were recorded before: what is cancelled from now on is asked for, not taken away.
CLAIMED = Statement(f"""
    SELECT claim.queue, r.* FROM json_to_recordset(%(claims)s::json) AS claim (queue bigint, done bigint, count int)
    CROSS JOIN LATERAL (
        SELECT {_WORK} FROM queues_request
        WHERE queue_id = claim.queue AND seq > claim.done AND seq <= claim.done + claim.count
        ORDER BY seq LIMIT claim.count) r
""")  # noqa: S608  # of constants

# Of many queues the outcomes, done_seq, and where each goes from here. Each row names its own fence: one that has moved
# on is not `recorded`, nothing of it is written, and the others' are. `final` of those that are passed were given up
# before their turn. A wrong count must not hold up a queue: it is kept within what is ahead. The head that is claimed
# began at `began`, or begins now. The first `along` of what is claimed come with it, in a row each, locked as a lease
# locks its head. That a number is its own abs() lets PostgreSQL think of few outcomes, so that each is looked up by id.
_RECORD = """
    WITH told AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(records)s::json) AS v (
            queue bigint, fence bigint, done bigint, passed bigint, final bigint, next text, claim int, along int,
            began timestamptz, delay float8, bytes bigint)
    ), mine AS MATERIALIZED (
        SELECT q.id FROM told CROSS JOIN LATERAL (
            SELECT id FROM queues_userqueue
            WHERE id = told.queue AND fence = told.fence AND state = 'draining' AND done_seq = told.done
            FOR NO KEY UPDATE {wait}) q
    ), queue AS (
        UPDATE queues_userqueue SET
            done_seq = done_seq + passed, bytes_stored = bytes_stored + bytes,
            given_up_ahead = greatest(0, least(given_up_ahead - final, last_seq - done_seq - passed)),
            published_seq = greatest(published_seq, done_seq + passed),
            state = CASE WHEN v.next IN ('waiting', 'blocked') THEN v.next
                         WHEN published_seq <= done_seq + passed THEN 'idle'
                         ELSE v.next END,
            state_since = CASE WHEN v.next = 'draining' AND published_seq > done_seq + passed
                               THEN state_since ELSE now() END,
            idle_since = CASE WHEN v.next IN ('draining', 'ready') AND published_seq <= done_seq + passed
                              THEN now() END,
            wake_at = clock_timestamp() + make_interval(secs => delay),
            claimed = claim, claimed_at = coalesce(began, clock_timestamp()),
            lease_until = clock_timestamp() + make_interval(secs => %(seconds)s),
            avg_service_seconds = CASE WHEN passed = 0 THEN avg_service_seconds ELSE
                (SELECT coalesce(avg_service_seconds
                                 + (1 - power(0.9, least(passed, 100))) * (pace - avg_service_seconds), pace)
                 FROM (SELECT extract(epoch FROM clock_timestamp() - moved_at)::float8 / passed AS pace) p) END,
            moved_at = CASE WHEN passed = 0 THEN moved_at ELSE clock_timestamp() END
        FROM told v WHERE id = v.queue AND id = ANY (ARRAY (SELECT id FROM mine))
        RETURNING id, published_seq, state, paused, claimed_at
    ), outcome AS MATERIALIZED (
        SELECT r.id, v.* FROM json_to_recordset(%(outcomes)s::json) AS v (
            queue bigint, seq bigint, status text, result text, error text, attempt int, outcome text,
            started_at timestamptz, finished_at timestamptz, traceback text)
        CROSS JOIN LATERAL (
            SELECT id FROM queues_request WHERE queue_id = v.queue AND seq >= v.seq AND seq <= v.seq
            ORDER BY seq LIMIT 1) r
        WHERE v.queue = ANY (ARRAY (SELECT id FROM queue))
          AND v.seq = abs(v.seq)
    ), recorded AS (
        UPDATE queues_request r SET
            status = v.status, result = v.result::json, error = v.error::json, attempt = v.attempt,
            bytes = r.bytes + coalesce(octet_length(v.result), 0), started_at = coalesce(r.started_at, v.started_at),
            finished_at = CASE WHEN v.status = 'retrying' THEN NULL ELSE v.finished_at END
        FROM outcome v WHERE r.id = v.id AND r.finished_at IS NULL
        RETURNING r.id, v.attempt, v.started_at, v.finished_at, v.outcome, v.error, v.traceback
    ), attempt AS (
        INSERT INTO queues_attempt (request_id, number, started_at, finished_at, outcome, error, traceback)
        SELECT id, attempt, started_at, finished_at, outcome, error::json, traceback FROM recorded
        WHERE outcome IS NOT NULL AND (attempt > 1 OR outcome <> 'succeeded')
    )
    SELECT told.queue, published_seq AS published, state, paused, claimed_at AS since, queue.id IS NOT NULL AS recorded,
           q.left_out, head.*
    FROM told LEFT JOIN queue ON queue.id = told.queue
    LEFT JOIN LATERAL (
        SELECT true AS left_out FROM queues_userqueue
        WHERE id = told.queue AND queue.id IS NULL AND fence = told.fence AND state = 'draining'
          AND done_seq = told.done LIMIT 1) q ON true
    LEFT JOIN LATERAL (
        SELECT {work} FROM queues_request
        WHERE state = 'draining' AND queue_id = told.queue
          AND seq > done + passed AND seq <= least(done + passed + along, published_seq)
        ORDER BY seq LIMIT {few} FOR NO KEY UPDATE SKIP LOCKED) head ON true
"""

RECORD = Statement(_RECORD.format(work=_WORK, few=FEW, wait=""))

# It waits for no queue's lock: nothing is written of one that is `left_out`, and the others' are.
RECORD_TOGETHER = Statement(_RECORD.format(work=_WORK, few=FEW, wait="SKIP LOCKED"))

# The leases in a process's name, with their age. Reads only the partial index of active queues.
HELD = Statement("""
    SELECT id, fence, extract(epoch FROM clock_timestamp() - state_since)::float8 AS age
    FROM queues_userqueue WHERE active AND state = 'draining' AND worker_id = %(worker_id)s
""")

# Those of them that the process does not know: an answer was lost, or came too late. Others may have them.
GIVE_BACK = Statement("""
    UPDATE queues_userqueue SET state = 'ready', state_since = now(), claimed = 0
    WHERE id IN (
        SELECT q.id FROM json_to_recordset(%(unknown)s::json) AS v (id bigint, fence bigint)
        JOIN queues_userqueue q ON q.id = v.id AND q.fence = v.fence
        WHERE q.state = 'draining' AND q.worker_id = %(worker_id)s
        ORDER BY q.id FOR NO KEY UPDATE OF q SKIP LOCKED)
    RETURNING id, NOT paused AS wants_token
""")

# Where a lease stands whose holder is not sure. No row: fenced out.
LEASED = Statement("""
    SELECT done_seq, published_seq, state, paused, claimed_at AS since FROM queues_userqueue
    WHERE id = %(queue)s AND fence = %(fence)s
""")

# First attempts are given back with their queues; to whoever looked on, they had begun. Waits for no lock.
KEEP_BEGINNINGS = Statement("""
    WITH began AS MATERIALIZED (
        SELECT r.id, v.at FROM json_to_recordset(%(began)s::json) AS v (request uuid, at timestamptz)
        CROSS JOIN LATERAL (
            SELECT id FROM queues_request WHERE id = v.request AND started_at IS NULL AND finished_at IS NULL
            FOR NO KEY UPDATE SKIP LOCKED) r
    )
    UPDATE queues_request r SET started_at = began.at FROM began
    WHERE r.id = began.id AND r.id = ANY (ARRAY (SELECT id FROM began)) -- bounds the scan, whatever join is planned
""")

# RabbitMQ was empty twice although PostgreSQL says otherwise: it lost them. Idle, so that they are published again.
REPUBLISH = Statement("""
    UPDATE queues_userqueue SET published_seq = done_seq, state = 'idle', state_since = now(), idle_since = now()
    WHERE id = %(queue)s AND fence = %(fence)s AND state = 'draining' AND published_seq = %(published)s
    RETURNING id
""")

# The heartbeat of long turns, for all of a process in one statement. It waits for nobody: what is locked is renewed the
# next time. Says whether somebody wants the one that runs cancelled; no row: fenced out.
RENEW = Statement("""
    WITH held AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(held)s::json) AS v (id bigint, fence bigint, seq bigint)
    ), unlocked AS (
        SELECT q.id FROM held CROSS JOIN LATERAL (
            SELECT id FROM queues_userqueue WHERE id = held.id AND fence = held.fence AND state = 'draining'
            FOR NO KEY UPDATE SKIP LOCKED) q
    ), renewed AS (
        UPDATE queues_userqueue SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s)
        WHERE id = ANY (ARRAY (SELECT id FROM unlocked)) RETURNING id
    )
    SELECT q.id, EXISTS (SELECT FROM renewed WHERE renewed.id = q.id) AS renewed,
           coalesce((SELECT r.cancel_asked_at IS NOT NULL FROM queues_request r
                     WHERE r.queue_id = q.id AND r.seq >= held.seq AND r.seq <= held.seq
                     ORDER BY r.seq LIMIT 1), false) AS cancelled
    FROM held JOIN queues_userqueue q ON q.id = held.id AND q.fence = held.fence AND q.state = 'draining'
""")
