"""Who leads a shard. No statement waits for the row: who has it locked keeps others from taking the lead, too."""

from queues.sql.statement import Statement

# No row: nobody has led this shard yet.
LEAD_IS_FREE = Statement("""
    SELECT lead_until < clock_timestamp() OR holder = %(holder)s AS free FROM queues_leadership WHERE shard = %(shard)s
""")

# The first one ever.
OPEN_SHARD = Statement("""
    INSERT INTO queues_leadership (shard, holder, epoch, lead_until) VALUES (%(shard)s, '', 0, now())
    ON CONFLICT (shard) DO NOTHING
""")

# No row: somebody else was faster.
TAKE_LEAD = Statement("""
    UPDATE queues_leadership SET holder = %(holder)s, epoch = epoch + 1, renewed_at = clock_timestamp(),
        lead_until = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE shard IN (SELECT shard FROM queues_leadership WHERE shard = %(shard)s
                      AND (lead_until < clock_timestamp() OR holder = %(holder)s) FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING epoch
""")

# A sign of the leader; whether it still leads. It does while its row is locked by whomever: nobody can take the lead.
RENEW_LEAD = Statement("""
    WITH mine AS (
        SELECT shard FROM queues_leadership
        WHERE shard = %(shard)s AND holder = %(holder)s AND epoch = %(epoch)s FOR NO KEY UPDATE SKIP LOCKED
    ), renewed AS (
        UPDATE queues_leadership l SET renewed_at = clock_timestamp(),
            lead_until = clock_timestamp() + make_interval(secs => %(seconds)s)
        FROM mine WHERE l.shard = mine.shard
    )
    SELECT holder = %(holder)s AND epoch = %(epoch)s AS leads FROM queues_leadership WHERE shard = %(shard)s
""")

# It ends in order: the next one need not wait until the lease is over.
RESIGN_LEAD = Statement("""
    UPDATE queues_leadership SET lead_until = now(), renewed_at = NULL
    WHERE shard IN (SELECT shard FROM queues_leadership WHERE shard = %(shard)s AND holder = %(holder)s
                      AND epoch = %(epoch)s FOR NO KEY UPDATE SKIP LOCKED)
""")

# The leader that has been silent for longest, and how many shards are led.
LAST_SIGN = Statement("""
    SELECT count(renewed_at) AS known, count(*) FILTER (WHERE lead_until > clock_timestamp()) AS led,
           extract(epoch FROM clock_timestamp() - min(renewed_at))::float8 AS seconds
    FROM queues_leadership WHERE shard < %(shards)s
""")
