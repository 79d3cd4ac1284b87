"""pika's event loop, as a connection of ours uses it."""

import os
import socket
from contextlib import suppress
from typing import Any

from pika.adapters.select_connection import IOLoop


class Loop(IOLoop):
    """pika's loop, which knows its sockets and which of them have something left to write.

    pika sends each frame by itself, which took as long as all else that is done for a request. Linux holds them back
    until the last.
    """

    def __init__(self) -> None:
        self.sockets: set[int] = set()
        self.writing: set[int] = set()
        super().__init__()

    def poll(self) -> None:
        writing = tuple(self.writing)
        for fd in writing:
            _cork(fd, True)
        super().poll()
        for fd in writing:
            if fd in self.sockets:
                _cork(fd, False)

    def add_handler(self, fd: int, handler: Any, events: int) -> None:
        self.sockets.add(fd)
        self._note(fd, events)
        super().add_handler(fd, handler, events)

    def update_handler(self, fd: int, events: int) -> None:
        self._note(fd, events)
        super().update_handler(fd, events)

    def remove_handler(self, fd: int) -> None:
        self.sockets.discard(fd)
        self.writing.discard(fd)
        super().remove_handler(fd)

    def _note(self, fd: int, events: int) -> None:
        if events & self.WRITE:
            self.writing.add(fd)
        else:
            self.writing.discard(fd)

    def shut_sockets(self) -> None:
        """Whoever is at the other end: it is over."""
        for fd in tuple(self.sockets):
            with suppress(OSError), socket.socket(fileno=os.dup(fd)) as one:
                one.shutdown(socket.SHUT_RDWR)


def _cork(fd: int, on: bool) -> None:
    if not hasattr(socket, "TCP_CORK"):
        return
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)
