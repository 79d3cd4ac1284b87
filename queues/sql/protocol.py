"""The hot statements, by name. Each is one transaction, guarded by its WHERE: the number of rows says who won.

Nothing else moves a counter or a state, and each moves as `docs/architecture.md` draws it. Who makes a request final
without moving done_seq past it adds one to given_up_ahead, and who moves done_seq past such a request takes one away,
in the same transaction. They run on the database's clock: now() is when the statement began, clock_timestamp() when it
got the row's lock.
"""

from queues.sql.statement import Statement

# The rows of accepted requests, once `queue` has given places to each user's.
_REQUESTS = """
    request AS (
        INSERT INTO queues_request (id, queue_id, seq, status, kind, version, payload, max_attempts, on_failure,
                                    not_before, expires_at, retry_of_id, trace, bytes, attempt, created_at)
        SELECT v.id, queue.id, queue.before + v.place, CASE WHEN v.place IS NULL THEN 'scheduled' ELSE 'queued' END,
               v.kind, v.version, v.payload::json, v.max_attempts, v.on_failure, v.not_before, v.expires_at, v.retry_of,
               v.trace, v.bytes, 0, clock_timestamp()
        FROM queue JOIN json_to_recordset(%(requests)s::json) AS v (
            user_id uuid, id uuid, place bigint, kind text, version int, payload text, max_attempts int,
            on_failure text, not_before timestamptz, expires_at timestamptz, retry_of uuid, trace text,
            bytes int) USING (user_id)
        RETURNING id, queue_id, seq, created_at
    )
    SELECT request.id, request.seq, request.created_at, queue.id AS queue_id, queue.done_seq, queue.given_up_ahead,
           queue.seconds_each, queue.stands
    FROM request JOIN queue ON queue.id = request.queue_id
"""

# Room for so many bytes more. What waits is added up only where a user keeps so much that it could be too much; and
# that counts only if the statement, which may have waited for the queue's lock, sees all that was accepted until now.
_ROOM = """AND q.bytes_stored + {bytes} <= %(most_stored)s
          AND (q.bytes_stored + {bytes} <= %(most_waiting)s OR {bytes} + (
                  SELECT coalesce(sum(r.bytes), 0) FROM queues_request r
                  WHERE r.queue_id = q.id AND r.seq > q.done_seq AND r.finished_at IS NULL) + (
                  SELECT coalesce(sum(r.bytes), 0) FROM queues_request r
                  WHERE r.queue_id = q.id AND r.due_at IS NOT NULL) <= %(most_waiting)s
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
          AND q.last_seq - q.done_seq - q.given_up_ahead + %(places)s <= coalesce(q.waiting_limit, %(limit)s)
          AND (%(scheduled)s = 0 OR %(scheduled)s <= coalesce(q.waiting_limit, %(limit)s) - (
              SELECT count(*) FROM queues_request r WHERE r.queue_id = q.id AND r.due_at IS NOT NULL))
          {_ROOM.format(bytes="%(bytes)s::bigint")}
        RETURNING q.id, q.user_id, q.last_seq - %(places)s AS before, q.done_seq, q.given_up_ahead, q.seconds_each,
                  q.paused OR q.state = 'blocked' AS stands
    ), {_REQUESTS}
""")  # noqa: S608  # of constants

# The same for several users, each with a session and nothing scheduled. It waits for nobody's lock, so one user's
# queue never holds up another's, and it deadlocks with nobody: what is locked is left out, as is what ACCEPT refuses.
ACCEPT_TOGETHER = Statement(f"""
    WITH asked AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(asked)s::json) AS v (
            user_id uuid, session_id uuid, places bigint, bytes bigint)
    ), unlocked AS (
        SELECT q.id, asked.places, asked.bytes FROM asked CROSS JOIN LATERAL (
            SELECT q.id FROM queues_userqueue q JOIN accounts_user u ON u.id = q.user_id
            JOIN accounts_session s ON s.id = asked.session_id AND s.user_id = u.id
            WHERE q.user_id = asked.user_id AND u.is_active AND s.ended_at IS NULL
            FOR NO KEY UPDATE OF q SKIP LOCKED) q
    ), queue AS (
        UPDATE queues_userqueue q SET last_seq = last_seq + v.places, bytes_stored = bytes_stored + v.bytes
        FROM unlocked v
        WHERE q.id = v.id AND q.id = ANY (ARRAY (SELECT id FROM unlocked)) -- bounds the scan, whatever join is planned
          AND q.last_seq - q.done_seq - q.given_up_ahead + v.places <= coalesce(q.waiting_limit, %(limit)s)
          {_ROOM.format(bytes="v.bytes")}
        RETURNING q.id, q.user_id, q.last_seq - v.places AS before, q.done_seq, q.given_up_ahead, q.seconds_each,
                  q.paused OR q.state = 'blocked' AS stands
    ), {_REQUESTS}
""")  # noqa: S608  # of constants

# The first time a user asks for anything. Two at once: one of them makes it.
OPEN_QUEUE = Statement("INSERT INTO queues_userqueue (user_id) VALUES (%(user)s) ON CONFLICT (user_id) DO NOTHING")

# What RabbitMQ lacks: for each of some queues the next requests in order. Reads only the partial index of such queues.
UNPUBLISHED = Statement("""
    SELECT q.id AS queue_id, q.published_seq, q.generation, r.seq, r.id
    FROM (SELECT id, published_seq, generation FROM queues_userqueue
          WHERE unpublished AND id %% %(shards)s = %(shard)s AND id > %(after)s AND id <> ALL (%(but)s::bigint[])
          ORDER BY id LIMIT %(queues)s) q
    CROSS JOIN LATERAL (
        SELECT seq, id FROM queues_request
        WHERE queue_id = q.id AND seq > q.published_seq AND seq <= q.published_seq + %(each)s
        ORDER BY seq LIMIT %(each)s) r
    ORDER BY q.id, r.seq
""")

# The broker has them. A queue that was idle wakes up. One whose row is locked gives no row and has its turn later; one
# that somebody else moved meanwhile gives one and is left alone.
MARK_PUBLISHED = Statement("""
    WITH locked AS MATERIALIZED (
        SELECT id FROM queues_userqueue WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    ), marked AS (UPDATE queues_userqueue q SET
        published_seq = v.target,
        state = CASE WHEN state = 'idle' THEN 'ready' ELSE state END,
        state_since = CASE WHEN state = 'idle' THEN now() ELSE state_since END,
        moved_at = CASE WHEN state = 'idle' THEN now() ELSE moved_at END,
        idle_since = NULL
    FROM unnest(%(ids)s::bigint[], %(generations)s::bigint[], %(before)s::bigint[], %(target)s::bigint[])
         AS v (id, generation, before, target)
    JOIN locked USING (id)
    WHERE q.id = v.id AND q.published_seq = v.before AND q.generation = v.generation
    RETURNING q.id, (q.state = 'ready' AND q.state_since = now() AND NOT q.paused) AS woken)
    SELECT locked.id, coalesce(marked.woken, false) AS woken FROM locked LEFT JOIN marked USING (id)
""")

# RabbitMQ says nothing of the queue, or refuses it: another name, to which all that waits is published again. Its
# worker, if it has one, meets the same and lets it go first. What is locked is left for another time.
RENAME = Statement("""
    WITH unlocked AS MATERIALIZED (
        SELECT id FROM queues_userqueue WHERE id = ANY (%(ids)s::bigint[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE queues_userqueue q SET
        generation = q.generation + 1,
        published_seq = done_seq,
        state = CASE WHEN state = 'ready' THEN 'idle' ELSE state END,
        state_since = CASE WHEN state = 'ready' THEN now() ELSE state_since END,
        idle_since = CASE WHEN state IN ('ready', 'idle') THEN now() ELSE idle_since END
    FROM unnest(%(ids)s::bigint[], %(generations)s::bigint[]) AS v (id, generation) JOIN unlocked USING (id)
    WHERE q.id = v.id AND q.generation = v.generation AND q.state <> 'draining'
    RETURNING q.id
""")

# What RabbitMQ should hold messages of, and no worker takes from.
BROUGHT = Statement("""
    SELECT id, generation FROM queues_userqueue
    WHERE active AND published_seq > done_seq AND state <> 'draining' AND id > %(after)s
      AND id %% %(shards)s = %(shard)s
    ORDER BY id LIMIT %(count)s
""")

# Which name the queue of tokens has, and another one for it. Two at once: one of them gives it.
TOKEN_GENERATION = Statement("SELECT coalesce(max(generation), 0)::bigint AS generation FROM queues_tokenqueue")
RENAME_TOKENS = Statement("""
    INSERT INTO queues_tokenqueue (generation) VALUES (%(generation)s + 1) ON CONFLICT DO NOTHING RETURNING generation
""")

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
            state = 'draining', state_since = now(), fence = fence + 1, holder = %(holder)s,
            lease_until = clock_timestamp() + make_interval(secs => %(seconds)s),
            claimed = CASE WHEN done_seq < careful_to THEN 0 ELSE 1 END, claimed_at = clock_timestamp()
        WHERE id = ANY (ARRAY (SELECT id FROM free))
        RETURNING id AS queue_id, user_id, generation, fence, done_seq, published_seq, careful_to, claimed_at
    )
    SELECT asked.id AS asked, q.left_out, lease.*, head.* FROM asked
    LEFT JOIN lease ON lease.queue_id = asked.id
    LEFT JOIN LATERAL (
        SELECT true AS left_out FROM queues_userqueue
        WHERE id = asked.id AND lease.queue_id IS NULL AND state = 'ready' AND NOT paused LIMIT 1) q ON true
    LEFT JOIN LATERAL (
        SELECT r.id, r.seq, r.kind, r.version, r.payload::text, r.attempt, r.max_attempts, r.on_failure, r.finished_at,
               coalesce(r.expires_at <= clock_timestamp() AND r.attempt = 0, false) AS expired,
               r.cancel_asked_at IS NOT NULL AS cancel_asked, r.trace,
               extract(epoch FROM greatest(r.created_at, r.not_before))::float8 AS ready_at,
               extract(epoch FROM r.started_at)::float8 AS began_at
        FROM queues_request r WHERE r.queue_id = lease.queue_id AND r.seq = lease.done_seq + 1
        FOR NO KEY UPDATE OF r SKIP LOCKED) head ON true
"""

LEASE = Statement(_LEASE.format(wait="", guard="(state = 'ready' OR state = 'draining' AND fence = %(left)s)"))

# It waits for nobody's lock, so one user's queue never holds up another's: what is locked is `left_out`.
LEASE_TOGETHER = Statement(_LEASE.format(wait="SKIP LOCKED", guard="state = 'ready' AND done_seq >= careful_to"))

# The requests of claims that were recorded before: what is cancelled from now on is asked for, not taken away.
CLAIMED = Statement("""
    SELECT claim.queue, r.* FROM json_to_recordset(%(claims)s::json) AS claim (queue bigint, done bigint, count int)
    CROSS JOIN LATERAL (
        SELECT id, seq, kind, version, payload::text, attempt, max_attempts, on_failure, finished_at,
               coalesce(expires_at <= clock_timestamp() AND attempt = 0, false) AS expired,
               cancel_asked_at IS NOT NULL AS cancel_asked, trace,
               extract(epoch FROM greatest(created_at, not_before))::float8 AS ready_at,
               extract(epoch FROM started_at)::float8 AS began_at
        FROM queues_request WHERE queue_id = claim.queue AND seq > claim.done AND seq <= claim.done + claim.count
        ORDER BY seq LIMIT claim.count) r
""")

# Of many queues the outcomes, done_seq, and where each goes from here. Each row names its own fence: one that has moved
# on is not `recorded`, nothing of it is written, and the others' are. `final` of those that are passed were given up
# before their turn. A wrong count must not hold up a queue: it is kept within what is ahead. The head that is claimed
# began at `began`, or begins now.
_RECORD = """
    WITH told AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(records)s::json) AS v (
            queue bigint, fence bigint, done bigint, passed bigint, final bigint, next text, claim int,
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
            seconds_each = CASE WHEN passed = 0 THEN seconds_each ELSE
                (SELECT coalesce(seconds_each + (1 - power(0.9, least(passed, 100))) * (pace - seconds_each), pace)
                 FROM (SELECT extract(epoch FROM clock_timestamp() - moved_at)::float8 / passed AS pace) p) END,
            moved_at = CASE WHEN passed = 0 THEN moved_at ELSE clock_timestamp() END
        FROM told v WHERE id = v.queue AND id = ANY (ARRAY (SELECT id FROM mine))
        RETURNING id, published_seq, state, paused, claimed_at
    ), outcome AS MATERIALIZED (
        SELECT r.id, v.* FROM json_to_recordset(%(outcomes)s::json) AS v (
            queue bigint, seq bigint, status text, result text, error text, attempt int, outcome text,
            started_at timestamptz, finished_at timestamptz, traceback text)
        CROSS JOIN LATERAL (SELECT id FROM queues_request WHERE queue_id = v.queue AND seq = v.seq LIMIT 1) r
        WHERE v.queue = ANY (ARRAY (SELECT id FROM queue))
    ), recorded AS (
        UPDATE queues_request r SET
            status = v.status, result = v.result::json, error = v.error::json, attempt = v.attempt,
            bytes = r.bytes + coalesce(octet_length(v.result), 0), started_at = coalesce(r.started_at, v.started_at),
            finished_at = CASE WHEN v.status = 'retrying' THEN NULL ELSE v.finished_at END
        FROM outcome v WHERE r.id = v.id AND r.finished_at IS NULL
          AND r.id = ANY (ARRAY (SELECT id FROM outcome)) -- bounds the scan, whatever join is planned
        RETURNING r.id
    ), attempt AS (
        INSERT INTO queues_attempt (request_id, number, started_at, finished_at, outcome, error, traceback)
        SELECT recorded.id, v.attempt, v.started_at, v.finished_at, v.outcome, v.error::json, v.traceback
        FROM outcome v JOIN recorded USING (id)
        WHERE v.outcome IS NOT NULL AND (v.attempt > 1 OR v.outcome <> 'succeeded')
    )
    SELECT told.queue, queue.published_seq AS published, queue.state, queue.paused, queue.claimed_at AS since,
           queue.id IS NOT NULL AS recorded, q.left_out
    FROM told LEFT JOIN queue ON queue.id = told.queue
    LEFT JOIN LATERAL (
        SELECT true AS left_out FROM queues_userqueue
        WHERE id = told.queue AND queue.id IS NULL AND fence = told.fence AND state = 'draining'
          AND done_seq = told.done LIMIT 1) q ON true
"""

RECORD = Statement(_RECORD.format(wait=""))

# It waits for no queue's lock: nothing is written of one that is `left_out`, and the others' are.
RECORD_TOGETHER = Statement(_RECORD.format(wait="SKIP LOCKED"))

# The leases in a process's name, with their age. Reads only the partial index of active queues.
HELD = Statement("""
    SELECT id, fence, extract(epoch FROM clock_timestamp() - state_since)::float8 AS age
    FROM queues_userqueue WHERE active AND state = 'draining' AND holder = %(holder)s
""")

# Those of them that the process does not know: an answer was lost, or came too late. Others may have them.
GIVE_BACK = Statement("""
    UPDATE queues_userqueue SET state = 'ready', state_since = now(), claimed = 0
    WHERE id IN (
        SELECT q.id FROM json_to_recordset(%(unknown)s::json) AS v (id bigint, fence bigint)
        JOIN queues_userqueue q ON q.id = v.id AND q.fence = v.fence
        WHERE q.state = 'draining' AND q.holder = %(holder)s
        ORDER BY q.id FOR NO KEY UPDATE OF q SKIP LOCKED)
    RETURNING id, NOT paused AS wants_token
""")

# Where a lease stands whose holder is not sure. No row: fenced out.
LEASED = Statement("""
    SELECT done_seq, published_seq, state, paused, claimed_at AS since FROM queues_userqueue
    WHERE id = %(queue)s AND fence = %(fence)s
""")

# The first attempt is given back with its queue; to whoever looked on, it had begun.
KEEP_BEGINNING = Statement("""
    UPDATE queues_request SET started_at = %(began)s
    WHERE id = %(request)s AND started_at IS NULL AND finished_at IS NULL
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
           EXISTS (SELECT FROM queues_request r WHERE r.queue_id = q.id AND r.seq = held.seq
                   AND r.cancel_asked_at IS NOT NULL) AS cancelled
    FROM held JOIN queues_userqueue q ON q.id = held.id AND q.fence = held.fence AND q.state = 'draining'
""")

# Draining, but its holder was silent for longer than its lease, or seems dead: its session-level advisory lock is free.
# (Shortly after a restart of PostgreSQL nobody has had time to take theirs again.)
DEAD_LEASES = Statement("""
    SELECT id, fence, lease_until < clock_timestamp() AS expired FROM queues_userqueue
    WHERE active AND state = 'draining' AND id %% %(shards)s = %(shard)s
      AND (lease_until < clock_timestamp() OR pg_postmaster_start_time() < now() - interval '5 s' AND NOT EXISTS (
          SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = %(lock_class)s AND l.objsubid = 2
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.objid::bigint = queues_userqueue.holder))
    LIMIT %(count)s
""")

# Waiting, and its moment has come: ready, for a token.
WAKE = Statement("""
    UPDATE queues_userqueue SET state = 'ready', state_since = now(), wake_at = NULL
    WHERE id IN (SELECT id FROM queues_userqueue WHERE wake_at <= now() AND id %% %(shards)s = %(shard)s
                 ORDER BY wake_at LIMIT %(count)s FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING id, NOT paused AS woken
""")

# Scheduled, and due: into line, in the order of their moments. Locked ones are passed over before they are counted:
# however many one locked queue has, they keep out nobody else's.
PROMOTE_SCHEDULED = Statement("""
    WITH due AS MATERIALIZED (
        SELECT id, queue_id, row_number() OVER (PARTITION BY queue_id ORDER BY due_at, id) AS place
        FROM (SELECT r.id, r.queue_id, r.due_at FROM queues_request r JOIN queues_userqueue q ON q.id = r.queue_id
              WHERE r.due_at <= now() AND r.queue_id %% %(shards)s = %(shard)s
              ORDER BY r.due_at LIMIT %(count)s
              FOR NO KEY UPDATE OF q SKIP LOCKED FOR NO KEY UPDATE OF r SKIP LOCKED) locked
    ), queue AS (
        UPDATE queues_userqueue q SET last_seq = last_seq + n.places
        FROM (SELECT queue_id, count(*) AS places FROM due GROUP BY queue_id) n
        WHERE q.id = n.queue_id
        RETURNING q.id, q.user_id, q.last_seq - n.places AS before
    )
    UPDATE queues_request r SET seq = queue.before + due.place, status = 'queued'
    FROM due JOIN queue ON queue.id = due.queue_id WHERE r.id = due.id
    RETURNING r.id, r.queue_id, queue.user_id, r.seq, r.kind, r.trace
""")

# The longest ready, whose tokens may be lost. They get others, and are looked at again only after as long.
STALE_READY = Statement("""
    UPDATE queues_userqueue SET state_since = now()
    WHERE id IN (SELECT id FROM queues_userqueue
                 WHERE active AND state = 'ready' AND NOT paused AND id %% %(shards)s = %(shard)s
                   AND state_since < now() - make_interval(secs => %(seconds)s)
                 ORDER BY state_since LIMIT %(count)s FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING id
""")

# Idle for long: RabbitMQ need not keep a queue for them.
DELETE_IDLE_QUEUES = Statement("""
    UPDATE queues_userqueue SET idle_since = NULL
    WHERE id IN (SELECT id FROM queues_userqueue
                 WHERE idle_since < now() - make_interval(secs => %(seconds)s) AND id %% %(shards)s = %(shard)s
                 ORDER BY idle_since LIMIT %(count)s FOR NO KEY UPDATE SKIP LOCKED)
      AND state = 'idle'
    RETURNING id, generation
""")
