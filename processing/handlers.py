"""What a user of this project writes: functions that do the work, each declared with `@handler`."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from pydantic import BaseModel

from processing import declarations
from processing.coroutines import wait_for
from processing.results import as_json
from project.rest.problems import FieldError, Invalid
from project.start import place
from project.telemetry.logs import at_work
from queues import from_python, kinds
from queues.enqueue.accept import accept
from queues.enqueue.parsing import LARGEST_BATCH
from queues.kinds import Kind, Permission, Rate
from queues.notify import progress
from queues.notify.hints import work_waits
from queues.states import OnFailure
from queues.values import Submission

LONGEST_DELAY = 366 * 86400.0  # seconds a handler may put its request off


class Reject(Exception):
    """Raised by a handler: this request can never succeed. No further attempt."""


class RetryLater(Exception):
    """Raised by a handler: try again in so many seconds. Counts as an attempt."""

    def __init__(self, seconds: float, why: str = "") -> None:
        super().__init__(why or f"asked to be tried again in {seconds} s")
        self.seconds = min(max(0.0, seconds), LONGEST_DELAY)


class WrongHandler(ImproperlyConfigured, ValueError):
    """A handler does not fit: no process starts. Says which one, with its file and line."""


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

    `id` is the same in every attempt and `attempt` counts them from 1. `may_have_run`: it may have begun before, also
    where no attempt was counted: a worker died that had claimed it with others, or ended before it did. Use them to
    make outside effects repeatable.
    """

    id: UUID
    user_id: UUID
    kind: str
    version: int
    sequence: int
    attempt: int
    trace: str
    may_have_run: bool = False
    _asked: bool = field(default=False, repr=False)
    heeded: bool = field(default=False, repr=False)
    queue_id: int | None = field(default=None, repr=False)
    next_requests: list[Submission] = field(default_factory=list, repr=False)

    @property
    def cancelled(self) -> bool:
        """Becomes true when the user cancels. Check it in loops and return: the request is then cancelled."""
        self.heeded = self.heeded or self._asked
        return self.heeded

    def ask_to_stop(self) -> None:
        """The user cancels."""
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
        progress.report(self.id, current, total, note, self.queue_id)

    def submit(
        self,
        kind: str,
        payload: Any = None,
        *,
        version: int | None = None,
        not_before: datetime | None = None,
        expires_at: datetime | None = None,
    ) -> UUID:
        """Submit the owner's next request, at the tail of the same queue; its id.

        It is accepted in the transaction that records this one as succeeded, so exactly once, however many attempts
        that takes; after any other end it never was. A full queue fails the attempt. Raises Invalid at once.
        """
        if len(self.next_requests) >= LARGEST_BATCH:
            raise Invalid(FieldError("requests", "length", f"A request submits at most {LARGEST_BATCH} others."))
        submission = from_python.read_new(from_python.NewRequest(kind, payload, version, not_before, expires_at))
        self.next_requests.append(submission)
        return submission.id

    def accept_next(self) -> None:
        """Take in what was submitted, in the transaction that records this request; nothing if it is cancelled."""
        if self.next_requests and not self.heeded:
            accept(self.user_id, self.next_requests, session_id=None, trace=self.trace)
            transaction.on_commit(work_waits)


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
    permission: Permission | None = None,
    max_concurrency: int | None = None,
    rate: str | None = None,
    description: str = "",
) -> Callable[[Function], Function]:
    """Declare a handler for a kind. It takes the request and its payload (`schema`'s instance) and returns any JSON.

    It may be an `async def`, unless it is `atomic`: these run on one event loop, and hold no thread.

    `time_limit`, `backoff` (first delay) and `backoff_cap` (longest) are seconds. `on_failure`: continue | block.
    `atomic` runs it inside the recording transaction: its writes to PostgreSQL happen exactly once.
    `permission` is who may ask for it: a permission of Django's, or a function of the user.
    `max_concurrency` is how many run at once, of all users in all workers; `rate`, as "100/m", how many begin in any
    such time.
    docs/handlers.md says more. Raises WrongHandler when an argument or the function does not fit, or the name and
    version are taken.
    """
    if callable(name):
        raise WrongHandler(f'{place_of(name)}: Write @handler("name.of.the.kind") instead of @handler.')

    def declare(function: Function) -> Function:
        wrong = (
            declarations.wrong_about(name, version, schema, max_attempts, on_failure, atomic, description)
            or declarations.wrong_with(function, atomic)
            or declarations.wrong_seconds(name, time_limit, backoff, backoff_cap)
            or declarations.wrong_permission(name, permission)
            or kinds.wrong_limits(name, max_concurrency, rate)
        )
        if not wrong and (name, version) in _functions:
            other = place_of(_functions[name, version])
            wrong = f"{name!r} version {version} has a handler already, at {other}. Give one another name or version."
        if wrong:
            raise WrongHandler(f"{place_of(function)}: {wrong}")
        about = description or (function.__doc__ or "").strip().partition("\n")[0]
        policy = OnFailure(on_failure)
        times = (time_limit, policy, backoff, backoff_cap)
        limits = (max_concurrency, None if rate is None else Rate.parse(rate))
        kinds.register(Kind(name, version, about, schema, max_attempts, *times, atomic, permission, *limits))
        _functions[name, version] = function
        return function

    return declare


def place_of(function: Callable[..., Any]) -> str:
    """Where a function is written, as file:line."""
    written = inspect.unwrap(function)
    code = getattr(written, "__code__", None) or getattr(type(written).__call__, "__code__", None)
    return place(code.co_filename, code.co_firstlineno) if code else f"{getattr(written, '__module__', '?')}"


def declared_by(app: str) -> bool:
    """Whether a handler is written in that app."""
    modules = [str(getattr(inspect.unwrap(function), "__module__", "")) for function in _functions.values()]
    return any(module == app or module.startswith(f"{app}.") for module in modules)


class NoHandler(LookupError):
    """The request's kind had a handler when it was accepted; the worker's code has none."""


def find(name: str, version: int) -> tuple[Kind, Function]:
    """The kind and its function. Raises NoHandler."""
    try:
        return kinds.find(name, version), _functions[name, version]
    except LookupError:
        raise NoHandler(f"There is no handler for {name} version {version}.") from None


def declared_as(function: Callable[..., Any]) -> tuple[str, int]:
    """The name and version that a function was declared with, the newest of several. Raises NoHandler."""
    named = [key for key, one in _functions.items() if one is function]
    if not named:
        raise NoHandler(f"{place_of(function)}: The function is no handler: it has no @handler.")
    return max(named)


def value_of(kind: Kind, payload: str) -> Any:
    """What a handler is called with for its payload's JSON text. Raises what the kind's schema raises."""
    return kind.schema.model_validate_json(payload) if kind.schema else orjson.loads(payload)


def call(function: Function, kind: Kind, request: HandlerRequest, payload: str) -> str:
    """Run a handler on its payload's JSON text; its result as JSON text.

    Raises what the handler raises, and InvalidResult.
    """
    value = value_of(kind, payload)
    before = at_work.set(request.described)
    try:
        result = function(request, value)
        return as_json(wait_for(result) if inspect.iscoroutine(result) and not kind.atomic else result)
    finally:
        at_work.reset(before)
