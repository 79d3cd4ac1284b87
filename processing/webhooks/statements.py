"""The SQL that moves messages on, by name. None waits for a locked row but those that hold it already.

Times are the database's. Who sends holds a lease: only the newest one records.
"""

from queues.sql.statement import Statement

# Webhooks that have new messages, each found by one step in the index, from `after` on.
FRESH = Statement("""
    WITH RECURSIVE fresh (id) AS (
        (SELECT webhook_id FROM webhooks_delivery WHERE NOT announced AND webhook_id > %(after)s
         ORDER BY webhook_id LIMIT 1)
        UNION ALL
        SELECT (SELECT d.webhook_id FROM webhooks_delivery d WHERE NOT d.announced AND d.webhook_id > fresh.id
                ORDER BY d.webhook_id LIMIT 1)
        FROM fresh WHERE fresh.id IS NOT NULL
    )
    SELECT id FROM fresh WHERE id IS NOT NULL LIMIT %(count)s
""")

# Whoever takes away a due_at holds this lock, too: a message is announced before or after, never in between. What is
# looked at is set, not asked for in the WHERE: that would be asked of the row as it was before the lock was had.
# A webhook is due with the first message that is announced, so the others may wait: `each` are announced at once, and
# no backlog takes longer than a statement may. Of one that had nothing pending the time of failing begins anew.
ANNOUNCE = Statement("""
    WITH hook AS MATERIALIZED (
        SELECT id FROM webhooks_webhook WHERE id = ANY (%(ids)s::uuid[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    ), woken AS (
        UPDATE webhooks_webhook SET due_at = CASE WHEN enabled THEN coalesce(due_at, clock_timestamp()) END,
            failing_since = CASE WHEN due_at IS NOT NULL OR NOT enabled THEN failing_since END
        WHERE id IN (SELECT id FROM hook)
    )
    UPDATE webhooks_delivery SET announced = true
    WHERE id = ANY (ARRAY (
        SELECT d.id FROM hook CROSS JOIN LATERAL (
            SELECT id FROM webhooks_delivery WHERE webhook_id = hook.id AND NOT announced
            LIMIT %(each)s FOR NO KEY UPDATE SKIP LOCKED) d))
""")

# Who may be sent to, the longest due first; `full` are the queues of users who have their share of the threads. now()
# and not clock_timestamp(), or the index would be read beyond what is due.
DUE = Statement("""
    SELECT id, queue_id FROM webhooks_webhook
    WHERE due_at <= now() AND slow = %(slow)s AND enabled AND queue_id <> ALL (%(full)s::bigint[])
      AND (leased_until IS NULL OR leased_until <= now())
    ORDER BY due_at LIMIT %(count)s
""")

# One that dies with it: the lease ends by itself, and its messages are sent again under the same ids. Its time of
# failing begins anew if nobody sent for half of the time after which it is given up.
LEASE = Statement("""
    UPDATE webhooks_webhook SET lease = lease + 1,
        leased_until = clock_timestamp() + make_interval(secs => %(seconds)s),
        failing_since = CASE WHEN due_at > clock_timestamp() - make_interval(secs => %(give_up)s / 2)
                             THEN failing_since END
    WHERE id IN (
        SELECT id FROM webhooks_webhook
        WHERE id = ANY (%(ids)s::uuid[]) AND enabled AND due_at <= clock_timestamp()
          AND (leased_until IS NULL OR leased_until <= clock_timestamp())
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING id, queue_id, url, lease, slow, failures, secret,
              CASE WHEN old_secret_until > clock_timestamp() THEN old_secret ELSE '' END AS old_secret
""")

# The first messages of each, in order. Also those that are not announced: what came first goes first.
NEXT = Statement("""
    SELECT d.id, d.uid, d.webhook_id, d.event, d.request_id, d.created_at
    FROM unnest(%(ids)s::uuid[]) AS w (id)
    CROSS JOIN LATERAL (
        SELECT * FROM webhooks_delivery WHERE webhook_id = w.id AND state = 'pending' ORDER BY id LIMIT %(each)s) d
    ORDER BY d.id
""")

# Which of these leases are still the newest; their rows stay locked until the transaction ends.
HELD = Statement("""
    SELECT w.id, w.lease FROM webhooks_webhook w
    JOIN json_to_recordset(%(held)s::json) AS v (id uuid, lease bigint) ON v.id = w.id AND v.lease = w.lease
    ORDER BY w.id FOR NO KEY UPDATE OF w SKIP LOCKED
""")

# What became of each attempt. The last 50 are kept of a message.
RECORD = Statement("""
    UPDATE webhooks_delivery d SET
        state = v.state, announced = true, response_body = v.body,
        delivered_at = CASE WHEN v.state = 'delivered' THEN clock_timestamp() ELSE d.delivered_at END,
        attempts = CASE WHEN v.attempt IS NULL THEN d.attempts
                        ELSE (CASE WHEN jsonb_array_length(d.attempts) < 50 THEN d.attempts ELSE d.attempts - 0 END)
                             || jsonb_build_array(v.attempt) END
    FROM json_to_recordset(%(outcomes)s::json) AS v (id bigint, state text, body text, attempt jsonb)
    WHERE d.id = v.id AND d.state = 'pending'
""")

# A webhook whose lease is given back: due again at once, after `delay`, or when there is something; or switched off.
RELEASE = Statement("""
    WITH next AS MATERIALIZED (
        SELECT v.id, v.succeeded, v.delay, v.error, v.failed AND w.url = v.url AS failed,
               v.gone AND w.url = v.url AS gone, CASE WHEN w.url = v.url THEN v.slow ELSE w.slow END AS slow,
               v.failed AND w.url = v.url AND coalesce(w.failing_since, clock_timestamp())
                   <= clock_timestamp() - make_interval(secs => %(give_up)s) AS lost
        FROM json_to_recordset(%(released)s::json) AS v (
            id uuid, url text, failed boolean, succeeded boolean, slow boolean, delay float8, error text, gone boolean)
        JOIN webhooks_webhook w ON w.id = v.id
    )
    UPDATE webhooks_webhook w SET
        leased_until = NULL, slow = v.slow,
        enabled = w.enabled AND NOT (v.lost OR v.gone),
        disabled_reason = CASE WHEN NOT w.enabled OR NOT (v.lost OR v.gone) THEN w.disabled_reason
                               WHEN v.gone THEN 'The receiver answered 410: it wants no more.'
                               ELSE left('Nothing could be delivered for ' || %(give_up_text)s || '. The last: '
                                         || v.error, 300) END,
        due_at = CASE WHEN NOT w.enabled OR v.lost OR v.gone THEN NULL
                      WHEN v.failed THEN clock_timestamp() + make_interval(secs => v.delay)
                      WHEN EXISTS (SELECT FROM webhooks_delivery d WHERE d.webhook_id = w.id AND d.state = 'pending')
                      THEN clock_timestamp() END,
        failures = CASE WHEN v.failed THEN (CASE WHEN v.succeeded THEN 0 ELSE w.failures END) + 1
                        WHEN v.succeeded THEN 0 ELSE w.failures END,
        failing_since = CASE WHEN v.failed AND (v.succeeded OR w.failing_since IS NULL) THEN clock_timestamp()
                             WHEN v.failed THEN w.failing_since
                             WHEN v.succeeded THEN NULL ELSE w.failing_since END,
        last_error = CASE WHEN v.failed THEN left(v.error, 300) WHEN v.succeeded THEN '' ELSE w.last_error END,
        last_delivered_at = CASE WHEN v.succeeded THEN clock_timestamp() ELSE w.last_delivered_at END
    FROM next v WHERE w.id = v.id
    RETURNING w.id, w.queue_id, w.enabled, (v.lost OR v.gone) AS switched_off, w.disabled_reason
""")

# How long the longest due one has been waiting for a thread.
LAG = Statement("""
    SELECT coalesce(max(extract(epoch FROM clock_timestamp() - due_at)), 0)::float8 AS seconds
    FROM webhooks_webhook
    WHERE due_at <= now() AND enabled AND NOT slow
      AND (leased_until IS NULL OR leased_until <= now())
""")

# Retention: what ended long ago, and what waits for a webhook that is off for as long. There the first message is the
# oldest: where that one is kept no other is read.
OLD = Statement("""
    DELETE FROM webhooks_delivery WHERE id IN (
        SELECT id FROM webhooks_delivery
        WHERE state <> 'pending' AND created_at < now() - make_interval(secs => %(seconds)s)
        ORDER BY created_at LIMIT %(count)s FOR UPDATE SKIP LOCKED)
    RETURNING id
""")
ABANDONED = Statement("""
    DELETE FROM webhooks_delivery WHERE id IN (
        SELECT d.id FROM webhooks_webhook w
        CROSS JOIN LATERAL (
            SELECT created_at FROM webhooks_delivery WHERE webhook_id = w.id AND state = 'pending'
            ORDER BY id LIMIT 1) oldest
        CROSS JOIN LATERAL (
            SELECT id, created_at FROM webhooks_delivery WHERE webhook_id = w.id AND state = 'pending'
            ORDER BY id LIMIT %(count)s FOR UPDATE SKIP LOCKED) d
        WHERE NOT w.enabled AND oldest.created_at < now() - make_interval(secs => %(seconds)s)
          AND d.created_at < now() - make_interval(secs => %(seconds)s)
        LIMIT %(count)s)
    RETURNING id
""")

# A deleted webhook goes with its last message, and not before a transaction that saw it enabled has ended.
OF_DELETED = Statement("""
    DELETE FROM webhooks_delivery WHERE id IN (
        SELECT d.id FROM webhooks_webhook w JOIN webhooks_delivery d ON d.webhook_id = w.id
        WHERE w.deleted_at IS NOT NULL LIMIT %(count)s FOR UPDATE OF d SKIP LOCKED)
    RETURNING id
""")
DELETED = Statement("""
    DELETE FROM webhooks_webhook WHERE id IN (
        SELECT id FROM webhooks_webhook w
        WHERE deleted_at < now() - interval '1 minute' AND NOT EXISTS (
            SELECT FROM webhooks_delivery d WHERE d.webhook_id = w.id)
        LIMIT %(count)s FOR UPDATE SKIP LOCKED)
    RETURNING id
""")

# An erasure has these removed first: else the user's row would take them all with it, in one statement.
OF_USER = Statement("""
    DELETE FROM webhooks_delivery WHERE id IN (
        SELECT d.id FROM queues_userqueue q
        JOIN webhooks_webhook w ON w.queue_id = q.id JOIN webhooks_delivery d ON d.webhook_id = w.id
        WHERE q.user_id = %(user)s LIMIT %(count)s FOR UPDATE OF d SKIP LOCKED)
    RETURNING id
""")

# Two of one owner at once would both find room for the last one. The lock ends with the transaction.
LOCK_OWNER = Statement("SELECT pg_advisory_xact_lock(%(lock_class)s::int, hashtext(%(queue)s))")
