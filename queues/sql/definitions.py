"""What the words mean of which more than one statement speaks. Each is SQL about a queue that is called `q`."""

from queues.states import THROUGHPUT

NEWEST_OUTCOMES = 100  # that the last minute's are counted among
FEW = 8  # requests at most come along with the record that claims them

# How many requests have a sequence number and no final outcome yet.
DEPTH = "greatest(0, q.last_seq - q.done_seq - q.given_up_ahead)"

# How many may be in it; `limit` is the setting.
LIMIT = "coalesce(q.waiting_limit, %(limit)s)"

# What is given up makes room and keeps its place until the head is done, and several statements walk along the places.
# So a line in which a number of places is taken for each request that it may hold takes no more submissions.
PLACES_FOR_EACH = 10
PLACES = "q.last_seq - q.done_seq"
MOST_PLACES = f"{PLACES_FOR_EACH} * {LIMIT}"

# Its head waits for its kind: for a limit, or because the kind is paused.
HELD_BACK = "coalesce(q.wake_at > '2999-01-01', false)"

# Nobody can say when the next request begins, as `UserQueue.stands` says.
STANDS = f"q.paused OR q.state = 'blocked' OR {HELD_BACK}"

# What has a greater sequence number than this waits: the head of a queue that is drained runs.
BEGUN_TO = "q.done_seq + (q.state = 'draining')::int"

# Since when the next request that waits could begin: it was accepted then, or it is its not_before.
OLDEST_WAITING = f"""
    SELECT greatest(r.created_at, r.not_before) AS since FROM queues_request r
    WHERE r.queue_id = q.id AND r.seq > {BEGUN_TO} AND r.finished_at IS NULL
    ORDER BY r.seq LIMIT 1
"""  # noqa: S608  (constants)

# How many of the newest outcomes came within the last minute, and how long ago the first of these did.
FINISHED_LATELY = f"""
    SELECT count(*) AS outcomes, extract(epoch FROM clock_timestamp() - min(finished_at))::float8 AS seconds
    FROM (SELECT status, finished_at FROM queues_request r WHERE r.queue_id = q.id AND r.seq <= q.done_seq
          ORDER BY r.seq DESC LIMIT {NEWEST_OUTCOMES}) newest
    WHERE status IN ({", ".join(f"'{status}'" for status in THROUGHPUT)})
      AND finished_at > clock_timestamp() - interval '1 minute'
"""  # noqa: S608  (constants)


def finished_per_minute(outcomes: int, seconds: float | None) -> float:
    """The throughput of the last minute, from FINISHED_LATELY: where more fell into it than are counted, theirs."""
    if outcomes < NEWEST_OUTCOMES or not seconds:
        return float(outcomes)
    return round(outcomes * 60 / seconds, 1)
