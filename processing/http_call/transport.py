"""Connections of `http.call`: to an address that was checked, within a budget of time and bytes.

The name is resolved once, here, and the socket is connected to the address that was looked at: between the check and
the connection nobody can let the name point elsewhere. httpcore speaks HTTP over it. Of the libraries that
check addresses alike, advocate is archived; drawbridge and httpx-secure are for asyncio, and handlers run in threads.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import cache
from typing import Any

import httpcore

from processing.handlers import Reject
from processing.http_call.ssrf import HTTP_CALL, Caller, may_connect

LOOK_UP_SECONDS = 0.25  # how long a silent server keeps a call from seeing that its owner gave up
MOST_BYTES = 512 * 1024  # off the wire for one call: headers, framing and what is kept of the body

SocketAddress = tuple[Any, ...]


class CallFailed(Exception):
    """No answer came: another attempt may have more luck."""


class AddressRefused(Reject):
    """The host has no address that a call may connect to."""


class GivenUp(Exception):
    """The request's owner gave it up meanwhile."""


@cache
def tls() -> ssl.SSLContext:
    """Verifies certificate and name, against the system's authorities and certifi's."""
    return httpcore.default_ssl_context()


class Budget:
    """What one call may take, redirects included: `seconds`, bytes, and its owner's patience."""

    def __init__(self, seconds: float, given_up: Callable[[], bool]) -> None:
        self.seconds = seconds
        self.given_up = given_up
        self._deadline = time.monotonic() + seconds
        self._bytes = MOST_BYTES

    def left(self) -> float:
        """Seconds, more than 0. Raises CallFailed when none are left, GivenUp."""
        if self.given_up():
            raise GivenUp
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise CallFailed(f"The call took longer than its timeout of {self.seconds:g} s.")
        return left

    def spend(self, count: int) -> None:
        """So many bytes came. Raises CallFailed when they are too many."""
        self._bytes -= count
        if self._bytes < 0:
            raise CallFailed(f"The server sent more than {MOST_BYTES} bytes around its body.")


class Backend(httpcore.NetworkBackend):
    """Connects httpcore; closes with its block what it opened."""

    def __init__(self, budget: Budget, caller: Caller = HTTP_CALL) -> None:
        self.budget = budget
        self.caller = caller
        self._streams: list[Stream] = []

    def __enter__(self) -> "Backend":
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams:
            stream.close()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        found = resolve(host, port, self.budget)
        permitted = [entry for entry in found if may_connect(host, entry[1][0], self.caller)]
        if not permitted:
            raise AddressRefused(
                f"{host} leads to an address that is not public, which {self.caller.name} does not connect to. An "
                f"operator can allow it: {self.caller.setting}."
            )
        stream = Stream(self._connect(permitted), self.budget)
        self._streams.append(stream)
        return stream

    def _connect(self, addresses: list[tuple[int, SocketAddress]]) -> socket.socket:
        """To the first that answers; a silent one leaves the others their share of the time."""
        failure: OSError | None = None
        for number, (family, address) in enumerate(addresses):
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(self.budget.left() / (len(addresses) - number))
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
            except OSError as error:
                connection.close()
                failure = error
            except BaseException:
                connection.close()
                raise
        raise CallFailed(f"No connection: {failure}.") from failure


class Stream(httpcore.NetworkStream):
    """A connection whose every wait is within the budget; httpcore's own timeouts restart with each read."""

    def __init__(self, connection: socket.socket, budget: Budget) -> None:
        self._socket = connection
        self._budget = budget

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        name = (server_hostname or "").rstrip(".")
        try:
            self._socket.settimeout(self._budget.left())
            self._socket = ssl_context.wrap_socket(self._socket, server_hostname=name)
        except OSError as error:
            raise CallFailed(f"No TLS connection: {error}.") from error
        return self

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        rest = memoryview(buffer)
        while rest:
            self._socket.settimeout(self._budget.left())
            try:
                rest = rest[self._socket.send(rest) :]
            except TimeoutError:
                continue  # the budget says that it is over
            except OSError as error:
                # httpcore goes on to read: a server may refuse a body before it has it all.
                raise httpcore.WriteError(error) from error

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            self._socket.settimeout(min(self._budget.left(), LOOK_UP_SECONDS))
            try:
                received = self._socket.recv(max_bytes)
            except TimeoutError:
                continue
            except OSError as error:
                raise CallFailed(f"The connection broke: {error}.") from error
            self._budget.spend(len(received))
            return received

    def close(self) -> None:
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        return self._socket if info == "socket" else None


def resolve(host: str, port: int, budget: Budget) -> list[tuple[int, SocketAddress]]:
    """Every (family, address) of the name, in the system's order. Raises CallFailed.

    In a thread of its own: the system's resolver knows no deadline but its own.
    """
    found: Future[list[tuple[int, SocketAddress]]] = Future()

    def look_up() -> None:
        try:
            # As bytes: Python would put a name through an older IDNA than the URL's.
            answers = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
            found.set_result([(family, address) for family, _, _, _, address in answers])
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    while True:
        try:
            return found.result(min(budget.left(), LOOK_UP_SECONDS))
        except TimeoutError:
            if not found.done():
                continue
            raise CallFailed(f"{host} could not be resolved.") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise CallFailed(f"{host} could not be resolved: {why}.") from error
