"""The dispatcher's statements: what to publish, what to wake, what to repair; as `protocol.py` says."""

from queues.sql.statement import Statement

# What RabbitMQ lacks of some queues: the requests behind published_seq. Reads only the partial index of such queues.
UNPUBLISHED = Statement("""
    SELECT id, generation, published_seq, last_seq FROM queues_userqueue
    WHERE unpublished AND id %% %(shards)s = %(shard)s AND id > %(after)s AND id <> ALL (%(but)s::bigint[])
    ORDER BY id LIMIT %(queues)s
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

# Draining, but its holder was silent for longer than its lease, or seems dead: its session-level advisory lock is free.
# (Shortly after a restart of PostgreSQL nobody has had time to take theirs again.)
DEAD_LEASES = Statement("""
    SELECT id, fence, worker_id, lease_until < clock_timestamp() AS expired FROM queues_userqueue
    WHERE active AND state = 'draining' AND id %% %(shards)s = %(shard)s
      AND (lease_until < clock_timestamp() OR pg_postmaster_start_time() < now() - interval '5 s' AND NOT EXISTS (
          SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = %(lock_class)s AND l.objsubid = 2
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.objid::bigint = queues_userqueue.worker_id))
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

# Idle for long, and not among the `kept` that became idle last: RabbitMQ need not keep a queue for them. Nor for those
# that were renamed: earlier names may still be there, which nobody else deletes if the dispatcher that knew them died.
DELETE_IDLE_QUEUES = Statement("""
    UPDATE queues_userqueue SET idle_since = NULL
    WHERE id IN (SELECT id FROM queues_userqueue
                 WHERE idle_since < now() - make_interval(secs => %(seconds)s) AND id %% %(shards)s = %(shard)s
                   AND (generation > 0 OR idle_since <= (
                       SELECT idle_since FROM queues_userqueue WHERE idle_since IS NOT NULL
                       ORDER BY idle_since DESC OFFSET %(kept)s LIMIT 1))
                 ORDER BY idle_since LIMIT %(count)s FOR NO KEY UPDATE SKIP LOCKED)
      AND state = 'idle'
    RETURNING id, generation
""")
