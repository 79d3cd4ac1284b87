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
        self.sockets: dict[int, socket.socket] = {}  # another descriptor of each
        self.writing: set[int] = set()
        super().__init__()

    def poll(self) -> None:
        corked = [self.sockets[fd] for fd in self.writing]
        for one in corked:
            _cork(one, True)
        super().poll()
        for one in corked:
            _cork(one, False)

    def add_handler(self, fd: int, handler: Any, events: int) -> None:
        self.sockets[fd] = socket.socket(fileno=os.dup(fd))
        self._note(fd, events)
        super().add_handler(fd, handler, events)

    def update_handler(self, fd: int, events: int) -> None:
        self._note(fd, events)
        super().update_handler(fd, events)

    def remove_handler(self, fd: int) -> None:
        if (one := self.sockets.pop(fd, None)) is not None:
            one.close()
        self.writing.discard(fd)
        super().remove_handler(fd)

    def close(self) -> None:
        super().close()
        for one in self.sockets.values():
            one.close()

    def _note(self, fd: int, events: int) -> None:
        if events & self.WRITE:
            self.writing.add(fd)
        else:
            self.writing.discard(fd)

    def shut_sockets(self) -> None:
        """Whoever is at the other end: it is over."""
        for one in self.sockets.values():
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _cork(one: socket.socket, on: bool) -> None:
    if hasattr(socket, "TCP_CORK"):
        with suppress(OSError):  # a socket that is closed by now, or of another kind
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, on)
