"""Which worker processes say that they live, beside the lock that each holds in PostgreSQL.

That lock goes with its connection: a worker that lost PostgreSQL, and nobody else did, still runs its handlers. What it
says here goes a second after its process.
"""

import threading
import time
from collections.abc import Collection
from contextlib import suppress

from django.conf import settings

from project.redis import RedisUnavailable, call, own

SHOWN_SECONDS, EVERY_SECONDS = 1.0, 0.3


def keep_shown(worker_id: int) -> None:
    """Have this process say that it lives, until it ends. Waits for nothing."""

    def keep() -> None:
        while True:
            show(worker_id)
            time.sleep(EVERY_SECONDS)

    threading.Thread(target=keep, name="sign of life", daemon=True).start()


def show(worker_id: int) -> None:
    """Say that this process lives, for a second. Never raises."""
    with suppress(RedisUnavailable):
        call("SET", _key(worker_id), "", "PX", int(SHOWN_SECONDS * 1000))


def may_live(worker_ids: Collection[int]) -> set[int]:
    """Those of them that said so lately; all, where Redis does not answer."""
    if not worker_ids:
        return set()
    ids = list(worker_ids)
    try:
        found = call("MGET", *map(_key, ids))
    except RedisUnavailable:
        return set(ids)
    return {id_ for id_, said in zip(ids, found, strict=True) if said is not None}


def _key(worker_id: int) -> str:
    return own(f"{settings.ENV.queue_prefix}worker:{worker_id}")
