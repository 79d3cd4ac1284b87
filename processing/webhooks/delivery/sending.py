"""Sends one message: one POST, within a time and a size, to an address that is looked at when it is connected to."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from accounts.audit import printable
from processing.handlers import Reject
from processing.http_call.client import REDIRECTS, Hop, ask
from processing.http_call.transport import Budget, CallFailed, GivenUp
from processing.webhooks.delivery import signing
from processing.webhooks.delivery.addresses import WEBHOOKS, read
from processing.webhooks.showing import message_id

BODY_KEPT = 1024  # bytes of the answer
LONGEST_ERROR = 300


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent, and where. `id` is the row's."""

    id: int
    uid: UUID
    url: str
    secrets: tuple[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt. `status` is None when no answer came; `retry_after` is in seconds."""

    status: int | None
    seconds: float
    body: str = ""
    error: str = ""
    retry_after: float = 0.0

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def send(message: Message, given_up: Callable[[], bool]) -> Answer | None:
    """The receiver's answer, or why there is none. None: it was given up on the way. Redirects are not followed."""
    started = time.monotonic()
    signed = signing.headers(message_id(message.uid), int(time.time()), message.body, *message.secrets)
    headers = {"Content-Type": "application/json", "User-Agent": "ordered-work-webhooks", **signed}
    try:
        hop = Hop("POST", read(message.url), headers, message.body)  # what is allowed may have changed since
        answer = ask(hop, {}, Budget(settings.ENV.webhook_timeout_seconds, given_up), WEBHOOKS)
    except GivenUp:
        return None
    except (CallFailed, Reject, ValueError) as error:
        return Answer(None, time.monotonic() - started, error=printable(str(error))[:LONGEST_ERROR])
    seconds = time.monotonic() - started
    text = answer.body[:BODY_KEPT].decode(errors="replace").replace("\0", "\ufffd")
    if 200 <= answer.status < 300:
        return Answer(answer.status, seconds, text)
    retry_after = _retry_after(dict(answer.headers).get("retry-after", ""))
    return Answer(answer.status, seconds, text, _named(answer.status), retry_after)


def _named(status: int) -> str:
    if status in REDIRECTS:
        return f"The receiver answered {status}: redirects are not followed."
    try:
        return f"The receiver answered {status} {HTTPStatus(status).phrase}."
    except ValueError:
        return f"The receiver answered {status}."


def _retry_after(text: str) -> float:
    """Seconds; 0 where the header says nothing that can be read."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - timezone.now()).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0
