"""Reads on a little where an answer came before the end of the body, so that common clients see the answer.

Most clients send all of a body before they look for an answer. If the server closes the connection meanwhile, they
report a broken pipe and never see the 413. So the rest is read and thrown away, within limits.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]

SMALL = 64 * 1024  # bytes that a connection's buffers hold: a shorter rest breaks no pipe
MOST_BYTES = 16 * 1024 * 1024
MOST_SECONDS = 2.0
THREADS = 2  # read on at once; whoever comes meanwhile is answered without. Who sends slowly keeps one of them busy
CHUNK = 64 * 1024


class _Counted:
    """The body, and how many bytes of it were read."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.count = 0

    def read(self, *size: int) -> bytes:
        data: bytes = self.stream.read(*size)
        self.count += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class UnreadBody:
    """A WSGI application that reads the rest of a large body before the answer of another one is sent.

    It needs THREADS threads of the server beside those of the other one.
    """

    def __init__(self, application: Application) -> None:
        self.application = application
        self.free = threading.BoundedSemaphore(THREADS)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        length = declared(environ)
        if length <= SMALL:
            return self.application(environ, start_response)
        body = environ["wsgi.input"] = _Counted(environ["wsgi.input"])
        answer = self.application(environ, start_response)
        # Who expects a 100 Continue has sent nothing yet, and sees the answer without.
        if SMALL < length - body.count <= MOST_BYTES and "HTTP_EXPECT" not in environ:
            self.read_on(body)
        return answer

    def read_on(self, body: _Counted) -> None:
        """Read the rest, if a thread is free for it."""
        if not self.free.acquire(blocking=False):
            return
        try:
            until, left = time.monotonic() + MOST_SECONDS, MOST_BYTES
            while left > 0 and time.monotonic() < until and (data := body.read(CHUNK)):
                left -= len(data)
        finally:
            self.free.release()


def declared(environ: Environ) -> int:
    """Bytes that the body has; without a length, as many as are read on."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return MOST_BYTES
    length = environ.get("CONTENT_LENGTH") or "0"
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else 0
