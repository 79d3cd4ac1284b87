"""One HTTP call as a browser would make it: redirects followed, secrets kept, the answer cut to size."""

import base64
import codecs
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import urljoin

import httpcore
from pydantic import HttpUrl, ValidationError

from processing.handlers import Reject
from processing.http_call.schema import Call, read_url
from processing.http_call.ssrf import HTTP_CALL, Caller
from processing.http_call.transport import Backend, Budget, CallFailed, tls

BODY_KEPT = 64 * 1024  # bytes
MOST_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})

DESCRIBES_BODY = frozenset({"content-encoding", "content-language", "content-location", "content-type"})
# What another origin is told: anything else may be a secret.
FORWARDED = DESCRIBES_BODY | {"accept", "accept-language", "user-agent"}


@dataclass(frozen=True, slots=True)
class Hop:
    """One request on the wire."""

    method: str
    url: HttpUrl
    headers: dict[str, str]
    content: bytes | None

    @classmethod
    def first(cls, call: Call) -> Self:
        content, content_type = call.content()
        headers = dict(call.headers)
        if content_type and "content-type" not in {name.lower() for name in headers}:
            headers["Content-Type"] = content_type
        return cls(call.method, call.url, headers, content)

    def to(self, status: int, location: str) -> Self:
        """Where a redirect leads, as the Fetch standard has it (HTTP-redirect fetch). Raises Reject."""
        try:
            url = read_url.validate_python(urljoin(str(self.url), location))
        except (ValidationError, ValueError):
            raise Reject(f"The server answered {status} with a Location that cannot be followed.") from None
        hop = replace(self, url=url)
        if (status in (301, 302) and self.method == "POST") or (status == 303 and self.method not in ("GET", "HEAD")):
            kept = {name: value for name, value in self.headers.items() if name.lower() not in DESCRIBES_BODY}
            hop = replace(hop, method="GET", headers=kept, content=None)
        if _origin(url) != _origin(self.url):
            kept = {name: value for name, value in hop.headers.items() if name.lower() in FORWARDED}
            hop = replace(hop, headers=kept)
        return hop


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said; `body` has at most one byte more than is kept."""

    url: HttpUrl
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def location(self) -> str | None:
        """Where it sends the call on to."""
        if self.status not in REDIRECTS:
            return None
        return next((value for name, value in self.headers if name == "location"), None)

    def as_result(self) -> dict[str, Any]:
        """As a request's result: the body is text when it is UTF-8 without NUL, else base64."""
        headers: dict[str, str] = {}
        for name, value in self.headers:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        truncated = len(self.body) > BODY_KEPT
        kept = self.body[:BODY_KEPT]
        text = _text(kept, truncated)
        return {
            "status": self.status,
            "url": str(self.url),
            "headers": headers,
            "body": base64.b64encode(kept).decode() if text is None else text,
            "body_encoding": "base64" if text is None else "utf-8",
            "truncated": truncated,
        }


def follow(call: Call, added: dict[str, str], budget: Budget) -> Answer:
    """The last answer of the call and its redirects; `added` are headers that each gets, unless the call has its own.

    Raises CallFailed when none came, Reject when it must not be made, GivenUp.
    """
    hop = Hop.first(call)
    for _ in range(MOST_REDIRECTS + 1):
        answer = ask(hop, added, budget)
        if answer.location is None:
            return answer
        hop = hop.to(answer.status, answer.location)
    raise Reject(f"The server sent the call on more than {MOST_REDIRECTS} times.")


def ask(hop: Hop, added: dict[str, str], budget: Budget, caller: Caller = HTTP_CALL) -> Answer:
    """Send one request and read its answer. Raises as `follow` does."""
    host = (hop.url.host or "").strip("[]")
    target = (hop.url.path or "/") + ("" if hop.url.query is None else f"?{hop.url.query}")
    url = httpcore.URL(scheme=hop.url.scheme, host=host, port=hop.url.port, target=target)
    content = b"" if hop.content is None and hop.method in ("POST", "PUT", "PATCH") else hop.content
    with Backend(budget, caller) as backend:
        connection = httpcore.HTTPConnection(url.origin, ssl_context=tls(), network_backend=backend)
        try:
            with connection.stream(hop.method, url, headers=_headers(hop, added), content=content) as response:
                headers = [(name.decode("ascii").lower(), _header(value)) for name, value in response.headers]
                body = b"" if response.status in REDIRECTS else _beginning(response)
                return Answer(hop.url, response.status, headers, body)
        except (httpcore.ProtocolError, httpcore.NetworkError, httpcore.TimeoutException) as error:
            raise CallFailed(f"The server's answer could not be read: {error}") from error


def _headers(hop: Hop, added: dict[str, str]) -> list[tuple[str, str]]:
    given = {name.lower() for name in hop.headers}
    host = hop.url.host or ""
    default = {"http": 80, "https": 443}[hop.url.scheme]
    own = [
        ("Host", host if hop.url.port in (None, default) else f"{host}:{hop.url.port}"),
        ("Connection", "close"),
    ]
    # Unasked, nothing is compressed: what is kept of the body can be read, and nothing can swell.
    added = {"User-Agent": "ordered-work", "Accept": "*/*", "Accept-Encoding": "identity"} | added
    own += [(name, value) for name, value in added.items() if name.lower() not in given]
    return own + list(hop.headers.items())


def _beginning(response: httpcore.Response) -> bytes:
    """As much of the body as shows whether it is too long; the rest is never read."""
    body = bytearray()
    for part in response.iter_stream():
        body += part
        if len(body) > BODY_KEPT:
            break
    return bytes(body[: BODY_KEPT + 1])


def _header(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _text(body: bytes, cut: bool) -> str | None:
    """The body as text, without the part of a character that a cut left at its end; None: it is none."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(body, final=not cut)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _origin(url: HttpUrl) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port
