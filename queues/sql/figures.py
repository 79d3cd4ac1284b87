"""What operators, the metrics and the board are shown of all queues. Each reads only what is not at rest."""

from queues.sql.definitions import BEGUN_TO, DEPTH, FINISHED_LATELY, HELD_BACK, OLDEST_WAITING
from queues.sql.statement import Statement

# Through the two partial indexes of the queue table; each queue's head in the index of its requests: the limits keep
# the planner from reading that table as a whole.
BY_STATE = Statement(f"""
    WITH queue AS MATERIALIZED (
        SELECT id, state, paused, last_seq, published_seq, done_seq, {DEPTH} AS depth,
               -- When one last began or ended. What was put off claims nothing; what only woke up moved at that moment.
               CASE WHEN state = 'draining' AND claimed > 0 THEN coalesce(claimed_at, state_since)
                    WHEN state IN ('ready', 'blocked') AND moved_at <> state_since THEN moved_at END AS began_at,
               {HELD_BACK} AS held_back
        FROM queues_userqueue q WHERE active
        UNION ALL
        SELECT id, state, paused, last_seq, published_seq, done_seq, {DEPTH}, NULL, false
        FROM queues_userqueue q WHERE unpublished AND NOT active
    )
    SELECT q.state, q.paused, q.held_back, count(*) AS queues, sum(q.depth)::bigint AS depth,
           max(q.depth) AS deepest, sum(q.last_seq - q.published_seq)::bigint AS unpublished,
           extract(epoch FROM clock_timestamp() - max(q.began_at))::float8 AS last_began,
           extract(epoch FROM clock_timestamp() - min(waiting.since))::float8 AS oldest_waiting,
           extract(epoch FROM clock_timestamp() - min(owed.since))::float8 AS oldest_unpublished
    FROM queue q
    LEFT JOIN LATERAL ({OLDEST_WAITING}) waiting ON true
    LEFT JOIN LATERAL (
        SELECT greatest(r.created_at, r.not_before) AS since FROM queues_request r
        WHERE q.published_seq < q.last_seq AND r.queue_id = q.id AND r.seq = q.published_seq + 1
        LIMIT 1) owed ON true
    GROUP BY q.state, q.paused, q.held_back
""")  # noqa: S608  (constants)

# The same of each queue that the ORM lists: a template whose expressions are the queue's id, done_seq and state.
OLDEST_WAITING_OF = f"""(
    SELECT waiting.since
    FROM (SELECT %(expressions)s) q (id, done_seq, state) CROSS JOIN LATERAL ({OLDEST_WAITING}) waiting
)"""  # noqa: S608  (constants)

# What each of a few queues finished in the last minute.
THROUGHPUT_OF = Statement(f"""
    SELECT q.id, lately.outcomes, lately.seconds
    FROM queues_userqueue q CROSS JOIN LATERAL ({FINISHED_LATELY}) lately WHERE q.id = ANY (%(queues)s::bigint[])
""")  # noqa: S608  (constants)

# Each that wrote, or reads by its snapshot: while it is open no version of a row that died since is pruned, and leases
# and records leave many. VACUUM's own is no such one. Of other roles' sessions only pg_read_all_stats shows the times.
OPEN_TRANSACTIONS = """
    SELECT pid, usename, application_name, state,
           extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
    FROM pg_stat_activity a
    WHERE datname = current_database() AND backend_type = 'client backend' AND xact_start IS NOT NULL
      AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)
      AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum v WHERE v.pid = a.pid)
"""

# Those older than so many seconds, the oldest first, each with what an operator types.
LONG_TRANSACTIONS = Statement(f"""
    SELECT *, 'SELECT pg_terminate_backend(' || pid || ')' AS ended_by
    FROM ({OPEN_TRANSACTIONS}) t WHERE seconds > %(seconds)s ORDER BY seconds DESC
""")  # noqa: S608  (constants)

# What else the dispatcher may be behind with, and who is alive: each leader has a lease. Each worker process has a
# lock, and its session asks something four times a second; a frozen one does not.
CLUSTER_STATUS = Statement(f"""
    WITH held AS MATERIALIZED (
        SELECT l.classid::bigint, l.objid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND a.state_change > clock_timestamp() - make_interval(secs => %(silent)s))
    SELECT (SELECT count(*) FROM queues_userqueue WHERE paused) AS paused,
           extract(epoch FROM now() - (SELECT min(due_at) FROM queues_request WHERE due_at <= now()))::float8
               AS oldest_due,
           extract(epoch FROM now() - (SELECT min(wake_at) FROM queues_userqueue WHERE wake_at <= now()))::float8
               AS oldest_wake,
           (SELECT count(*) FROM queues_leadership WHERE shard < %(shards)s AND lead_until > clock_timestamp())
               AS dispatchers,
           (SELECT count(DISTINCT objid) FROM held WHERE classid = %(workers)s) AS workers,
           (SELECT max(seconds) FROM ({OPEN_TRANSACTIONS}) t) AS oldest_transaction
""")  # noqa: S608  (constants)

# What each worker process runs now: the leases held longest, and no more than the board shows.
LEASES_HELD = Statement("""
    SELECT q.worker_id, q.id AS queue_id, u.username, r.id, r.kind, q.claimed,
           extract(epoch FROM now() - coalesce(q.claimed_at, q.state_since))::float AS seconds
    FROM (SELECT * FROM queues_userqueue WHERE active AND state = 'draining'
          ORDER BY coalesce(claimed_at, state_since) LIMIT %(most)s) q
    JOIN accounts_user u ON u.id = q.user_id
    LEFT JOIN queues_request r ON r.queue_id = q.id AND r.seq = q.done_seq + 1
    ORDER BY q.worker_id, seconds DESC
""")

# What has no final status, and how many of these wait. Through the partial indexes of active queues and of scheduled
# requests: what is finished is not read.
KINDS_IN_USE = Statement(f"""
    SELECT kind, version, count(*) AS unfinished, count(*) FILTER (WHERE waits) AS waiting,
           count(DISTINCT queue_id) AS users, min(created_at) AS oldest FROM (
        SELECT r.kind, r.version, r.queue_id, r.created_at, r.seq > {BEGUN_TO} AS waits
        FROM (SELECT id, done_seq, state FROM queues_userqueue WHERE active
              UNION SELECT id, done_seq, state FROM queues_userqueue WHERE unpublished) q
        JOIN queues_request r ON r.queue_id = q.id AND r.seq > q.done_seq AND r.finished_at IS NULL
        UNION ALL
        SELECT kind, version, queue_id, created_at, true FROM queues_request WHERE due_at IS NOT NULL
    ) v GROUP BY kind, version ORDER BY kind, version
""")  # noqa: S608  (constants)

# Through the index on (kind, id), so that ten million finished requests cost nothing. The newest are cut off first:
# those that still wait are passed over only after that, or a deep backlog would be read to its end.
PERCENTILES = Statement("""
    SELECT k.kind, count(*) AS requests,
           percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY waited) AS waited,
           percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY ran) AS ran
    FROM unnest(%(kinds)s::text[]) k (kind)
    CROSS JOIN LATERAL (
        SELECT extract(epoch FROM started_at - greatest(created_at, not_before)) AS waited,
               extract(epoch FROM finished_at - started_at) AS ran
        FROM (SELECT created_at, not_before, started_at, finished_at FROM queues_request
              WHERE kind = k.kind AND id > %(first)s ORDER BY id DESC LIMIT %(newest)s) newest
        WHERE started_at IS NOT NULL AND finished_at IS NOT NULL) ended
    GROUP BY k.kind ORDER BY count(*) DESC, k.kind
""")

# Every kind with its limits here, how many of it run and wait (10,001: more than 10,000), and for how long the first in
# line has waited.
KINDS_AT_WORK = Statement("""
    SELECT k.kind, k.most, k.rate_most, k.rate_seconds, k.paused, k.paused_by,
           k.max_concurrency IS NOT NULL OR k.rate IS NOT NULL AS set_here,
           k.paused OR k.most IS NOT NULL OR k.rate_most IS NOT NULL AS limited,
           (SELECT count(*) FROM queues_permit p
            CROSS JOIN LATERAL (SELECT * FROM queues_userqueue WHERE id = p.queue_id LIMIT 1) q
            WHERE p.kind = k.kind AND p.called_at IS NOT NULL AND p.fence = q.fence AND q.state = 'draining'
              AND q.done_seq < p.seq) AS running,
           (SELECT count(*) FROM (SELECT FROM queues_permit p WHERE p.kind = k.kind AND p.called_at IS NULL
                                  LIMIT 10001) first) AS waiting,
           extract(epoch FROM clock_timestamp() - (
               SELECT p.since FROM queues_permit p WHERE p.kind = k.kind AND p.called_at IS NULL
               ORDER BY p.since LIMIT 1))::float8 AS oldest
    FROM queues_kindlimit k ORDER BY k.kind
""")
