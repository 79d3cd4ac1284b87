"""A POST with an Idempotency-Key happens once: its repetitions get the first answer again, also all at once.

The key is taken in the transaction that accepts. So who comes second waits for that row until the first is committed
and reads its answer, or takes the key itself because the first was refused: only what was accepted is kept.

The first may be frozen. So nobody waits for longer than PATIENCE_SECONDS, for a thread of the API does nothing else
meanwhile; and where half of them do so already, no longer than BRIEFLY_SECONDS.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from django.db import OperationalError, transaction

from queues.exceptions import KeyInUse, KeyReused, SessionOver
from queues.sql.idempotency import DELETE_OLD_KEYS, KEEP_ANSWER, KEPT_ANSWER, TAKE_KEY
from queues.sql.locks import BRIEFLY_SECONDS, patient
from queues.sql.statement import left_out

VISIBLE = re.compile(r"[!-~]{1,255}")

PATIENCE_SECONDS = 2.0
RETRY_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered with 202: the body, and the Location if there was one."""

    body: bytes
    location: str = ""
    replayed: bool = False


def once(user_id: UUID, session_id: UUID | None, key: str, asked: bytes, do: Callable[[], Answer]) -> Answer:
    """What `do` answers, or what it answered when the key came first. `asked` is what must be the same again.

    Raises KeyReused, KeyInUse, SessionOver and what `do` raises; then the key is free as before.
    """
    digest = hashlib.sha256(asked).digest()
    while True:
        with transaction.atomic():
            if _take(user_id, key, digest):
                answer = do()
                KEEP_ANSWER.rows(user=user_id, key=key, answer=answer.body, location=answer.location)
                return answer
        kept = KEPT_ANSWER.row(user=user_id, session=session_id, key=key)
        if kept is None:
            raise SessionOver
        if kept.digest is None:
            continue  # it became too old between the two statements
        if kept.digest != digest:
            raise KeyReused
        return Answer(kept.answer, kept.location, replayed=True)


def _take(user_id: UUID, key: str, digest: bytes) -> bool:
    """Whether the key is this transaction's. Raises KeyInUse."""
    try:
        with patient() as long:
            milliseconds = str(round(1000 * (PATIENCE_SECONDS if long else BRIEFLY_SECONDS)))
            return TAKE_KEY.row(user=user_id, key=key, digest=digest, milliseconds=milliseconds) is not None
    except OperationalError as failure:
        if left_out(failure):
            raise KeyInUse from None
        raise


def prune(count: int) -> int:
    """Forget up to `count` keys that were kept long enough; how many. Any number of processes may do so at once."""
    return len(DELETE_OLD_KEYS.rows(count=count))
