"""One of the three servers, as it was found."""

from dataclasses import dataclass

from scripts.servers import rabbitmq
from scripts.servers.docker import Container
from scripts.servers.private import PrivateServer
from scripts.servers.rabbitmq import Rabbitmq


@dataclass
class Found:
    """A server as it was found: where, and whether the caller named it, or we started it."""

    title: str
    url: str
    named: bool = False
    private: PrivateServer | Container | None = None

    @property
    def control(self) -> rabbitmq.Control | None:
        """The `rabbitmqctl` of a broker that we started."""
        return self.private.control if isinstance(self.private, Rabbitmq) else None
