"""What both clients share and neither sends: calls, what an answer means, when to try again, events out of lines."""

import json
import random
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from ordered_work.errors import BY_STATUS, ApiError, OrderedWorkError, Unreachable
from ordered_work.models import Event, Queue, Request, Submission

RETRIED = frozenset({429, 502, 503, 504})
LONGEST_POLL = 30  # seconds that the service holds ?wait=
READ_SECONDS = 10.0
SILENT_SECONDS = 60.0  # a stream says something far sooner than that


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `repeatable`: doing it twice is doing it once, by its method or by its idempotency key."""

    method: str
    path: str
    body: Any = None
    key: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    authenticated: bool = True
    read_seconds: float = READ_SECONDS

    @property
    def repeatable(self) -> bool:
        return self.method in ("GET", "DELETE") or self.key is not None

    def request(self, client: httpx.Client | httpx.AsyncClient, access: str) -> httpx.Request:
        headers = {"Authorization": f"Bearer {access}"} if self.authenticated else {}
        if self.key is not None:
            headers["Idempotency-Key"] = self.key
        timeout = httpx.Timeout(READ_SECONDS, read=self.read_seconds)
        json_body = {} if self.body is None else {"json": self.body}
        return client.build_request(
            self.method, f"/api/v1/{self.path}", params=self.params, headers=headers, timeout=timeout, **json_body
        )


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a call that can be repeated is tried, and the pauses between, in seconds."""

    attempts: int = 5
    first: float = 0.2
    longest: float = 10.0

    def pause(self, attempt: int, retry_after: float | None = None) -> float | None:
        """Before the attempt after this one; None: there is none, or it would have to wait for too long."""
        if attempt >= self.attempts or (retry_after or 0) > self.longest:
            return None
        return self.backoff(attempt, retry_after)

    def backoff(self, attempt: int, retry_after: float | None = None) -> float:
        """The same, however many there were."""
        doubled = min(self.longest, self.first * 2.0 ** min(attempt - 1, 50))  # beyond 1,023 it would overflow
        return max(doubled * random.uniform(0.5, 1.0), retry_after or 0)  # noqa: S311  (no secret)


def login(username: str, password: str) -> Call:
    return Call("POST", "auth/token", {"username": username, "password": password}, authenticated=False)


def refresh(token: str, key: str) -> Call:
    return Call("POST", "auth/token/refresh", {"refresh": token}, key, authenticated=False)


def submit(asked: Submission, key: str | None) -> Call:
    return Call("POST", "requests", asked.body(), key or uuid.uuid4().hex)


def submit_batch(asked: Sequence[Submission], key: str | None) -> Call:
    return Call("POST", "requests/batch", {"requests": [one.body() for one in asked]}, key or uuid.uuid4().hex)


def verb(path: str) -> Call:
    return Call("POST", path)


def retry(request_id: str, key: str | None) -> Call:
    return Call("POST", f"requests/{request_id}/retry", key=key or uuid.uuid4().hex)


def poll(request_id: str, left: float | None) -> Call:
    seconds = LONGEST_POLL if left is None else max(0, min(LONGEST_POLL, int(left)))
    return Call("GET", f"requests/{request_id}", params={"wait": seconds}, read_seconds=seconds + READ_SECONDS)


def listed(filters: dict[str, Any], cursor: str | None) -> Call:
    params = {name: value for name, value in filters.items() if value is not None}
    return Call("GET", "requests", params=params | ({"cursor": cursor} if cursor else {}))


def cursor_of(url: str | None) -> str | None:
    """What leads to the next page; the address itself may be one that only the service's own network knows."""
    return httpx.URL(url).params["cursor"] if url else None


def retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None


def read(response: httpx.Response) -> Any:
    """The answer's JSON. Raises the ApiError that it means."""
    if response.is_success:
        return response.json() if response.content else None
    raise error_of(response)


def error_of(response: httpx.Response) -> ApiError:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    kind = BY_STATUS.get(response.status_code, ApiError)
    return kind(response.status_code, problem if isinstance(problem, dict) else {}, retry_after(response))


class EventReader:
    """Makes events out of the lines of a stream, and keeps the id to go on from, and when something last came."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.heard_at = time.monotonic()
        self._fields: dict[str, str] = {}

    def feed(self, line: str) -> Event | None:
        """The event that ends with this line, if one does."""
        self.heard_at = time.monotonic()
        if line:
            name, _, value = line.partition(":")
            if name:
                self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        self.last_id = fields.get("id", self.last_id)
        shown = json.loads(fields["data"])
        if fields.get("event") == "request":
            return Event(self.last_id, request=Request.read(shown))
        return Event(self.last_id, queue=Queue.read(shown)) if fields.get("event") == "queue" else None

    def call(self) -> tuple[str, dict[str, str]]:
        """Path and headers with which to open the stream, or to go on with it."""
        self._fields = {}
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.last_id} if self.last_id else {})
        return "/api/v1/queue/events", headers


def reconnect_after(
    failures: int, error: Exception, patience: Patience, heard_at: float, give_up_after: float | None
) -> float:
    """Seconds before the next try of a stream that failed so many times. Raises what the error means, if it does not
    heal by itself, or nothing would have been heard for longer than `give_up_after`.
    """
    refused = error if isinstance(error, ApiError) else None
    pause = patience.backoff(failures, refused.retry_after if refused else None)
    if refused and refused.status not in RETRIED:
        raise refused
    if give_up_after is not None and time.monotonic() + pause - heard_at > give_up_after:
        raise error if isinstance(error, OrderedWorkError) else Unreachable(str(error)) from error
    return pause


def submissions(asked: Iterable[Submission | tuple[str, Any]]) -> list[Submission]:
    """Also pairs of kind and payload. Raises OrderedWorkError when there is nothing to ask for."""
    found = [one if isinstance(one, Submission) else Submission(*one) for one in asked]
    if not found:
        raise OrderedWorkError("A batch has at least one request.")
    return found
