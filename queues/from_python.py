"""What the API offers, for code in this process: submit, cancel and status, within the caller's transaction.

What is submitted is read and accepted as over HTTP: the same schemas, limits and errors. docs/python.md is the guide.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.db import OperationalError, connection, transaction
from pydantic_core import to_jsonable_python

from accounts.models import User
from project.rest.parsers import loads
from project.rest.problems import FieldError, Invalid
from queues.enqueue import idempotency, permissions
from queues.enqueue.accept import accept
from queues.enqueue.idempotency import VISIBLE, Answer
from queues.enqueue.parsing import read_batch, read_one
from queues.lifecycle import control
from queues.models import Request
from queues.notify import hints, progress
from queues.sql.locks import restore_lock_timeout, wait_at_most
from queues.sql.statement import left_out
from queues.states import FINAL, Status
from queues.values import Accepted, Submission

PATIENCE_SECONDS = 2.0  # so long each lock is waited for that somebody else's transaction holds
LONGEST_KEY = 254


class QueueBusy(Exception):
    """Another transaction has held the user's queue for longer than PATIENCE_SECONDS. Nothing was done; try again."""


class NoSuchRequest(LookupError):
    """The user has no request of that id."""


@dataclass(frozen=True, slots=True)
class NewRequest:
    """What `submit_many` takes. `payload` is any JSON, or what Pydantic writes as JSON: models, UUIDs, datetimes .."""

    kind: str
    payload: Any = None
    version: int | None = None
    not_before: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """A request that is kept once the transaction commits. `sequence` is None while it is scheduled; `replayed`: it
    was submitted before, with this idempotency key.
    """

    id: UUID
    kind: str
    version: int
    sequence: int | None
    created_at: datetime
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """A request as it is now; the fields are the API's."""

    id: UUID
    kind: str
    version: int
    status: Status
    sequence: int | None
    position: int | None
    attempt: int
    max_attempts: int
    progress: dict[str, Any] | None
    result: Any
    error: dict[str, Any] | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_final(self) -> bool:
        """Whether nothing about it changes any more."""
        return self.status in FINAL


def submit(
    user: User | UUID,
    kind: str,
    payload: Any = None,
    *,
    version: int | None = None,
    idempotency_key: str | None = None,
    not_before: datetime | None = None,
    expires_at: datetime | None = None,
    check_permission: bool = True,
) -> Submitted:
    """Submit one request in the user's order: kept if the caller's transaction commits, gone if it rolls back.

    With `idempotency_key` (of this user, for 24 h) a repetition returns the first one. `check_permission=False` submits
    for users what they may not ask for themselves. Raises Invalid, Forbidden, QueueFull, TooManyBytes, SessionOver (the
    user is not active), KeyReused, KeyInUse and QueueBusy; then nothing was done.
    """
    body = _body(NewRequest(kind, payload, version, not_before, expires_at))
    asked = [read(body)]
    if check_permission:
        permissions.check(_id(user), [asked[0].kind])
    return _submit(user, asked, body, idempotency_key)[0]


def submit_many(
    user: User | UUID,
    requests: Sequence[NewRequest],
    *,
    idempotency_key: str | None = None,
    check_permission: bool = True,
) -> list[Submitted]:
    """Submit 1 to 500 requests in the order given: all of them, or none. Raises what `submit` does."""
    body = b'{"requests":[' + b",".join(map(_body, requests)) + b"]}"
    _check_size(body, settings.BATCH_BODY_LIMIT, "requests")
    asked = read_batch(loads(body), body)
    if check_permission:
        permissions.check(_id(user), [one.kind for one in asked], "requests.{}.kind")
    return _submit(user, asked, body, idempotency_key)


def read_new(new: NewRequest) -> Submission:
    """What `new` asks for, checked as a body of the API is. Raises Invalid."""
    return read(_body(new))


def submission(kind: str, payload: str, version: int | None = None) -> Submission:
    """The same for a payload that is JSON text already, which stays to the letter. Raises Invalid."""
    rest = orjson.dumps({"kind": kind, "version": version})
    return read(b'{"payload":' + payload.encode() + b"," + rest[1:])


def read(body: bytes) -> Submission:
    """The submission in a body. Raises Invalid."""
    _check_size(body, settings.BODY_LIMIT, "payload")
    return read_one(loads(body), body)


def _submit(user: User | UUID, asked: list[Submission], body: bytes, key: str | None) -> list[Submitted]:
    user_id = _id(user)
    if key is None:
        with _patiently():
            accepted = accept(user_id, asked, session_id=None)
            transaction.on_commit(hints.work_waits)
        return [_submitted(one) for one in accepted]
    if not VISIBLE.fullmatch(key) or len(key) > LONGEST_KEY:
        raise Invalid(FieldError("idempotency_key", "format", f"Write 1 to {LONGEST_KEY} visible ASCII characters."))

    def accept_them() -> Answer:
        accepted = accept(user_id, asked, session_id=None)
        return Answer(orjson.dumps([asdict(_submitted(one)) for one in accepted]))

    with _patiently():
        # No caller of the API can send a key with a space.
        answer = idempotency.once(user_id, None, f" {key}", b"python " + body, accept_them)
        transaction.on_commit(hints.work_waits)
    return [_replayed(one, answer.replayed) for one in orjson.loads(answer.body)]


def cancel(user: User | UUID, request_id: UUID) -> None:
    """Give one of the user's requests up: at once if it waits, by asking its handler if it runs.

    Raises NoSuchRequest, NotPossible (it is final already) and QueueBusy.
    """
    if not Request.objects.filter(id=request_id, queue__user=_id(user)).exists():
        raise NoSuchRequest(str(request_id))
    with _patiently():
        control.cancel(request_id)


def status(user: User | UUID, request_id: UUID) -> RequestStatus:
    """One of the user's requests as it is now. Raises NoSuchRequest."""
    found = Request.objects.select_related("queue").filter(id=request_id, queue__user=_id(user)).first()
    if found is None:
        raise NoSuchRequest(str(request_id))
    return RequestStatus(
        id=found.id,
        kind=found.kind,
        version=found.version,
        status=found.status_now,
        sequence=found.seq,
        position=found.position,
        attempt=found.attempt_now,
        max_attempts=found.max_attempts,
        progress=progress.read([found.id])[0] if found.running else None,
        result=found.result,
        error=found.error,
        cancel_requested=found.cancel_asked_at is not None,
        created_at=found.created_at,
        started_at=found.started,
        finished_at=found.finished_at,
    )


@contextmanager
def _patiently() -> Iterator[None]:
    """All of the block or nothing; no lock is waited for longer than PATIENCE_SECONDS. Raises QueueBusy.

    A transaction that goes on afterwards waits for its own locks as before.
    """
    goes_on = connection.in_atomic_block
    try:
        with transaction.atomic():
            before = wait_at_most(PATIENCE_SECONDS)
            yield
            if goes_on:
                restore_lock_timeout(before)
    except OperationalError as failure:
        if left_out(failure):
            raise QueueBusy(f"Somebody else has held the queue for {PATIENCE_SECONDS:g} s.") from failure
        raise


def _id(user: User | UUID) -> UUID:
    return user if isinstance(user, UUID) else user.id


def _submitted(accepted: Accepted) -> Submitted:
    asked = accepted.submission
    return Submitted(asked.id, asked.kind.name, asked.kind.version, accepted.seq, accepted.created_at)


def _replayed(told: dict[str, Any], replayed: bool) -> Submitted:
    times = {"id": UUID(told["id"]), "created_at": datetime.fromisoformat(told["created_at"]), "replayed": replayed}
    return Submitted(**{**told, **times})


# As the API's body, so that one reader checks what comes from both.


def _body(new: NewRequest) -> bytes:
    fields = {"kind": new.kind, "payload": new.payload}
    if new.version is not None:
        fields["version"] = new.version
    for name, time in (("not_before", new.not_before), ("expires_at", new.expires_at)):
        if time is not None:
            fields[name] = _time(name, time)
    return b"{" + b",".join(_json(name, name) + b":" + _json(value, name) for name, value in fields.items()) + b"}"


def _time(name: str, time: Any) -> str:
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise Invalid(FieldError(name, "time", "Pass a datetime with a time zone: timezone.now() + timedelta(..)."))
    return time.astimezone(UTC).isoformat()


def _json(value: Any, name: str) -> bytes:
    """`value` as JSON; what cannot be stored is left for the reader to refuse."""
    encode = partial(json.dumps, value, separators=(",", ":"), default=to_jsonable_python)
    try:
        try:
            return encode(ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return encode().encode()
    except (TypeError, ValueError, RecursionError) as wrong:
        raise Invalid(FieldError(name, "json", f"It is not JSON: {str(wrong)[:200]}")) from None


def _check_size(body: bytes, limit: int, name: str) -> None:
    if len(body) > limit:
        raise Invalid(FieldError(name, "too_large", f"It has {len(body)} bytes; {limit} are allowed."))
