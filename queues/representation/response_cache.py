"""The answers about finished requests, kept in Redis for their owner: what is final never changes.

Filled by who asks, so that a result which nobody looks at costs nothing. Redis may forget any of it, or be gone: then
PostgreSQL answers. Whether the caller's session lives is asked of PostgreSQL in any case.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from django.conf import settings

from project.redis import RedisUnavailable, Script, call, own
from queues.metrics import CACHE_ASKED

LARGEST_BYTES = 128 * 1024  # of an answer; a larger one is read from PostgreSQL each time
FORGOTTEN_SECONDS = 60  # so long after `forget` nothing is kept: a reader may still hold what it read before
ETAG_CHARACTERS = 26
AT_A_TIME = 500

# A key holds one field, named for the owner: others find nothing there, in the same time as where nothing is.
KEEP = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
""")
FORGET = Script("""
for _, key in ipairs(KEYS) do
  redis.call('DEL', key)
  redis.call('HSET', key, 'forgotten', '')
  redis.call('EXPIRE', key, ARGV[1])
end
""")


class CachedAnswer(NamedTuple):
    """An answer about a finished request, and its ETag."""

    etag: str
    body: bytes


def get(user_id: UUID, request_id: UUID) -> CachedAnswer | None:
    """What is kept of the user's finished request; None: ask PostgreSQL."""
    if not settings.ENV.cache_seconds:
        return None
    try:
        found = call("HGET", _key(request_id), str(user_id))
    except RedisUnavailable:
        CACHE_ASKED.labels("unavailable").inc()
        return None
    CACHE_ASKED.labels("miss" if found is None else "hit").inc()
    return None if found is None else CachedAnswer(found[:ETAG_CHARACTERS].decode(), found[ETAG_CHARACTERS:])


def keep(user_id: UUID, request_id: UUID, kept: CachedAnswer) -> None:
    """Keep the answer about a request that is final. Never raises."""
    if not settings.ENV.cache_seconds or len(kept.body) > LARGEST_BYTES:
        return
    try:
        KEEP([_key(request_id)], [str(user_id), kept.etag.encode() + kept.body, settings.ENV.cache_seconds])
    except RedisUnavailable:
        return


def forget(request_ids: Sequence[UUID]) -> bool:
    """Keep nothing of these, from now on; whether Redis is there to do so. To be called before they are deleted.

    What Redis has while it is away goes by itself after CACHE_SECONDS.
    """
    try:
        for at in range(0, len(request_ids), AT_A_TIME):
            FORGET([_key(request_id) for request_id in request_ids[at : at + AT_A_TIME]], [FORGOTTEN_SECONDS])
    except RedisUnavailable:
        return False
    return True


def _key(request_id: UUID) -> str:
    return own(f"final:{request_id}")
