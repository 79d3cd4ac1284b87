"""Who may run of a kind that is limited or paused. Each decision is one statement that sees all of one moment, and
counts only if nobody decided about that kind meanwhile: `version` says so. Of two at once one decides again.

What runs is what has a permit whose lease lives and whose request is not recorded. RECORD, a crash, whatever ends the
lease ends the permit too: nothing has to give it back.
"""

from queues.sql.statement import Statement

CALLED_SECONDS = 5  # who was called and has not come by then is not waited for; when it comes it is first in line

# As it is when the statement begins, and whether it still is: nobody waits for whoever has it locked.
_KIND = """
    kind AS MATERIALIZED (
        SELECT kind, version, starts, paused, most, rate_most, rate_seconds
        FROM queues_kindlimit WHERE kind = %(kind)s
    ), newest AS MATERIALIZED (
        SELECT version FROM queues_kindlimit WHERE kind = %(kind)s FOR NO KEY UPDATE SKIP LOCKED
    )"""

# How many others run, and how many are called and soon here.
_TAKEN = f"""
    taken AS MATERIALIZED (
        SELECT count(*) FILTER (WHERE p.fence IS NOT NULL) AS running, count(*) FILTER (WHERE p.fence IS NULL) AS called
        FROM queues_permit p CROSS JOIN LATERAL (SELECT * FROM queues_userqueue WHERE id = p.queue_id LIMIT 1) q
        WHERE (SELECT most IS NOT NULL OR rate_most IS NOT NULL FROM kind)
          AND p.kind = %(kind)s AND p.called_at IS NOT NULL AND p.queue_id <> %(queue)s
          AND CASE WHEN p.fence IS NULL
              THEN q.done_seq + 1 = p.seq AND p.called_at > clock_timestamp() - interval '{CALLED_SECONDS} s'
              ELSE q.fence = p.fence AND q.state = 'draining' AND q.done_seq < p.seq
                   AND q.lease_until > clock_timestamp() END
    )"""  # noqa: S608  # of constants

# A permit for the request that its worker is about to run, or its place in its kind's line. Who is called has its
# permit kept; others have one if more are free than are called, and nobody waits who came first. The n-th start under
# a rate may be when the one `rate_most` before it is older than the window. The request's row is locked: a cancel
# comes before this, and is seen, or after it, and finds the place in line.
TAKE = Statement(f"""
    WITH {_KIND}, lease AS MATERIALIZED (
        SELECT id FROM queues_userqueue
        WHERE id = %(queue)s AND fence = %(fence)s AND state = 'draining' AND done_seq < %(seq)s
    ), head AS MATERIALIZED (
        SELECT cancel_asked_at IS NOT NULL AS cancelled FROM queues_request
        WHERE queue_id = (SELECT id FROM lease) AND seq >= %(seq)s AND seq <= %(seq)s
        ORDER BY seq LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ), mine AS MATERIALIZED (
        SELECT since, called_at IS NOT NULL AS called,
               coalesce(called_at > clock_timestamp() - interval '{CALLED_SECONDS} s', false) AS kept
        FROM queues_permit WHERE queue_id = %(queue)s AND kind = %(kind)s AND seq = %(seq)s AND fence IS NULL
    ), unlocked AS MATERIALIZED (
        SELECT FROM queues_permit WHERE queue_id = %(queue)s FOR NO KEY UPDATE SKIP LOCKED
    ), {_TAKEN}, first AS MATERIALIZED (
        SELECT p.since, p.queue_id FROM queues_permit p CROSS JOIN LATERAL (
            SELECT FROM queues_userqueue WHERE id = p.queue_id AND done_seq + 1 = p.seq LIMIT 1) q
        WHERE p.kind = %(kind)s AND p.called_at IS NULL AND p.queue_id <> %(queue)s
        ORDER BY p.since, p.queue_id LIMIT 1
    ), asked AS MATERIALIZED (
        SELECT kind.*, CASE
            WHEN kind.paused THEN 'paused'
            WHEN taken.running >= kind.most THEN 'max_concurrency'
            WHEN EXISTS (SELECT FROM queues_kindstart s WHERE s.kind = kind.kind AND s.n = starts + 1 - rate_most
                         AND s.at > clock_timestamp() - make_interval(secs => rate_seconds)) THEN 'rate'
            WHEN mine.kept THEN NULL
            WHEN taken.running + taken.called >= kind.most THEN 'max_concurrency'
            WHEN taken.called >= rate_most OR EXISTS (
                SELECT FROM queues_kindstart s
                WHERE s.kind = kind.kind AND s.n = starts + 1 + taken.called - rate_most
                AND s.at > clock_timestamp() - make_interval(secs => rate_seconds)) THEN 'rate'
            WHEN mine.called THEN NULL
            WHEN (first.since, first.queue_id) < (coalesce(mine.since, clock_timestamp()), %(queue)s) THEN 'others'
        END AS refused
        FROM kind CROSS JOIN taken LEFT JOIN mine ON true LEFT JOIN first ON true
    ), decided AS (
        UPDATE queues_kindlimit k SET version = k.version + 1,
            starts = k.starts + (asked.refused IS NULL AND asked.rate_most IS NOT NULL)::int
        FROM asked JOIN newest USING (version) WHERE k.kind = asked.kind
          AND EXISTS (SELECT FROM head WHERE NOT cancelled)
          AND (EXISTS (SELECT FROM unlocked) OR NOT EXISTS (SELECT FROM queues_permit WHERE queue_id = %(queue)s))
        RETURNING k.kind, k.starts, asked.rate_most, asked.refused
    ), started AS (
        INSERT INTO queues_kindstart (kind, n, at)
        SELECT kind, starts, clock_timestamp() FROM decided WHERE refused IS NULL AND rate_most IS NOT NULL
    ), permit AS (
        INSERT INTO queues_permit AS p (queue_id, kind, seq, fence, since, called_at)
        SELECT %(queue)s, kind, %(seq)s, CASE WHEN refused IS NULL THEN %(fence)s::bigint END, clock_timestamp(),
               CASE WHEN refused IS NULL THEN clock_timestamp() END
        FROM decided
        ON CONFLICT (queue_id) DO UPDATE SET kind = excluded.kind, seq = excluded.seq, fence = excluded.fence,
            called_at = excluded.called_at,
            since = CASE WHEN p.kind = excluded.kind AND p.seq = excluded.seq AND p.fence IS NULL THEN p.since
                         ELSE excluded.since END
    )
    SELECT EXISTS (SELECT FROM lease) AS leased, EXISTS (SELECT FROM kind) AS known,
           coalesce((SELECT cancelled FROM head), false) AS cancelled,
           EXISTS (SELECT FROM decided) AS decided, (SELECT refused FROM decided) AS refused
""")  # noqa: S608  # of constants

# The kinds that somebody waits for and that are not paused.
WAITED_FOR = Statement("""
    SELECT k.kind FROM queues_kindlimit k
    WHERE NOT k.paused AND EXISTS (SELECT FROM queues_permit p WHERE p.kind = k.kind AND p.called_at IS NULL)
""")

# As many as there are permits free, who waited longest first. What is locked, or not there yet, is passed over and
# keeps its place. Where there is no limit any more, nobody needs a permit kept; nor does one whose owner paused it: it
# goes on too, and asks again when it is resumed.
CALL = Statement(f"""
    WITH {_KIND}, {_TAKEN}, room AS MATERIALIZED (
        SELECT kind.kind, kind.version, least(%(count)s, most - taken.running - taken.called, CASE
            WHEN rate_most IS NOT NULL THEN (
                SELECT count(*) FROM generate_series(1, least(rate_most, %(count)s + taken.called)) next
                WHERE NOT EXISTS (SELECT FROM queues_kindstart s WHERE s.kind = kind.kind
                                  AND s.n = starts + next - rate_most
                                  AND s.at > clock_timestamp() - make_interval(secs => rate_seconds))) - taken.called
            END) AS free
        FROM kind CROSS JOIN taken WHERE NOT kind.paused
    ), decided AS (
        UPDATE queues_kindlimit k SET version = k.version + 1 FROM room JOIN newest USING (version)
        WHERE k.kind = room.kind AND room.free > 0 RETURNING room.free
    ), front AS MATERIALIZED (
        SELECT queue_id, seq, since FROM queues_permit
        WHERE kind = %(kind)s AND called_at IS NULL AND EXISTS (SELECT FROM decided)
        ORDER BY since, queue_id LIMIT %(count)s + %(count)s
    ), first AS MATERIALIZED (
        SELECT q.id, q.paused OR (SELECT most IS NULL AND rate_most IS NULL FROM kind) AS free
        FROM front JOIN queues_userqueue q ON q.id = front.queue_id JOIN queues_permit p ON p.queue_id = front.queue_id
        WHERE q.id = ANY (ARRAY (SELECT queue_id FROM front)) -- bounds the scans, whatever joins are planned
          AND p.queue_id = ANY (ARRAY (SELECT queue_id FROM front)) AND p.seq = front.seq AND p.called_at IS NULL
          AND q.state = 'waiting' AND q.wake_at > %(held)s AND q.done_seq + 1 = front.seq
        ORDER BY front.since, front.queue_id LIMIT (SELECT free FROM decided) FOR NO KEY UPDATE OF q, p SKIP LOCKED
    ), woken AS (
        UPDATE queues_userqueue SET wake_at = now() WHERE id = ANY (ARRAY (SELECT id FROM first))
    ), called AS (
        UPDATE queues_permit SET called_at = clock_timestamp()
        WHERE queue_id = ANY (ARRAY (SELECT id FROM first WHERE NOT free)) AND called_at IS NULL
    ), passed AS (
        DELETE FROM queues_permit
        WHERE queue_id = ANY (ARRAY (SELECT id FROM first WHERE free)) AND called_at IS NULL
    )
    SELECT (SELECT count(*) FROM first) AS called, (SELECT count(*) FROM first WHERE free) AS passed,
           (SELECT count(*) FROM front) AS looked, free FROM decided
""")  # noqa: S608  # of constants

# Of the first in line those whose owners paused them, all at once: behind them permits are free and others wait.
PASS_PAUSED = Statement("""
    WITH front AS MATERIALIZED (
        SELECT queue_id FROM queues_permit WHERE kind = %(kind)s AND called_at IS NULL
        ORDER BY since, queue_id LIMIT %(count)s
    ), paused AS MATERIALIZED (
        SELECT q.id FROM queues_permit p JOIN queues_userqueue q ON q.id = p.queue_id
        WHERE q.id = ANY (ARRAY (SELECT queue_id FROM front)) AND p.queue_id = ANY (ARRAY (SELECT queue_id FROM front))
          AND p.called_at IS NULL AND q.paused
          AND q.state = 'waiting' AND q.wake_at > %(held)s AND q.done_seq + 1 = p.seq
        FOR NO KEY UPDATE OF q, p SKIP LOCKED
    ), woken AS (
        UPDATE queues_userqueue SET wake_at = now() WHERE id = ANY (ARRAY (SELECT id FROM paused))
    )
    DELETE FROM queues_permit WHERE queue_id = ANY (ARRAY (SELECT id FROM paused)) AND called_at IS NULL
""")

# Whose place in line is of a request that is over: cancelled, expired, purged, or its user was erased.
DROP_GONE = Statement("""
    DELETE FROM queues_permit WHERE queue_id IN (
        SELECT p.queue_id FROM queues_permit p
        LEFT JOIN LATERAL (SELECT id, done_seq FROM queues_userqueue WHERE id = p.queue_id LIMIT 1) q ON true
        WHERE p.queue_id = ANY (ARRAY (
                  SELECT queue_id FROM queues_permit WHERE kind = %(kind)s AND called_at IS NULL
                  ORDER BY since, queue_id LIMIT %(count)s))
          AND p.called_at IS NULL AND (q.id IS NULL OR q.done_seq >= p.seq)
        FOR UPDATE OF p SKIP LOCKED)
    RETURNING queue_id
""")

# The same of one queue, whose head somebody gives up now.
DROP = Statement("DELETE FROM queues_permit WHERE queue_id = %(queue)s AND seq <= %(done)s")

# The same of some queues, whose heads have expired. What is locked is dropped later, as what is over or gone.
DROP_OF = Statement("""
    DELETE FROM queues_permit WHERE queue_id IN (
        SELECT p.queue_id FROM queues_permit p JOIN queues_userqueue q ON q.id = p.queue_id
        WHERE p.queue_id = ANY (%(queues)s::bigint[]) AND p.seq <= q.done_seq FOR UPDATE OF p SKIP LOCKED)
""")

# Permits that are over. A row that is taken anew meanwhile has a newer fence or number than the queue has here.
DROP_OVER = Statement("""
    DELETE FROM queues_permit WHERE queue_id IN (
        SELECT p.queue_id FROM queues_permit p
        LEFT JOIN LATERAL (SELECT * FROM queues_userqueue WHERE id = p.queue_id LIMIT 1) q ON true
        WHERE p.called_at IS NOT NULL AND (q.id IS NULL OR q.done_seq >= p.seq OR p.fence < q.fence
                                           OR p.fence = q.fence AND q.state <> 'draining')
        LIMIT %(count)s FOR UPDATE OF p SKIP LOCKED)
""")

# Starts that count no more.
DROP_STARTS = Statement("""
    DELETE FROM queues_kindstart s USING queues_kindlimit k
    WHERE s.kind = k.kind AND s.n <= k.starts - coalesce(k.rate_most, 0)
""")

# It was called, or is to be cancelled, while its worker set it aside: it wakes at once.
WAKE_CALLED = Statement("""
    UPDATE queues_userqueue SET wake_at = now() WHERE id IN (
        SELECT q.id FROM queues_permit p JOIN queues_userqueue q ON q.id = p.queue_id
        WHERE p.called_at IS NOT NULL AND p.fence IS NULL AND q.state = 'waiting' AND q.wake_at > %(held)s
        FOR NO KEY UPDATE OF q SKIP LOCKED)
""")

# Held back without a place in line: a hand was in the tables. It asks again.
WAKE_FORGOTTEN = Statement("""
    UPDATE queues_userqueue SET wake_at = now() WHERE id IN (
        SELECT q.id FROM queues_userqueue q
        WHERE q.wake_at > %(held)s AND NOT EXISTS (
            SELECT FROM queues_permit p WHERE p.queue_id = q.id AND p.seq = q.done_seq + 1 AND p.fence IS NULL)
        LIMIT %(count)s FOR NO KEY UPDATE SKIP LOCKED)
""")

# The request of this queue that is being set aside now is to be cancelled: its place in line is called.
LET_GO = Statement("""
    UPDATE queues_permit SET called_at = clock_timestamp()
    WHERE queue_id = %(queue)s AND seq = %(seq)s AND fence IS NULL AND called_at IS NULL
""")
