"""How far a running request is: kept in Redis for a while, where it may be lost. It never holds a handler up."""

import time
from typing import Any
from uuid import UUID

import orjson

from project.redis import RedisUnavailable, call, own
from queues.notify.changes import progressed

KEEP_SECONDS = 3600
QUIET_SECONDS = 0.1  # what comes sooner after the last is passed over, but for the last step

_told: dict[UUID, float] = {}


def report(request_id: UUID, current: int, total: int, note: str = "", queue_id: int | None = None) -> None:
    """Keep the progress of a request, and tell those who watch its queue. Never raises, if they are numbers."""
    now = time.monotonic()
    if current < total and now - _told.get(request_id, 0.0) < QUIET_SECONDS:
        return
    if len(_told) > 1000:
        _told.clear()
    _told[request_id] = now
    readable = str(note)[:200].encode("utf-8", "replace").decode()
    text = orjson.dumps({"current": current, "total": total, "note": readable})
    try:
        call("SET", _key(request_id), text, "EX", KEEP_SECONDS)
    except RedisUnavailable:
        return
    if queue_id is not None:
        progressed(queue_id, request_id, text)


def read(request_ids: list[UUID]) -> list[dict[str, Any] | None]:
    """The progress of each, None where there is none or Redis is gone. One round trip."""
    if not request_ids:
        return []
    try:
        found = call("MGET", *(_key(request_id) for request_id in request_ids))
    except RedisUnavailable:
        return [None] * len(request_ids)
    return [None if text is None else orjson.loads(text) for text in found]


def forget(request_ids: list[UUID]) -> bool:
    """Remove the progress of these requests; whether Redis is there to do so. What it keeps goes by itself in time."""
    try:
        call("DEL", *(_key(request_id) for request_id in request_ids))
    except RedisUnavailable:
        return False
    return True


def _key(request_id: UUID) -> str:
    return own(f"progress:{request_id}")
