"""What no request could be made of: kept as it came, replayed once the reason is gone, forgotten after a while."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
import structlog
from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from processing.kafka import metrics
from processing.kafka.group import Rejected, accept_group, resolve
from processing.kafka.models import RejectedMessage
from processing.kafka.reading import Message, Rejection, read
from processing.kafka.statements import PRUNE, REJECT
from queues.exceptions import NotPossible

PRUNE_SECONDS = 60.0
PRUNED = 1000  # rows at once

log = structlog.get_logger()


def keep(rejected: Sequence[Rejected]) -> None:
    """Keep them, in the caller's transaction; those that are new are logged and counted after it."""
    if not rejected:
        return
    told = {_digest(message): (message, why) for message, why in rejected}
    rows = [_row(digest, *one) for digest, one in told.items()]
    new = [told[row.digest] for row in REJECT.rows(messages=orjson.dumps(rows).decode())]
    transaction.on_commit(lambda: _tell(new))


def _tell(rejected: Sequence[Rejected]) -> None:
    for message, why in rejected:
        metrics.MESSAGES.labels(metrics.REJECTION).inc()
        metrics.REJECTED.labels(why.reason).inc()
        log.warning(
            "kafka_rejected", topic=message.topic, partition=message.partition, offset=message.offset,
            reason=why.reason, event_id=why.event_id or None,  # the detail may quote what was sent
        )  # fmt: skip


def _digest(message: Message) -> UUID:
    whole = repr((message.topic, message.partition, message.offset, message.key, message.value, message.headers))
    return UUID(bytes=hashlib.sha256(whole.encode()).digest()[:16])


def _row(digest: UUID, message: Message, why: Rejection) -> dict[str, Any]:
    """As REJECT reads it."""
    return {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "key": _base64(message.key),
        "value": _base64(message.value),
        "headers": [[name.replace("\0", "?"), _base64(value)] for name, value in message.headers],
        "digest": digest,
        "event_id": why.event_id,
        "reason": why.reason,
        "detail": why.detail,
    }


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def replay(rejected_id: int) -> UUID:
    """The request that it makes after all, or made meanwhile. Raises NotPossible, and says why; then it stays."""
    refused = None
    with transaction.atomic():
        row = RejectedMessage.objects.select_for_update().get(id=rejected_id)
        if row.replayed_at is not None:
            raise NotPossible(f"It was replayed: request {row.request_id}.")
        mine = RejectedMessage.objects.filter(id=rejected_id)
        try:
            request_id = _accept(_message(row))
            mine.update(replayed_at=Now(), request_id=request_id)
        except Rejection as why:
            refused = why
            mine.update(reason=why.reason, detail=why.detail, event_id=why.event_id)
    if refused:
        raise NotPossible(refused.detail)
    return request_id


def _accept(message: Message) -> UUID:
    """Raises Rejection and NotPossible."""
    entries, rejected = resolve([read(message)])
    settled = accept_group(entries)
    for _, why in (*rejected, *settled.rejected):
        raise why
    if settled.left:
        raise NotPossible("Its user's queue is full, or locked for the moment. Try again.")
    metrics.MESSAGES.labels(metrics.ACCEPTED).inc(settled.accepted)
    return settled.requests[entries[0].id]


def _message(row: RejectedMessage) -> Message:
    headers = [(name, None if value is None else base64.b64decode(value)) for name, value in row.headers]
    key, value = (None if one is None else bytes(one) for one in (row.key, row.value))
    return Message(row.topic, row.partition, row.offset, key, value, headers)


def prune() -> None:
    """Forget those that were kept for KAFKA_REJECTED_RETENTION_DAYS. Any number of processes may do so at once."""
    seconds = settings.ENV.kafka_rejected_retention_days * 86400
    while seconds and len(PRUNE.rows(seconds=seconds, count=PRUNED)) == PRUNED:
        continue
