"""The keys of POSTs that were answered."""

from queues.sql.statement import Statement

KEEP_HOURS = 24

# One that is older than it is kept is as good as gone. No lock is waited for longer, until the transaction ends.
TAKE_KEY = Statement(f"""
    INSERT INTO queues_idempotencykey AS k (user_id, key, digest, answer, location, created_at)
    SELECT id, %(key)s, %(digest)s, '', '', now() FROM accounts_user
    WHERE id = %(user)s AND set_config('lock_timeout', %(milliseconds)s::text, true) IS NOT NULL
    ON CONFLICT (user_id, key) DO UPDATE SET digest = excluded.digest, answer = '', location = '', created_at = now()
    WHERE k.created_at < now() - interval '{KEEP_HOURS} hours'
    RETURNING user_id
""")  # noqa: S608  (a constant)

# In the transaction that accepts: the answer is kept if and only if the requests are.
KEEP_ANSWER = Statement("""
    UPDATE queues_idempotencykey SET answer = %(answer)s, location = %(location)s
    WHERE user_id = %(user)s AND key = %(key)s
""")

# The answer, to one whose session lives; without a session, to an active user.
KEPT_ANSWER = Statement("""
    SELECT k.digest, k.answer, k.location
    FROM accounts_user u LEFT JOIN queues_idempotencykey k ON k.user_id = u.id AND k.key = %(key)s
    WHERE u.id = %(user)s AND u.is_active AND (%(session)s::uuid IS NULL OR EXISTS (
        SELECT FROM accounts_session s WHERE s.id = %(session)s AND s.user_id = u.id AND s.ended_at IS NULL))
""")

# In parts that lock few rows; any number of processes may do so at once.
DELETE_OLD_KEYS = Statement(f"""
    DELETE FROM queues_idempotencykey WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM queues_idempotencykey WHERE created_at < now() - interval '{KEEP_HOURS} hours'
        ORDER BY created_at LIMIT %(count)s FOR UPDATE SKIP LOCKED))
    RETURNING user_id
""")  # noqa: S608  (of constants)

# An erased user's, in parts.
DELETE_KEYS_OF = Statement("""
    DELETE FROM queues_idempotencykey WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM queues_idempotencykey WHERE user_id = %(user)s LIMIT %(count)s))
    RETURNING user_id
""")
