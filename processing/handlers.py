"""What a user of this project writes: functions that do the work, each declared with `@handler`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from pydantic import BaseModel

from project.logs import at_work
from queues import kinds, progress
from queues.kinds import Kind
from queues.states import OnFailure

LONGEST_DELAY = 366 * 86400.0  # seconds a handler may put its request off


class Reject(Exception):
    """Raised by a handler: this request can never succeed. No further attempt."""


class RetryLater(Exception):
    """Raised by a handler: try again in so many seconds. Counts as an attempt."""

    def __init__(self, seconds: float, why: str = "") -> None:
        super().__init__(why or f"asked to be tried again in {seconds} s")
        self.seconds = min(max(0.0, seconds), LONGEST_DELAY)


class TimeLimitExceeded(BaseException):
    """Raised in a handler that overran its kind's time limit; not an Exception, so that no handler swallows it."""


class TransactionLeftOpen(Exception):
    """The handler left a transaction open; what it wrote there is rolled back."""

    def __init__(self) -> None:
        super().__init__("The handler left a database transaction open; it was rolled back.")


class TransactionLeftBroken(Exception):
    """The atomic handler went on after its transaction was marked for rollback."""

    def __init__(self) -> None:
        super().__init__("The handler's database transaction can only be rolled back.")


@dataclass
class HandlerRequest:
    """What a handler is told about the request it works on.

    `id` is the same in every attempt and `attempt` counts them from 1: use both to make outside effects repeatable.
    """

    id: UUID
    user_id: UUID
    kind: str
    version: int
    sequence: int
    attempt: int
    trace: str
    _asked: bool = field(default=False, repr=False)
    heeded: bool = field(default=False, repr=False)
    queue_id: int | None = field(default=None, repr=False)

    @property
    def cancelled(self) -> bool:
        """Whether its owner gave up: a long handler looks now and then, and returns. Its request is then cancelled."""
        self.heeded = self.heeded or self._asked
        return self.heeded

    def ask_to_stop(self) -> None:
        """The owner gave up."""
        self._asked = True

    def described(self) -> dict[str, Any]:
        """What the lines say that its handler logs."""
        return {
            "user": str(self.user_id),
            "queue": self.queue_id,
            "request": str(self.id),
            "sequence": self.sequence,
            "kind": self.kind,
            "attempt": self.attempt,
            "request_id": self.trace,
        }

    def progress(self, current: int, total: int, note: str = "") -> None:
        """Tell the owner how far it is; may be called often (a part is passed on) and never fails."""
        progress.tell(self.id, current, total, note, self.queue_id)


Function = Callable[[HandlerRequest, Any], Any]
_functions: dict[tuple[str, int], Function] = {}


def handler(
    name: str,
    *,
    version: int = 1,
    schema: type[BaseModel] | None = None,
    max_attempts: int = 3,
    time_limit: float = 60,
    on_failure: str = OnFailure.CONTINUE,
    backoff: float = 1,
    backoff_cap: float = 300,
    atomic: bool = False,
    description: str = "",
) -> Callable[[Function], Function]:
    """Declare a handler for a kind. It takes the request and its payload (`schema`'s instance) and returns any JSON.

    `time_limit`, `backoff` (first delay) and `backoff_cap` (longest) are seconds. `on_failure`: continue | block.
    `atomic` runs it inside the recording transaction: its writes to PostgreSQL happen exactly once.
    Raises ValueError when an argument does not fit or the name and version are taken.
    """
    if max_attempts < 1 or time_limit <= 0 or backoff < 0 or backoff_cap < backoff or version < 1:
        raise ValueError(
            f"{name}: max_attempts and version are at least 1, time_limit is above 0, 0 <= backoff <= backoff_cap."
        )

    def declare(function: Function) -> Function:
        about = description or (function.__doc__ or "").strip().partition("\n")[0]
        kinds.register(
            Kind(
                name,
                version,
                about,
                schema,
                max_attempts,
                time_limit,
                OnFailure(on_failure),
                backoff,
                backoff_cap,
                atomic,
            )
        )
        _functions[name, version] = function
        return function

    return declare


class NoHandler(LookupError):
    """The request's kind had a handler when it was accepted; the worker's code has none."""


def find(name: str, version: int) -> tuple[Kind, Function]:
    """The kind and its function. Raises NoHandler."""
    try:
        return kinds.find(name, version), _functions[name, version]
    except LookupError:
        raise NoHandler(f"There is no handler for {name} version {version}.") from None


def call(function: Function, kind: Kind, request: HandlerRequest, payload: str) -> str:
    """Run a handler on its payload's JSON text; its result as JSON text. Raises what the handler raises."""
    value = kind.schema.model_validate_json(payload) if kind.schema else orjson.loads(payload)
    before = at_work.set(request.described)
    try:
        result = orjson.dumps(function(request, value))
    finally:
        at_work.reset(before)
    if len(result) > settings.ENV.result_limit:
        raise ValueError(f"The result has {len(result)} bytes; RESULT_LIMIT is {settings.ENV.result_limit}.")
    return result.decode()
