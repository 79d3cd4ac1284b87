"""Django under an event loop: a WSGI application whose requests have threads of their own, and whose streams have none.

An answer that is still to come takes no thread either. A response whose content is an async iterator is sent by the
loop. A response that has `until`, a coroutine function, is not sent: it is awaited, and then the request is asked once
more, with what the application put into its environ. There WAITED is when it came, by perf_counter.
"""

import asyncio
import io
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from project.web.unread_body import SILENT_SECONDS, Received

T = TypeVar("T")
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
WSGIApplication = Callable[[dict[str, Any], Any], Iterable[bytes]]

WAITED = "ordered_work.waited"
AT_ONCE = 64 * 1024  # bytes of a body that are read before it has a thread: who sends slowly keeps none


class InThreads:
    """An ASGI application that runs a WSGI application in `count` threads; the others wait for their turn."""

    def __init__(self, application: WSGIApplication, count: int, name: str) -> None:
        self.application = application
        self.threads = ThreadPoolExecutor(count, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        environ = environ_of(scope)
        body = Received(environ, receive)
        if body.declared <= AT_ONCE:
            environ["wsgi.input"] = io.BytesIO(await body.whole())
        else:
            environ["wsgi.input"] = io.BufferedReader(_Lazy(body, asyncio.get_running_loop()))
        arrived = time.perf_counter()
        answer = await self.answer(environ, send)
        if answer.until is not None:
            if not await _unless_gone(receive, answer.until()):
                return
            again = {"HTTP_X_REQUEST_ID": answer.header("X-Request-ID"), WAITED: arrived, "wsgi.input": io.BytesIO()}
            answer = await self.answer({**environ, **again}, send)
        await body.read_on()
        if answer.sent:
            return
        if answer.stream is None:
            await send(answer.start)
            await send({"type": "http.response.body", "body": answer.content})
            return
        try:
            await _unless_gone(receive, _stream(answer, send))
        finally:
            answer.stream.close()

    async def run(self, do: Callable[..., T], *values: Any) -> T:
        """What comes of it, done in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, do, *values)

    async def answer(self, environ: dict[str, Any], send: Send) -> "_Answer":
        loop = asyncio.get_running_loop()
        return await self.run(self._answer, environ, loop, send)

    def _answer(self, environ: dict[str, Any], loop: asyncio.AbstractEventLoop, send: Send) -> "_Answer":
        answer = _Answer()
        response: Any = self.application(environ, answer.begin)
        answer.until = getattr(response, "until", None)
        if getattr(response, "is_async", False):
            answer.stream = response
            return answer
        try:
            if answer.until is None and getattr(response, "streaming", False):
                answer.sent = True
                self._send(answer, response, loop, send)
            else:
                answer.content = b"".join(response)
        finally:
            if hasattr(response, "close"):
                response.close()
        return answer

    def _send(self, answer: "_Answer", parts: Iterable[bytes], loop: asyncio.AbstractEventLoop, send: Send) -> None:
        """Send what is made bit by bit, a file or a table, from the thread that makes it."""

        def send_it(message: dict[str, Any]) -> None:
            sending = asyncio.run_coroutine_threadsafe(_sent(send, message), loop)
            try:
                sending.result(SILENT_SECONDS)
            except TimeoutError:
                sending.cancel()
                raise ConnectionResetError("the client stopped reading") from None

        send_it(answer.start)
        for part in parts:
            send_it({"type": "http.response.body", "body": part, "more_body": True})
        send_it({"type": "http.response.body", "body": b""})


class _Answer:
    """What a WSGI application answers."""

    start: dict[str, Any]
    content = b""
    stream: Any = None
    until: Callable[[], Coroutine[Any, Any, Any]] | None = None
    sent = False

    def begin(self, status: str, headers: Sequence[tuple[str, str]], *_: Any) -> None:
        encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self.start = {"type": "http.response.start", "status": int(status[:3]), "headers": encoded}

    def header(self, name: str) -> str:
        named: dict[bytes, bytes] = dict(self.start["headers"])
        return named.get(name.lower().encode(), b"").decode("latin-1")


class _Lazy(io.RawIOBase):
    """A large body, for the thread that reads it."""

    def __init__(self, body: Received, loop: asyncio.AbstractEventLoop) -> None:
        self.body, self.loop, self.left = body, loop, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.left:
            self.left = asyncio.run_coroutine_threadsafe(self.body.part(), self.loop).result()
        part, self.left = self.left[: len(buffer)], self.left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


async def _sent(send: Send, message: dict[str, Any]) -> None:
    await send(message)


async def _stream(answer: _Answer, send: Send) -> None:
    """Send what an async iterator gives, until it ends."""
    await send(answer.start)
    async for part in answer.stream:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _unless_gone(receive: Receive, doing: Coroutine[Any, Any, Any]) -> bool:
    """Whether it came to its end before its client left, which cancels it. Raises what it raises."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, leaving = asyncio.ensure_future(doing), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not task.cancelled():
            task.result()  # what it raises is raised here
        return task.done()
    finally:
        for one in (task, leaving):
            one.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


def environ_of(scope: Scope) -> dict[str, Any]:
    """The WSGI environ of a request. A header whose name has an underscore is passed over: it would count as another's.

    X_Forwarded_For and X-Forwarded-For are one name there, and a proxy overwrites only the one.
    """
    host, port = (scope.get("server") or ("localhost", 80))[:2]
    client = scope.get("client")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": scope.get("root_path", ""),
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": str(host),
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if client:
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = str(client[0]), str(client[1])
    for raw, value in scope["headers"]:
        if b"_" in raw:
            continue
        name = raw.decode("latin-1").upper().replace("-", "_")
        name = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
        text = value.decode("latin-1")
        if name in environ:
            text = environ[name] + ("; " if name == "HTTP_COOKIE" else ",") + text
        environ[name] = text
    return environ
