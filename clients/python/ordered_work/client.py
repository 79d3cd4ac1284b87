"""The client for programs without an event loop. `AsyncClient` has the same verbs with `await`."""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Self

import httpx

from ordered_work import _protocol as protocol
from ordered_work._base import BaseClient
from ordered_work._protocol import Call, EventReader
from ordered_work.errors import ApiError, NotAuthenticated, StillRunning, Unreachable
from ordered_work.models import Event, Queue, Request, Submission


class Client(BaseClient[httpx.Client]):
    """Speaks as one user; safe for several threads. Tokens are renewed by themselves; `refresh` is the newest.

    `http` replaces the httpx.Client: with another certificate authority, for example. Its base_url is the service's.
    """

    _http_class, _lock_class = httpx.Client, threading.Lock

    @classmethod
    def login(cls, url: str, username: str, password: str, **more: Any) -> Self:
        """A client in a new session of the user. Raises NotAuthenticated."""
        client = cls(url, **more)
        client._speak_with(client._call(protocol.login(username, password)))
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, kind: str, payload: Any = None, *, key: str | None = None, **more: Any) -> Request:
        """Ask for one thing, after all that was asked for before. However often it has to be sent, it is done once.

        `key` makes that so across restarts of your program, too: the same for the same thing. `more`: version,
        not_before, expires_at.
        """
        return Request.read(self._call(protocol.submit(Submission(kind, payload, **more), key)))

    def submit_batch(self, asked: Iterable[Submission | tuple[str, Any]], *, key: str | None = None) -> list[Request]:
        """Ask for up to 500 things in this order: all of them, or none. Pairs of kind and payload do, too."""
        shown = self._call(protocol.submit_batch(protocol.submissions(asked), key))
        return [Request.read(one) for one in shown["requests"]]

    def get(self, request_id: str) -> Request:
        return Request.read(self._call(Call("GET", f"requests/{request_id}")))

    def wait(self, request_id: str, timeout: float | None = None) -> Request:
        """The request once it is final. Raises StillRunning after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            found = Request.read(self._call(protocol.poll(request_id, left)))
            if found.final:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                raise StillRunning(f"{request_id} is {found.status} after {timeout:g} s.")
            if left is not None and left < 1:  # the service counts in whole seconds
                time.sleep(min(0.1, max(0.0, left)))

    def run(self, kind: str, payload: Any = None, *, timeout: float | None = None, **more: Any) -> Request:
        """Submit and wait."""
        return self.wait(self.submit(kind, payload, **more).id, timeout)

    def requests(self, **filters: Any) -> Iterator[Request]:
        """All of them, page after page. `filters`: status, kind, created_after, created_before, order."""
        cursor: str | None = None
        while True:
            page = self._call(protocol.listed(filters, cursor))
            yield from map(Request.read, page["results"])
            cursor = protocol.cursor_of(page["next"])
            if cursor is None:
                return

    def follow(self, last_id: str = "", *, give_up_after: float | None = None) -> Iterator[Event]:
        """Events of one's queue as they happen, for ever; after `last_id`, if one is given.

        A lost connection is opened again and goes on where it was: nothing is missed, some may come twice. While the
        service is away it is tried again and again. With `give_up_after` it raises Unreachable, Unavailable or TooMany
        when nothing was heard for so many seconds. What does not heal is raised at once: NotAuthenticated, for example.
        """
        reader, failures = EventReader(last_id), 0
        while True:
            error: Exception = Unreachable("The stream ended.")
            try:
                for event in self._stream(reader):
                    failures = 0
                    yield event
            except (httpx.TransportError, Unreachable, ApiError) as met:
                error = met
            failures += 1
            time.sleep(protocol.reconnect_after(failures, error, self.patience, reader.heard_at, give_up_after))

    def cancel(self, request_id: str) -> Request:
        return Request.read(self._call(protocol.verb(f"requests/{request_id}/cancel")))

    def retry(self, request_id: str, *, key: str | None = None) -> Request:
        return Request.read(self._call(protocol.retry(request_id, key)))

    def skip(self, request_id: str) -> Request:
        return Request.read(self._call(protocol.verb(f"requests/{request_id}/skip")))

    def queue(self) -> Queue:
        return Queue.read(self._call(Call("GET", "queue")))

    def pause(self) -> Queue:
        return Queue.read(self._call(protocol.verb("queue/pause")))

    def resume(self) -> Queue:
        return Queue.read(self._call(protocol.verb("queue/resume")))

    def purge(self) -> Queue:
        return Queue.read(self._call(protocol.verb("queue/purge")))

    def _call(self, call: Call) -> Any:
        """What the service says, tried again where that is safe. Raises ApiError, Unreachable."""
        attempt, renewed = 0, False
        while True:
            attempt += 1
            access = self.access
            try:
                response = self._http.send(call.request(self._http, access))
            except httpx.TransportError as error:
                if not call.repeatable:
                    raise Unreachable(str(error)) from error
                self._sleep(attempt, error)
                continue
            if response.status_code == 401 and call.authenticated and self.refresh and not renewed:
                self._renew(access)
                renewed = True
                continue
            if response.status_code in protocol.RETRIED and call.repeatable:
                pause = self.patience.pause(attempt, protocol.retry_after(response))
                if pause is not None:
                    time.sleep(pause)
                    continue
            return protocol.read(response)

    def _stream(self, reader: EventReader) -> Iterator[Event]:
        path, headers = reader.call()
        timeout = httpx.Timeout(protocol.READ_SECONDS, read=protocol.SILENT_SECONDS)
        for _ in range(2):
            access = self.access
            more = {"Authorization": f"Bearer {access}", **headers}
            with self._http.stream("GET", path, headers=more, timeout=timeout) as response:
                if response.status_code == 401 and self.refresh:
                    self._renew(access)
                    continue
                if not response.is_success:
                    response.read()
                    raise protocol.error_of(response)
                for line in response.iter_lines():
                    event = reader.feed(line)
                    if event is not None:
                        yield event
                return
        raise NotAuthenticated(401, {})

    def _renew(self, used: str) -> None:
        """A new access token, unless another thread has fetched one meanwhile: a refresh token is spent by its use."""
        with self._renewing:
            if self.access == used:
                self._speak_with(self._call(self._renewal()))

    def _sleep(self, attempt: int, error: Exception) -> None:
        pause = self.patience.pause(attempt)
        if pause is None:
            raise Unreachable(str(error)) from error
        time.sleep(pause)
