"""A TCP proxy that breaks what it carries: `python -m scripts.chaos.proxy NAME=LISTEN:TARGET ..`, loopback ports.

It is told what to do by lines of JSON on its standard input, and answers each by a line: `{"do": .., "name": ..}`.
A route may be called SERVER@PROCESS; the server's name alone means all of its routes.

    hold     nothing passes any more in either direction, and nobody is told: half-open connections
    release  what was held passes; with "reset": true the connections that were held are reset instead
    refuse   new connections are refused, those that there are are reset
    accept   new connections are accepted again
    reset    a part (`share`) of the connections is reset
    deafen   on `count` connections the next question passes, its answer is swallowed, then the connection is reset
"""

import asyncio
import contextlib
import json
import random
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

LOOPBACK = "127.0.0.1"


class End(asyncio.Protocol):
    """One end of a carried connection; what it receives goes to `other`."""

    def __init__(self, route: "Route", other: "End | None" = None) -> None:
        self.route = route
        self.other = other
        self.asking = other is None  # the client's end
        self.transport: Any = None
        self.early: list[bytes] = []  # received before the other end was there
        self.connecting = False
        self.deaf = ""  # armed: the next question is the last; asked: its answer is swallowed

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.asking:
            self.route.clients.add(self)
            if self.route.held:
                transport.pause_reading()
            else:
                self.connect()
        elif self.other is not None:
            self.other.other = self
            for data in self.other.early:
                transport.write(data)
            self.other.early.clear()
            if self.route.held:
                transport.pause_reading()

    def connect(self) -> None:
        """Open the server's end."""
        if not self.connecting:
            self.connecting = True
            self.route.start(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: End(self.route, self), LOOPBACK, self.route.target)
        except OSError:
            self.reset()

    def data_received(self, data: bytes) -> None:
        if self.asking and self.deaf == "armed":
            self.deaf = "asked"
        elif not self.asking and self.other is not None and self.other.deaf == "asked":
            self.other.reset()
            return
        if self.other is None:
            self.early.append(data)
        elif not self.other.transport.is_closing():
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.route.held:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.route.clients.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def reset(self) -> None:
        """Both ends get a RST."""
        for end in (self, self.other):
            if end is not None and end.transport is not None:
                with contextlib.suppress(OSError):
                    linger = struct.pack("ii", 1, 0)
                    end.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                end.transport.abort()

    def each(self, do: Callable[[Any], None]) -> None:
        for end in (self, self.other):
            if end is not None and end.transport is not None and not end.transport.is_closing():
                do(end.transport)


class Route:
    """From one port to another."""

    def __init__(self, listen: int, target: int) -> None:
        self.listen = listen
        self.target = target
        self.clients: set[End] = set()
        self.held = False
        self.server: Any = None
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def accept(self, **_: Any) -> None:
        if self.server is None:
            loop = asyncio.get_running_loop()
            self.server = await loop.create_server(lambda: End(self), LOOPBACK, self.listen, reuse_address=True)

    async def refuse(self, **_: Any) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None
        await self.reset()

    async def reset(self, share: float = 1, **_: Any) -> None:
        for client in tuple(self.clients):
            if random.random() < share:
                client.reset()

    async def hold(self, **_: Any) -> None:
        self.held = True
        for client in self.clients:
            client.each(lambda transport: transport.pause_reading())

    async def release(self, reset: bool = False, **_: Any) -> None:
        self.held = False
        if reset:
            await self.reset()
        for client in tuple(self.clients):
            if client.other is None and not client.transport.is_closing():
                client.connect()
            client.each(lambda transport: transport.resume_reading())


def deafen(routes: list[Route], count: int) -> None:
    clients = [client for route in routes for client in route.clients]
    for client in random.sample(clients, min(count, len(clients))):
        client.deaf = "armed"


async def obey(routes: list[Route], do: str, **order: Any) -> None:
    if do == "deafen":
        deafen(routes, order.get("count", 1))
    else:
        for route in routes:
            await getattr(route, do)(**order)


async def serve(routes: dict[str, Route]) -> None:
    for route in routes.values():
        await route.accept()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    while line := await reader.readline():
        order = json.loads(line)
        meant = order.pop("name")
        await obey([route for name, route in routes.items() if meant in (name, name.partition("@")[0])], **order)
        print("done", flush=True)


def main(arguments: list[str]) -> None:
    routes = {}
    for argument in arguments:
        name, _, ports = argument.partition("=")
        listen, target = map(int, ports.split(":"))
        routes[name] = Route(listen, target)
    asyncio.run(serve(routes))


if __name__ == "__main__":
    main(sys.argv[1:])
