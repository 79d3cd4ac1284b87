"""Outcomes that cannot be kept: the attempt failed. Run again, it would only be refused again."""

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import structlog
from django.db import InterfaceError, OperationalError, transaction

from processing.results import InvalidResult
from processing.worker.outcomes import raised
from queues.exceptions import FencedOut
from queues.lifecycle.lease import Lease
from queues.states import QueueState
from queues.values import Outcome

log = structlog.get_logger()


class Replaced(NamedTuple):
    """What is recorded instead. `blocked_at`: its queue stops there, what ran after it runs again; 0: it goes on."""

    outcomes: list[Outcome]
    blocked_at: int = 0


def replace_refused(lease: Lease, outcomes: Sequence[Outcome]) -> Replaced | None:
    """Each is tried by itself, in a transaction that is rolled back. None: none of them is refused.

    Raises OperationalError and InterfaceError.
    """
    kept: list[Outcome] = []
    found = False
    for outcome in outcomes:
        error = _refusal(lease, outcome)
        if error is None or outcome.work is None:
            kept.append(outcome)
            continue
        found = True
        log.error("an outcome cannot be kept", queue=lease.queue_id, sequence=outcome.seq, error=str(error).strip())
        why = InvalidResult((), f"What came of it cannot be kept ({type(error).__name__}).")
        began, ended = outcome.started_at or lease.now(), outcome.finished_at or lease.now()
        ending = raised(outcome.work, None, False, why, began, ended)
        assert ending.outcome is not None  # noqa: S101  (an attempt has one)
        kept.append(ending.outcome)
        if ending.then == QueueState.BLOCKED:
            return Replaced(kept, outcome.seq)
    return Replaced(kept) if found else None


def _refusal(lease: Lease, outcome: Outcome) -> Exception | None:
    try:
        with transaction.atomic():
            copy(lease).record(0, [outcome], QueueState.DRAINING, 1)
            transaction.set_rollback(True)
    except FencedOut:
        return None  # the record itself will say so
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:  # PostgreSQL's, or it cannot even be told
        return error
    return None
