"""A POST with an Idempotency-Key happens once: its repetitions get the first answer again, also all at once.

The key is taken in the transaction that accepts. So who comes second waits for that row until the first is committed
and reads its answer, or takes the key itself because the first was refused: only what was accepted is kept.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from queues.accepting import SessionOver
from queues.sql import Statement

KEEP_HOURS = 24
VISIBLE = re.compile(r"[!-~]{1,255}")

# One that is older than it is kept is as good as gone.
TAKE = Statement(f"""
    INSERT INTO queues_idempotencykey AS k (user_id, key, digest, answer, location, created_at)
    SELECT id, %(key)s, %(digest)s, '', '', now() FROM accounts_user WHERE id = %(user)s
    ON CONFLICT (user_id, key) DO UPDATE SET digest = excluded.digest, answer = '', location = '', created_at = now()
    WHERE k.created_at < now() - interval '{KEEP_HOURS} hours'
    RETURNING user_id
""")  # noqa: S608  (a constant)

KEEP = Statement("""
    UPDATE queues_idempotencykey SET answer = %(answer)s, location = %(location)s
    WHERE user_id = %(user)s AND key = %(key)s
""")

# The answer, to one whose session lives.
KEPT = Statement("""
    SELECT k.digest, k.answer, k.location
    FROM accounts_session s JOIN accounts_user u ON u.id = s.user_id
    LEFT JOIN queues_idempotencykey k ON k.user_id = u.id AND k.key = %(key)s
    WHERE s.id = %(session)s AND u.id = %(user)s AND s.ended_at IS NULL AND u.is_active
""")

PRUNE = Statement(f"""
    DELETE FROM queues_idempotencykey WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM queues_idempotencykey WHERE created_at < now() - interval '{KEEP_HOURS} hours'
        ORDER BY created_at LIMIT %(count)s FOR UPDATE SKIP LOCKED))
    RETURNING user_id
""")  # noqa: S608


class KeyReused(Exception):
    """The key came before, with another body or to another path."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered with 202: the body, and the Location if there was one."""

    body: bytes
    location: str = ""
    replayed: bool = False


def once(user_id: UUID, session_id: UUID, key: str, asked: bytes, do: Callable[[], Answer]) -> Answer:
    """What `do` answers, or what it answered when the key came first. `asked` is what must be the same again.

    Raises KeyReused, SessionOver and what `do` raises; then the key is free as before.
    """
    digest = hashlib.sha256(asked).digest()
    while True:
        with transaction.atomic():
            if TAKE.row(user=user_id, key=key, digest=digest) is not None:
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


def prune(count: int) -> int:
    """Forget up to `count` keys that were kept long enough; how many. Any number of processes may do so at once."""
    return len(PRUNE.rows(count=count))
