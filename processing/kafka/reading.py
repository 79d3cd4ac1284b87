"""From a message to what it asks for: every error names its field, and the payload stays to the letter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings

from project.rest.parsers import loads
from project.rest.problems import FieldError, Invalid
from queues.enqueue.parsing import read_one
from queues.values import Submission

FIELDS = ("eventId", "timestamp", "type", "payload")
LONGEST_ID = 255
LAST_MOMENT = 253_402_300_799_999  # the year 9999, in milliseconds

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came, and when it was sent (ms since the epoch; 0: nobody says)."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    sent_ms: int = 0

    @property
    def size(self) -> int:
        return len(self.key or b"") + len(self.value or b"") + 200


class Rejection(Exception):
    """No request can be made of a message. `reason` is one of metrics.REASONS, `detail` for people."""

    def __init__(self, reason: str, detail: str, event_id: str = "") -> None:
        super().__init__(detail)
        self.reason, self.detail, self.event_id = reason, detail[:1000], event_id


@dataclass(frozen=True, slots=True)
class Event:
    """What a message asks for; `user` is the id or name that it gives."""

    message: Message
    event_id: str
    user: str
    submission: Submission


def as_uuid(text: str) -> UUID | None:
    """The UUID that is written here as UUIDs are; None: it is something else."""
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text.lower() else None


def read(message: Message) -> Event:
    """What it asks for. Raises Rejection."""
    value = message.value
    if value is None:
        raise Rejection("empty", "The message has no value.")
    if len(value) > settings.BODY_LIMIT:
        raise Rejection("too_large", f"It has {len(value)} bytes; {settings.BODY_LIMIT} are allowed.")
    try:
        data = loads(value)
    except Invalid as wrong:
        raise Rejection("json", _told(wrong.errors)) from None
    event_id = _checked(data)
    try:
        submission = read_one({"kind": data["type"], "payload": data["payload"]}, value)
    except Invalid as wrong:
        raise Rejection("invalid", _told(wrong.errors), event_id) from None
    except Exception as defect:  # a schema of somebody's kind that crashes: the others' messages go on
        log.exception("a schema is broken", kind=data["type"])
        raise Rejection("invalid", f"payload: {type(defect).__name__} in its schema.", event_id) from None
    return Event(message, event_id, _user(message, data["payload"], event_id), submission)


def _checked(data: Any) -> str:
    """Its eventId. Raises Rejection, with all that is wrong beside type and payload."""
    if not isinstance(data, dict):
        raise Rejection("invalid", f"Send an object with {', '.join(FIELDS)}.")
    errors = [FieldError(name, "required", "This field is required.") for name in FIELDS if name not in data]
    errors += [FieldError(name[:200], "unknown", "This field is not known here.") for name in data.keys() - {*FIELDS}]
    event_id, sent = data.get("eventId", ""), data.get("timestamp", 0)
    if "eventId" in data and not (isinstance(event_id, str) and 1 <= len(event_id) <= LONGEST_ID):
        errors.append(FieldError("eventId", "type", f"Write a string of 1 to {LONGEST_ID} characters."))
        event_id = ""
    if type(sent) is not int or not 0 <= sent <= LAST_MOMENT:
        errors.append(FieldError("timestamp", "type", "Write milliseconds since the epoch, as an integer."))
    if errors:
        raise Rejection("invalid", _told(errors), event_id)
    return str(event_id)


def _user(message: Message, payload: Any, event_id: str) -> str:
    """The user's id or name, from where KAFKA_USER says. Raises Rejection."""
    where, _, name = settings.ENV.kafka_user.partition(":")
    found: Any = message.key
    if where == "header":
        found = next((value for key, value in reversed(message.headers) if key == name), None)
    elif where == "payload":
        found = payload
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, bytes):
        try:
            found = found.decode()
        except UnicodeDecodeError:
            found = None
    if not isinstance(found, str) or not 1 <= len(found) <= LONGEST_ID or "\0" in found:
        raise Rejection("user", f"{settings.ENV.kafka_user}: there is no user's id or name.", event_id)
    return found


def _told(errors: Sequence[FieldError]) -> str:
    """The errors in a line, by the message's own names."""
    return " ".join(f"{'type' if one.field == 'kind' else one.field or 'value'}: {one.detail}" for one in errors)
