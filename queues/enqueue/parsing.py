"""From the body of a POST to what is asked for: every error named, the payload kept to the letter."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.utils import timezone
from pydantic import BaseModel, ValidationError

from project.rest.problems import FieldError, Invalid
from queues import kinds
from queues.exceptions import UnknownKind
from queues.kinds import Kind
from queues.values import Submission

LARGEST_BATCH = 500
FARTHEST = timedelta(days=366)  # how far ahead not_before may lie
MOST_ERRORS = 20  # named in one answer
FIELDS = frozenset({"kind", "payload", "version", "not_before", "expires_at"})
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)


# A payload is kept as the text that it was sent in: to decode it and encode it again would change numbers that a
# double does not hold. `project.rest.parsers.loads` has found the body good before it is read here.


class _WithPayload(msgspec.Struct, gc=False):
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _WithRequests(msgspec.Struct, gc=False):
    requests: list[msgspec.Raw]


_payload_in = msgspec.json.Decoder(_WithPayload).decode
_requests_in = msgspec.json.Decoder(_WithRequests).decode


def payload_text(body: bytes | msgspec.Raw) -> str | None:
    """The payload in the object that `body` is, as the text that was sent; None when it has none."""
    payload = _payload_in(body).payload
    return None if payload is msgspec.UNSET else str(payload, "utf-8")


def read_one(data: Any, body: bytes) -> Submission:
    """The submission in a body and its decoded `data`. Raises Invalid."""
    errors: list[FieldError] = []
    submission = None
    if isinstance(data, dict):
        submission = _submission(data, payload_text(body), "", timezone.now(), errors)
    else:
        errors.append(FieldError("", "type", "Send an object with kind and payload."))
    if submission is None:
        raise Invalid(*errors[:MOST_ERRORS])
    return submission


def read_batch(data: Any, body: bytes) -> list[Submission]:
    """The submissions in `{"requests": [..]}`, in order. Raises Invalid, and then none is meant."""
    if not isinstance(data, dict) or not isinstance(data.get("requests"), list):
        raise Invalid(FieldError("requests", "required", f"Send an array of 1 to {LARGEST_BATCH} requests."))
    entries = data["requests"]
    errors = [_unknown(name) for name in data if name != "requests"]
    if not 1 <= len(entries) <= LARGEST_BATCH:
        errors.append(FieldError("requests", "length", f"A batch holds 1 to {LARGEST_BATCH} requests."))
        raise Invalid(*errors[:MOST_ERRORS])
    now = timezone.now()
    submissions = []
    for number, (entry, sent) in enumerate(zip(entries, _requests_in(body).requests, strict=True)):
        path = f"requests.{number}"
        if not isinstance(entry, dict):
            errors.append(FieldError(path, "type", "Write an object with kind and payload."))
        elif len(errors) < MOST_ERRORS:
            submissions.append(_submission(entry, payload_text(sent), f"{path}.", now, errors))
    if errors:
        raise Invalid(*errors[:MOST_ERRORS])
    return [submission for submission in submissions if submission]


def _submission(
    data: dict[str, Any], payload: str | None, path: str, now: datetime, errors: list[FieldError]
) -> Submission | None:
    """One submission; None when something was added to `errors`."""
    before = len(errors)
    if not data.keys() <= FIELDS:
        errors += [_unknown(path + name) for name in data if name not in FIELDS]
    kind = _kind(data, path, errors)
    if payload is None:
        errors.append(FieldError(f"{path}payload", "required", "This field is required; it may be null."))
    elif kind is not None and kind.schema is not None:
        _check_payload(kind.schema, payload, path, errors)
    not_before = _time(data, "not_before", path, errors)
    expires_at = _time(data, "expires_at", path, errors)
    if not_before is not None and not_before > now + FARTHEST:
        errors.append(FieldError(f"{path}not_before", "too_far", "not_before may lie a year ahead, not more."))
    if expires_at is not None and expires_at <= now:
        errors.append(FieldError(f"{path}expires_at", "past", "expires_at must lie ahead."))
    elif expires_at is not None and not_before is not None and expires_at <= not_before:
        errors.append(FieldError(f"{path}expires_at", "order", "expires_at must come after not_before."))
    if len(errors) > before or kind is None or payload is None:
        return None
    return Submission(kind, payload, not_before if not_before and not_before > now else None, expires_at)


def _unknown(path: str) -> FieldError:
    return FieldError(path[:200], "unknown", "This field is not known here.")


def _kind(data: dict[str, Any], path: str, errors: list[FieldError]) -> Kind | None:
    name, version = data.get("kind"), data.get("version")
    if not isinstance(name, str):
        code, said = ("type", "Write a string.") if "kind" in data else ("required", "This field is required.")
        errors.append(FieldError(f"{path}kind", code, said))
        return None
    if version is not None and type(version) is not int:
        errors.append(FieldError(f"{path}version", "type", "Write an integer, or leave it out for the newest."))
        return None
    try:
        return kinds.find_offered(name, version)
    except UnknownKind:
        versions = [str(kind.version) for kind in kinds.offered() if kind.name == name]
        if versions:
            said = f"{name} has no such version; there is {', '.join(versions)}."
            errors.append(FieldError(f"{path}version", "unknown_version", said))
        else:
            known = ", ".join(sorted({kind.name for kind in kinds.offered() if kind.permission is None}))
            errors.append(FieldError(f"{path}kind", "unknown_kind", f"This kind is not known; there is {known}."))
        return None


def _check_payload(schema: type[BaseModel], payload: str, path: str, errors: list[FieldError]) -> None:
    """As the worker will read it: from the text, so that both agree on what fits."""
    try:
        schema.model_validate_json(payload)
    except ValidationError as wrong:
        for error in wrong.errors(include_url=False, include_context=False, include_input=False)[:MOST_ERRORS]:
            where = ".".join(str(part) for part in ("payload", *error["loc"]))
            errors.append(FieldError(f"{path}{where}"[:200], error["type"], error["msg"]))


def _time(data: dict[str, Any], name: str, path: str, errors: list[FieldError]) -> datetime | None:
    value = data.get(name)
    if value is None:
        return None
    time = read_time(value) if isinstance(value, str) else None
    if time is None:
        errors.append(FieldError(path + name, "time", "Write a time with offset as RFC 3339: 2026-11-20T09:30:00Z."))
    return time


def read_time(text: str) -> datetime | None:
    """A time of RFC 3339, in UTC; None when it is none."""
    if not RFC3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
