"""A RabbitMQ cluster of three nodes on loopback, any of which can be killed and started again."""

from pathlib import Path
from typing import IO, Self

from scripts.place import free_port
from scripts.servers.process import Process
from scripts.servers.rabbitmq import Rabbitmq


class Node(Rabbitmq):
    """Finds the others by their names; the port mapper and the cookie are those of the first."""

    def __init__(self, folder: Path, first: "Node | None" = None) -> None:
        super().__init__(folder)
        self.first = first
        self.names: list[str] = []
        if first is not None:
            shared = {name: first.state[name] for name in ("password", "cookie", "epmd_port")}
            self.state |= {"port": free_port(), **shared}

    def more_settings(self) -> list[str]:
        nodes = [f"cluster_formation.classic_config.nodes.{n} = {name}" for n, name in enumerate(self.names, 1)]
        return ["cluster_formation.peer_discovery_backend = classic_config", *nodes]

    def _start_epmd(self, log: IO[bytes]) -> None:
        if self.first is None:
            super()._start_epmd(log)

    def _epmd(self) -> Process | None:
        return super()._epmd() if self.first is None else None

    def forget_process(self) -> None:
        """The first one's port mapper serves the others too: it stays until the end."""
        self.process = None
        for key in ("pid", "born"):
            self.state.pop(key, None)
        self.remember()


class Cluster:
    """As long as the block lasts."""

    def __init__(self, folder: Path) -> None:
        first = Node(folder / "1")
        first.state = {
            "port": free_port(),
            "password": "one-for-all",
            "cookie": "all-for-one",
            "epmd_port": free_port(),
        }
        self.nodes = [first, Node(folder / "2", first), Node(folder / "3", first)]
        for node in self.nodes:
            node.names = [one.node for one in self.nodes]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"amqp://ordered_work:{self.nodes[0].password}@{hosts}/%2F"

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node.process is not None:
                node.process.kill()
        if (mapper := self.nodes[0]._epmd()) is not None:
            mapper.kill()
