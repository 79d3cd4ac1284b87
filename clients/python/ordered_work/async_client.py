"""The client for programs with an event loop: the verbs of `Client`, with `await`."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, Self

import httpx

from ordered_work import _protocol as protocol
from ordered_work._base import BaseClient
from ordered_work._protocol import Call, EventReader
from ordered_work.errors import ApiError, NotAuthenticated, StillRunning, Unreachable
from ordered_work.models import Event, Queue, Request, Submission


class AsyncClient(BaseClient[httpx.AsyncClient]):
    """Speaks as one user; safe for several tasks of a loop. Tokens are renewed by themselves; `refresh` is the newest.

    `http` replaces the httpx.AsyncClient: with another certificate authority, for example. Its base_url is the
    service's.
    """

    _http_class, _lock_class = httpx.AsyncClient, asyncio.Lock

    @classmethod
    async def login(cls, url: str, username: str, password: str, **more: Any) -> Self:
        """A client in a new session of the user. Raises NotAuthenticated."""
        client = cls(url, **more)
        client._speak_with(await client._call(protocol.login(username, password)))
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def submit(self, kind: str, payload: Any = None, *, key: str | None = None, **more: Any) -> Request:
        """Ask for one thing, after all that was asked for before. However often it has to be sent, it is done once.

        `key` makes that so across restarts of your program, too: the same for the same thing. `more`: version,
        not_before, expires_at.
        """
        return Request.read(await self._call(protocol.submit(Submission(kind, payload, **more), key)))

    async def submit_batch(
        self, asked: Iterable[Submission | tuple[str, Any]], *, key: str | None = None
    ) -> list[Request]:
        """Ask for up to 500 things in this order: all of them, or none. Pairs of kind and payload do, too."""
        shown = await self._call(protocol.submit_batch(protocol.submissions(asked), key))
        return [Request.read(one) for one in shown["requests"]]

    async def get(self, request_id: str) -> Request:
        return Request.read(await self._call(Call("GET", f"requests/{request_id}")))

    async def wait(self, request_id: str, timeout: float | None = None) -> Request:
        """The request once it is final. Raises StillRunning after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            found = Request.read(await self._call(protocol.poll(request_id, left)))
            if found.final:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                raise StillRunning(f"{request_id} is {found.status} after {timeout:g} s.")
            if left is not None and left < 1:  # the service counts in whole seconds
                await asyncio.sleep(min(0.1, max(0.0, left)))

    async def run(self, kind: str, payload: Any = None, *, timeout: float | None = None, **more: Any) -> Request:
        """Submit and wait."""
        return await self.wait((await self.submit(kind, payload, **more)).id, timeout)

    async def requests(self, **filters: Any) -> AsyncIterator[Request]:
        """All of them, page after page. `filters`: status, kind, created_after, created_before, order."""
        cursor: str | None = None
        while True:
            page = await self._call(protocol.listed(filters, cursor))
            for one in page["results"]:
                yield Request.read(one)
            cursor = protocol.cursor_of(page["next"])
            if cursor is None:
                return

    async def follow(self, last_id: str = "", *, give_up_after: float | None = None) -> AsyncIterator[Event]:
        """Events of one's queue as they happen, for ever; after `last_id`, if one is given.

        A lost connection is opened again and goes on where it was: nothing is missed, some may come twice. While the
        service is away it is tried again and again. With `give_up_after` it raises Unreachable, Unavailable or TooMany
        when nothing was heard for so many seconds. What does not heal is raised at once: NotAuthenticated, for example.
        """
        reader, failures = EventReader(last_id), 0
        while True:
            error: Exception = Unreachable("The stream ended.")
            try:
                async for event in self._stream(reader):
                    failures = 0
                    yield event
            except (httpx.TransportError, Unreachable, ApiError) as met:
                error = met
            failures += 1
            await asyncio.sleep(
                protocol.reconnect_after(failures, error, self.patience, reader.heard_at, give_up_after)
            )

    async def cancel(self, request_id: str) -> Request:
        return Request.read(await self._call(protocol.verb(f"requests/{request_id}/cancel")))

    async def retry(self, request_id: str, *, key: str | None = None) -> Request:
        return Request.read(await self._call(protocol.retry(request_id, key)))

    async def skip(self, request_id: str) -> Request:
        return Request.read(await self._call(protocol.verb(f"requests/{request_id}/skip")))

    async def queue(self) -> Queue:
        return Queue.read(await self._call(Call("GET", "queue")))

    async def pause(self) -> Queue:
        return Queue.read(await self._call(protocol.verb("queue/pause")))

    async def resume(self) -> Queue:
        return Queue.read(await self._call(protocol.verb("queue/resume")))

    async def purge(self) -> Queue:
        return Queue.read(await self._call(protocol.verb("queue/purge")))

    async def _call(self, call: Call) -> Any:
        """What the service says, tried again where that is safe. Raises ApiError, Unreachable."""
        attempt, renewed = 0, False
        while True:
            attempt += 1
            access = self.access
            try:
                response = await self._http.send(call.request(self._http, access))
            except httpx.TransportError as error:
                if not call.repeatable:
                    raise Unreachable(str(error)) from error
                await self._sleep(attempt, error)
                continue
            if response.status_code == 401 and call.authenticated and self.refresh and not renewed:
                await self._renew(access)
                renewed = True
                continue
            if response.status_code in protocol.RETRIED and call.repeatable:
                pause = self.patience.pause(attempt, protocol.retry_after(response))
                if pause is not None:
                    await asyncio.sleep(pause)
                    continue
            return protocol.read(response)

    async def _stream(self, reader: EventReader) -> AsyncIterator[Event]:
        path, headers = reader.call()
        timeout = httpx.Timeout(protocol.READ_SECONDS, read=protocol.SILENT_SECONDS)
        for _ in range(2):
            access = self.access
            more = {"Authorization": f"Bearer {access}", **headers}
            async with self._http.stream("GET", path, headers=more, timeout=timeout) as response:
                if response.status_code == 401 and self.refresh:
                    await self._renew(access)
                    continue
                if not response.is_success:
                    await response.aread()
                    raise protocol.error_of(response)
                async for line in response.aiter_lines():
                    event = reader.feed(line)
                    if event is not None:
                        yield event
                return
        raise NotAuthenticated(401, {})

    async def _renew(self, used: str) -> None:
        """A new access token, unless another task has fetched one meanwhile: a refresh token is spent by its use."""
        async with self._renewing:
            if self.access == used:
                self._speak_with(await self._call(self._renewal()))

    async def _sleep(self, attempt: int, error: Exception) -> None:
        pause = self.patience.pause(attempt)
        if pause is None:
            raise Unreachable(str(error)) from error
        await asyncio.sleep(pause)
