"""Requests that become final while no worker has them: cancelled, skipped, expired, or passed without an outcome.

Whatever made them final, the metrics and the receivers of `request_finished` are told here, after the commit.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
from django.db import transaction

from queues.metrics import count_given_up
from queues.signals import send_ended
from queues.sql.statement import Statement
from queues.states import Status


def end(which: Statement, status: Status, error: dict[str, str] | None = None, **where: Any) -> list[Any]:
    """Give those that `which` finds, and that are not final, this status; their rows. Without `error` theirs stays."""
    told = None if error is None else orjson.dumps(error).decode()
    rows = which.rows(status=status.value, error=told, **where)
    ended(rows, status)
    return rows


def ended(rows: Sequence[Any], status: Status) -> None:
    """Tell of these, once they are committed."""
    if rows:
        transaction.on_commit(partial(count_given_up, Counter(row.kind for row in rows), status))
        transaction.on_commit(partial(send_ended, ((row.user_id, row) for row in rows)))
