"""A POST with an Idempotency-Key happens once: its repetitions get the first answer again, also all at once.

The key is taken in the transaction that accepts. So who comes second waits for that row until the first is committed
and reads its answer, or takes the key itself because the first was refused: only what was accepted is kept.

The first may be frozen. So nobody waits for longer than PATIENCE_MS, for a thread of the API does nothing else
meanwhile; and where half of them do so already, no longer than BRIEFLY_MS.
"""

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import OperationalError, transaction

from queues.exceptions import KeyInUse, KeyReused, SessionOver
from queues.sql.statement import Statement, left_out

KEEP_HOURS = 24
VISIBLE = re.compile(r"[!-~]{1,255}")

PATIENCE_MS, BRIEFLY_MS = 2_000, 250
RETRY_SECONDS = 2

# One that is older than it is kept is as good as gone. No lock is waited for longer, until the transaction ends.
TAKE = Statement(f"""
    INSERT INTO queues_idempotencykey AS k (user_id, key, digest, answer, location, created_at)
    SELECT id, %(key)s, %(digest)s, '', '', now() FROM accounts_user
    WHERE id = %(user)s AND set_config('lock_timeout', %(milliseconds)s::text, true) IS NOT NULL
    ON CONFLICT (user_id, key) DO UPDATE SET digest = excluded.digest, answer = '', location = '', created_at = now()
    WHERE k.created_at < now() - interval '{KEEP_HOURS} hours'
    RETURNING user_id
""")  # noqa: S608  (a constant)

KEEP = Statement("""
    UPDATE queues_idempotencykey SET answer = %(answer)s, location = %(location)s
    WHERE user_id = %(user)s AND key = %(key)s
""")

# The answer, to one whose session lives; without a session, to an active user.
KEPT = Statement("""
    SELECT k.digest, k.answer, k.location
    FROM accounts_user u LEFT JOIN queues_idempotencykey k ON k.user_id = u.id AND k.key = %(key)s
    WHERE u.id = %(user)s AND u.is_active AND (%(session)s::uuid IS NULL OR EXISTS (
        SELECT FROM accounts_session s WHERE s.id = %(session)s AND s.user_id = u.id AND s.ended_at IS NULL))
""")

PRUNE = Statement(f"""
    DELETE FROM queues_idempotencykey WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM queues_idempotencykey WHERE created_at < now() - interval '{KEEP_HOURS} hours'
        ORDER BY created_at LIMIT %(count)s FOR UPDATE SKIP LOCKED))
    RETURNING user_id
""")  # noqa: S608


_patient = threading.Semaphore(max(1, settings.ENV.api_threads // 2))


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
                KEEP.rows(user=user_id, key=key, answer=answer.body, location=answer.location)
                return answer
        kept = KEPT.row(user=user_id, session=session_id, key=key)
        if kept is None:
            raise SessionOver
        if kept.digest is None:
            continue  # it became too old between the two statements
        if kept.digest != digest:
            raise KeyReused
        return Answer(kept.answer, kept.location, replayed=True)


def _take(user_id: UUID, key: str, digest: bytes) -> bool:
    """Whether the key is this transaction's. Raises KeyInUse."""
    patient = _patient.acquire(blocking=False)
    milliseconds = str(PATIENCE_MS if patient else BRIEFLY_MS)
    try:
        return TAKE.row(user=user_id, key=key, digest=digest, milliseconds=milliseconds) is not None
    except OperationalError as failure:
        if left_out(failure):
            raise KeyInUse from None
        raise
    finally:
        if patient:
            _patient.release()


def prune(count: int) -> int:
    """Forget up to `count` keys that were kept long enough; how many. Any number of processes may do so at once."""
    return len(PRUNE.rows(count=count))
