"""The SQL of messages, by name."""

from queues.sql.statement import Statement

# The active users of these names, compared as accounts does, and of these ids.
USERS = Statement("""
    SELECT asked.name AS asked, u.id, q.id IS NULL AS queueless
    FROM (SELECT unnest(%(names)s::text[]) AS name) asked
    JOIN accounts_user u ON lower(u.username COLLATE "und-x-icu") = lower(asked.name COLLATE "und-x-icu")
    LEFT JOIN queues_userqueue q ON q.user_id = u.id
    WHERE u.is_active
    UNION ALL
    SELECT u.id::text, u.id, q.id IS NULL
    FROM accounts_user u LEFT JOIN queues_userqueue q ON q.user_id = u.id
    WHERE u.id = ANY (%(ids)s::uuid[]) AND u.is_active
""")

# The events that made no request until now. Who inserts the same ones at once is waited for, in one order for all.
BEGIN = Statement("""
    INSERT INTO kafka_event (id, content, request_id)
    SELECT id, content, request_id
    FROM json_to_recordset(%(events)s::json) AS v (id uuid, content bigint, request_id uuid) ORDER BY id
    ON CONFLICT (id) DO NOTHING RETURNING id
""")

# What came before, as it is once BEGIN has waited for it.
KNOWN = Statement("SELECT id, content, request_id FROM kafka_event WHERE id = ANY (%(ids)s::uuid[])")

# Those whose requests have no room yet, in the same transaction.
UNDO = Statement("DELETE FROM kafka_event WHERE id = ANY (%(ids)s::uuid[])")

# A message that is delivered again is rejected once.
REJECT = Statement("""
    INSERT INTO kafka_rejectedmessage
        (topic, partition, "offset", key, value, headers, digest, event_id, reason, detail, rejected_at)
    SELECT topic, partition, "offset", decode(key, 'base64'), decode(value, 'base64'), headers, digest, event_id,
           reason, detail, now()
    FROM json_to_recordset(%(messages)s::json) AS v (
        topic text, partition int, "offset" bigint, key text, value text, headers jsonb, digest uuid, event_id text,
        reason text, detail text)
    ON CONFLICT (topic, partition, "offset", digest) DO NOTHING RETURNING digest
""")

# In parts, each of which waits for nobody.
PRUNE = Statement("""
    DELETE FROM kafka_rejectedmessage WHERE id IN (
        SELECT id FROM kafka_rejectedmessage WHERE rejected_at < now() - make_interval(secs => %(seconds)s)
        ORDER BY rejected_at LIMIT %(count)s FOR UPDATE SKIP LOCKED)
    RETURNING id
""")
