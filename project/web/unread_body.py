"""A body as it comes. Where an answer came before its end a little more is read, so that common clients see the answer.

Most clients send all of a body before they look for an answer. If the server closes the connection meanwhile, they
report a broken pipe and never see the 413. So the rest is read and thrown away, within limits.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

SMALL = 64 * 1024  # bytes that a connection's buffers hold: a shorter rest breaks no pipe
MOST_BYTES = 16 * 1024 * 1024
MOST_SECONDS = 2.0
SILENT_SECONDS = 30.0  # without a byte, until a body is given up ..
LONGEST_SECONDS = 60.0  # .. as it is when it takes longer: of a large one a thread waits for each part


class Received:
    """The body of a request. Raises OSError where no more of it comes."""

    def __init__(self, environ: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self.receive = receive
        self.declared = declared(environ)
        self.expected = "HTTP_EXPECT" in environ  # who waits for a 100 Continue has sent nothing yet
        self.count = 0
        self.until = 0.0  # on the event loop's clock, from the first part on
        self.over = self.declared == 0

    async def whole(self) -> bytes:
        """All of it, up to the declared length."""
        parts = []
        while part := await self.part():
            parts.append(part)
        return b"".join(parts)

    async def part(self) -> bytes:
        """The next bytes; none at its end."""
        while not self.over:
            now = asyncio.get_running_loop().time()
            self.until = self.until or now + LONGEST_SECONDS
            try:
                async with asyncio.timeout_at(min(now + SILENT_SECONDS, self.until)):
                    message = await self.receive()
            except TimeoutError:
                message = {"type": "http.disconnect"}
            if message["type"] == "http.disconnect":
                self.over = True
                raise ConnectionResetError("the client stopped sending")
            self.over = not message.get("more_body", False)
            if data := message.get("body", b""):
                self.count += len(data)
                return bytes(data)
        return b""

    async def read_on(self) -> None:
        """Read the rest of a large one, if it is soon here."""
        if self.over or self.expected or not SMALL < self.declared - self.count <= MOST_BYTES:
            return
        try:
            async with asyncio.timeout(MOST_SECONDS):
                while self.count < MOST_BYTES and await self.part():
                    pass
        except (TimeoutError, OSError):
            self.over = True


def declared(environ: dict[str, Any]) -> int:
    """Bytes that the body has; without a length, as many as are read on."""
    if "HTTP_TRANSFER_ENCODING" in environ:
        return MOST_BYTES
    length = environ.get("CONTENT_LENGTH") or "0"
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else 0
