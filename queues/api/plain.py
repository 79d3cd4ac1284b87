"""What is plain enough for the fast path: a call that asks for nothing but what most calls ask for."""

import time
from typing import Any

from django.conf import settings

from accounts.authentication import bearer
from accounts.tokens import Claims
from project.rest.parsers import loads
from project.rest.problems import Problem
from project.web.threads import Receive, Scope
from queues import kinds
from queues.api.slow_kinds import SLOW_SECONDS, SlowKinds
from queues.enqueue.parsing import read_one
from queues.values import Submission

# All wait while a body is read on the event loop: a few milliseconds for one of this size, whatever is in it, 50 for
# the largest that is allowed. Of larger ones Django's threads accept as many a second as the fast path does.
LARGEST = 8 * 1024
JSON = (b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8")
UNUSUAL = frozenset(
    {
        b"transfer-encoding",
        b"content-encoding",
        b"idempotency-key",
        b"origin",
        b"expect",
        b"access-control-request-method",
    }
)


def plain_length(scope: Scope, sent: dict[bytes, bytes]) -> int:
    """The body's length; 0 unless the query and the headers ask for nothing but that this body be accepted."""
    length = sent.get(b"content-length", b"")
    usual = (
        len(sent) == len(scope["headers"])  # no header came twice
        and sent.get(b"content-type", b"").lower() in JSON
        and len(length) < 10
        and length.isdigit()
        and not scope["query_string"]
        and not scope.get("root_path")
        and UNUSUAL.isdisjoint(sent)
    )
    return int(length) if usual and int(length) <= min(LARGEST, settings.BODY_LIMIT) else 0


def plain_read(scope: Scope, sent: dict[bytes, bytes]) -> bool:
    """Whether the query and the headers ask for nothing but that this be shown."""
    once = len(sent) == len(scope["headers"])
    return once and not scope["query_string"] and b"content-length" not in sent and UNUSUAL.isdisjoint(sent)


def verified(sent: dict[bytes, bytes]) -> Claims | None:
    """Who a signed token says is calling; None where Django has something to say to it."""
    try:
        return bearer({"HTTP_AUTHORIZATION": sent.get(b"authorization", b"").decode("latin-1")})
    except Problem:
        return None


def plainly_submitted(body: bytes, slow: SlowKinds) -> Submission | None:
    """What a body that fits asks for now; None where Django has something to say to it, be it that a schema crashed."""
    try:
        asked = loads(body)
        kind = kinds.find(asked["kind"], asked.get("version"))
        if kind in slow:
            return None
        began, cpu = time.perf_counter(), time.thread_time()
        try:
            submission = read_one(asked, body)
        finally:
            if kind.schema and time.perf_counter() - began > SLOW_SECONDS:
                slow.took_long(kind, time.thread_time() - cpu)
    except Exception:  # a schema that looks into PostgreSQL is among them: Django refuses that on an event loop
        return None
    return submission if submission.not_before is None else None


async def received(receive: Receive, length: int) -> bytes:
    """The whole body of so many bytes. Raises ConnectionResetError where it does not come.

    The server sees to it that a body has its length; to be told that it is over costs as much as the body did.
    """
    parts, left = [], length
    while left > 0:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionResetError("the client stopped sending")
        parts.append(message.get("body", b""))
        left -= len(parts[-1])
        if not message.get("more_body"):
            break
    return b"".join(parts)


def replay(body: bytes, receive: Receive) -> Receive:
    """`receive` for who comes after one that has read the whole body."""
    left: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> dict[str, Any]:
        return left.pop() if left else await receive()

    return again
