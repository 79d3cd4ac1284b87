"""A WSGI application under an event loop: what takes a thread, and for how long."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from project.web.threads import WAITED, InThreads, environ_of

SCOPE = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "query_string": b"",
    "headers": [],
}


class Response:
    """What a WSGI application gives, as Django's responses are."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    def close(self) -> None:
        self.closed = True


class Stream(Response):
    is_async = True

    async def __aiter__(self) -> AsyncIterator[bytes]:  # type: ignore[override]
        for part in self.parts:
            yield part
        await asyncio.Event().wait()


class Client:
    """One who leaves once `leaves` is set."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.leaves = asyncio.Event()
        self.asked = [{"type": "http.request", "body": b""}]

    async def receive(self) -> dict[str, Any]:
        if self.asked:
            return self.asked.pop()
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def test_an_answer_that_is_to_come_is_asked_for_once_more_under_the_same_id() -> None:
    seen: list[tuple[str | None, bool]] = []
    waited: list[str] = []

    async def until() -> None:
        waited.append(threading.current_thread().name)

    def application(environ: dict[str, Any], start_response: Any) -> Response:
        seen.append((environ.get("HTTP_X_REQUEST_ID"), WAITED in environ))
        start_response("200 OK", [("X-Request-ID", "one")])
        response = Response(b"final")
        if len(seen) == 1:
            response.until = until  # type: ignore[attr-defined]
        return response

    async def ask() -> Client:
        client = Client()
        await InThreads(application, 1, "few")(SCOPE, client.receive, client.send)
        return client

    client = asyncio.run(ask())
    assert seen == [(None, False), ("one", True)]
    assert waited == [threading.current_thread().name], "the loop waited, and no thread did"
    assert [message.get("body") for message in client.sent] == [None, b"final"]


def test_who_leaves_is_not_waited_for_and_their_stream_is_closed() -> None:
    stream, late = Stream(b"first"), Response(b"late")

    async def never() -> None:
        await asyncio.Event().wait()

    late.until = never  # type: ignore[attr-defined]

    async def ask(response: Response) -> Client:
        def application(_: dict[str, Any], start_response: Any) -> Response:
            start_response("200 OK", [])
            return response

        client = Client()
        asyncio.get_running_loop().call_later(0.1, client.leaves.set)
        async with asyncio.timeout(20):
            await InThreads(application, 1, "few")(SCOPE, client.receive, client.send)
        return client

    assert [message.get("body") for message in asyncio.run(ask(stream)).sent] == [None, b"first"]
    assert asyncio.run(ask(late)).sent == []
    assert stream.closed
    assert late.closed


def test_a_stream_holds_no_thread() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Response:
        start_response("200 OK", [])
        return Stream(b"first") if environ["PATH_INFO"] == "/stream" else Response(b"at once")

    async def ask() -> list[dict[str, Any]]:
        served = InThreads(application, 1, "one")
        streaming = [Client() for _ in range(20)]
        paths = {**SCOPE, "path": "/stream"}
        tasks = [asyncio.ensure_future(served(paths, one.receive, one.send)) for one in streaming]
        client = Client()
        async with asyncio.timeout(20):
            while not all(one.sent for one in streaming):
                await asyncio.sleep(0.01)
            await served(SCOPE, client.receive, client.send)
            for one in streaming:
                one.leaves.set()
            await asyncio.gather(*tasks)
        return client.sent

    assert asyncio.run(ask())[-1]["body"] == b"at once"


def test_a_header_counts_under_its_own_name_alone() -> None:
    headers = [
        (b"x_forwarded_for", b"198.51.100.66"),
        (b"x-forwarded-for", b"203.0.113.7"),
        (b"x-forwarded-for", b"203.0.113.8"),
        (b"content_length", b"5"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
    ]
    environ = environ_of({**SCOPE, "headers": headers, "client": ("192.0.2.1", 9)})
    assert environ["HTTP_X_FORWARDED_FOR"] == "203.0.113.7,203.0.113.8"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert "CONTENT_LENGTH" not in environ
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
