"""What is deleted or compared in parts, beside the work."""

from queues.sql.statement import Statement

# Along the primary key, which is ordered by time. One ahead of its queue's head is final, but not passed over yet.
OLD_REQUESTS = Statement("""
    SELECT r.id FROM queues_request r JOIN queues_userqueue q ON q.id = r.queue_id
    WHERE r.id > %(after)s AND r.id < %(bound)s AND r.status = ANY(%(statuses)s) AND r.finished_at < %(before)s
      AND (r.seq IS NULL OR r.seq <= q.done_seq)
    ORDER BY r.id LIMIT %(count)s
""")

# The next requests in the order in which they were accepted, and which of them are to go: however many are not, no more
# than a page is read. What somebody has locked stays for another time.
RETENTION_PAGE = Statement("""
    WITH page AS MATERIALIZED (
        SELECT id FROM queues_request WHERE id > %(after)s AND id < %(bound)s ORDER BY id LIMIT %(count)s
    ), old AS (
        SELECT r.id FROM page JOIN queues_request r ON r.id = page.id JOIN queues_userqueue q ON q.id = r.queue_id
        WHERE r.status = ANY(%(statuses)s) AND r.finished_at < %(before)s AND (r.seq IS NULL OR r.seq <= q.done_seq)
        FOR UPDATE OF r SKIP LOCKED
    )
    SELECT page.id, old.id IS NOT NULL AS old FROM page LEFT JOIN old ON old.id = page.id ORDER BY page.id
""")

# In parts that lock few rows; any number of processes may do so at once.
DELETE_OLD_ACTIONS = Statement("""
    DELETE FROM queues_operatoraction WHERE id IN (
        SELECT id FROM queues_operatoraction WHERE at < %(before)s ORDER BY at LIMIT %(count)s FOR UPDATE SKIP LOCKED)
    RETURNING id
""")

# As the commands, in parts.
DELETE_OLD_BULK_ACTIONS = Statement("""
    DELETE FROM queues_bulkaction WHERE id IN (
        SELECT id FROM queues_bulkaction WHERE finished_at < %(before)s LIMIT %(count)s FOR UPDATE SKIP LOCKED)
    RETURNING id
""")

# In one statement, so that what is compared is of one moment. Queues at rest are looked at only if `all`.
COMPARE_COUNTERS = Statement("""
    SELECT q.id, q.done_seq, q.last_seq, q.last_seq - q.done_seq AS owed, ahead.rows, ahead.newest,
           q.given_up_ahead, ahead.final, behind.rows AS passed, behind.first, q.bytes_stored, CASE WHEN %(all)s THEN (
               SELECT coalesce(sum(r.bytes), 0) FROM queues_request r WHERE r.queue_id = q.id) END AS kept
    FROM queues_userqueue q CROSS JOIN LATERAL (
        SELECT count(*) AS rows, coalesce(max(r.seq), q.done_seq) AS newest, count(r.finished_at) AS final
        FROM queues_request r WHERE r.queue_id = q.id AND r.seq > q.done_seq) ahead
    CROSS JOIN LATERAL (
        SELECT count(*) AS rows, (array_agg(r.id ORDER BY r.seq))[1] AS first FROM queues_request r
        WHERE r.queue_id = q.id AND r.seq <= q.done_seq AND r.finished_at IS NULL
          AND r.seq > q.done_seq - %(look_back)s) behind
    WHERE q.id > %(after)s AND (q.active OR q.unpublished OR %(all)s) ORDER BY q.id LIMIT %(count)s
""")

# What workers have claimed of a kind that gets its first limit counts as running.
ADOPT = Statement("""
    INSERT INTO queues_permit AS p (queue_id, kind, seq, fence, since, called_at)
    SELECT q.id, %(kind)s, claim.seq, q.fence, clock_timestamp(), clock_timestamp()
    FROM queues_userqueue q CROSS JOIN LATERAL (
        SELECT max(r.seq) AS seq FROM queues_request r
        WHERE r.queue_id = q.id AND r.seq > q.done_seq AND r.seq <= q.done_seq + q.claimed
          AND r.kind = %(kind)s AND r.finished_at IS NULL) claim
    WHERE q.active AND q.state = 'draining' AND claim.seq IS NOT NULL
    ON CONFLICT (queue_id) DO UPDATE SET kind = excluded.kind, seq = excluded.seq, fence = excluded.fence,
        called_at = excluded.called_at
    WHERE p.seq < excluded.seq
    RETURNING queue_id
""")
