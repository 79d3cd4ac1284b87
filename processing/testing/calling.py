"""One attempt of one request in this process: no queue, no worker, no server."""

from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction

from accounts.models import User
from processing import handlers
from processing.handlers import TransactionLeftBroken
from processing.testing.attempts import Ran, TestedRequest
from processing.testing.limit import limited
from processing.worker.outcomes import raised, returned
from queues import from_python
from queues.values import Work


def run(
    kind: str | Callable[..., Any],
    payload: Any = None,
    *,
    attempt: int = 1,
    user: User | UUID | None = None,
    version: int | None = None,
    cancelled: bool = False,
    id: UUID | None = None,  # noqa: A002  (the name that the handler sees)
) -> Ran:
    """Call the handler of a kind as a worker does in its `attempt`-th attempt, and tell what becomes of the request.

    `kind` is its name or its function. The payload is read as the API reads it. `user` is whose request it is; nobody
    in particular if None. `cancelled`: its user has cancelled it. The time limit holds, in the main thread or any
    other. Nothing is stored; an atomic handler, and one that asks PostgreSQL, needs a database as in any test of
    Django.

    Raises Invalid, as the API refuses, and NoHandler; what the handler raises is in the answer.
    """
    if callable(kind):
        kind, version = handlers.declared_as(kind)
    submission = from_python.read_new(from_python.NewRequest(kind, payload, version))
    declared, function = handlers.find(submission.kind.name, submission.kind.version)
    user_id = user.id if isinstance(user, User) else user or uuid4()
    named = (id or submission.id, user_id, declared.name, declared.version)
    request = TestedRequest(*named, sequence=1, attempt=attempt, trace="test", may_have_run=attempt > 1)
    if cancelled:
        request.ask_to_stop()
    began = datetime.now(UTC)
    work = Work(
        id=request.id,
        seq=1,
        kind=declared.name,
        version=declared.version,
        payload=submission.payload,
        attempt=attempt - 1,
        max_attempts=declared.max_attempts,
        on_failure=declared.on_failure,
        finished_at=None,
        expired=False,
        cancel_asked=cancelled,
        trace=request.trace,
        traceparent=None,
        ready_at=began.timestamp(),
        began_at=None,
    )
    try:
        with transaction.atomic() if declared.atomic else nullcontext():
            with limited(declared.time_limit):
                result = handlers.call(function, declared, request, submission.payload)
            if declared.atomic and transaction.get_connection().needs_rollback:
                raise TransactionLeftBroken
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a handler raises: SystemExit, too
        ending = raised(work, declared, request.cancelled, error, began, datetime.now(UTC))
        return Ran.of(request, ending, error)
    return Ran.of(request, returned(work, request, result, began, datetime.now(UTC)))
