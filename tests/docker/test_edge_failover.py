"""Two APIs behind nginx, one of them killed under load: readers notice nothing, writers are told and lose nothing."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from queues.models import Request
from scripts.place import free_port
from tests.docker.conftest import StartEdge
from tests.docker.edge import Edge
from tests.docker.names import NameServer
from tests.docker.upstreams import Api, StandIn
from tests.waiting import until

PLENTY = {"REQUESTS_PER_SECOND": "10000", "REQUESTS_BURST": "10000"}  # the limits are tried elsewhere
ADDRESSES = ("127.0.0.2", "127.0.0.3")


@pytest.fixture
def apis(transactional_db: None, tmp_path: Path) -> Iterator[list[Api]]:
    port = free_port()
    with (
        Api(ADDRESSES[0], port, tmp_path / "api-1.log") as first,
        Api(ADDRESSES[1], port, tmp_path / "api-2.log") as second,
    ):
        first.wait()
        second.wait()
        yield [first, second]


@pytest.fixture
def edge(start_edge: StartEdge, names: NameServer, apis: list[Api]) -> Edge:
    names.addresses["api"] = list(ADDRESSES)
    return start_edge(API=f"api:{apis[0].port}", EVENTS="events:1", **PLENTY)


class Caller:
    """A user of the API. `failed` are the POSTs that got no answer from it, until they were sent again."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.stop = threading.Event()
        self.numbers = itertools.count()
        self.read: list[int] = []
        self.sent: list[str] = []
        self.failed: list[str] = []
        self.accepted: dict[str, str] = {}
        self.token = ""
        person = {"username": "ada", "password": "a long and unusual one"}
        assert self.call("POST", "/api/v1/auth/register", person)[0] == 201
        self.token = self.call("POST", "/api/v1/auth/token", person)[1]["access"]

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        named = {"Content-Type": "application/json"} if body is not None else {}
        named |= {"Authorization": f"Bearer {self.token}"} if self.token else {}
        answer = self.edge.ask(method, path, None if body is None else json.dumps(body).encode(), named | headers)
        return answer.status, json.loads(answer.read())

    def read_again_and_again(self) -> None:
        while not self.stop.is_set():
            try:
                self.read.append(self.call("GET", "/api/v1/queue")[0])
            except (OSError, HTTPException):
                self.read.append(0)

    def write_again_and_again(self) -> None:
        while not self.stop.is_set():
            key = f"key-{next(self.numbers)}"
            self.sent.append(key)
            while not self.submit(key):
                self.failed.append(key)
                time.sleep(0.1)

    def submit(self, key: str) -> bool:
        try:
            body = {"kind": "demo.echo", "payload": {"key": key}}
            status, said = self.call("POST", "/api/v1/requests", body, **{"Idempotency-Key": key})
        except (OSError, HTTPException):
            return False
        if status != 202:
            assert status in (429, 503), said
            return False
        assert self.accepted.setdefault(key, said["id"]) == said["id"]
        return True


def test_one_api_is_killed_under_load(edge: Edge, apis: list[Api]) -> None:
    caller = Caller(edge)
    readers = [threading.Thread(target=caller.read_again_and_again) for _ in range(4)]
    writers = [threading.Thread(target=caller.write_again_and_again) for _ in range(4)]
    for thread in readers + writers:
        thread.start()
    victim = apis[0].process
    assert victim is not None
    try:
        until(lambda: len(caller.read) > 50 and len(caller.accepted) > 50, 60, "load on both")
        victim.pause()  # what it has now it will never answer
        until(lambda: apis[0].held() > len(readers), 60, "readers and a writer wait for the one that stands still")
        victim.kill()
        read, accepted = len(caller.read), len(caller.accepted)
        until(lambda: len(caller.read) > read + 100 and len(caller.accepted) > accepted + 100, 60, "load on the other")
    finally:
        victim.kill()
        caller.stop.set()
        for thread in readers + writers:
            thread.join(60)
    assert set(caller.read) == {200}
    assert caller.failed, "no POST was at the victim: nothing was tried"
    assert sorted(caller.accepted) == sorted(caller.sent)
    for key in caller.failed:
        assert caller.submit(key)  # a third time: the same request again
    assert Request.objects.count() == len(caller.accepted)


def test_replicas_come_and_go(start_edge: StartEdge, names: NameServer) -> None:
    with StandIn() as old, StandIn("127.0.0.2", old.server_port) as new:
        names.addresses["api"] = ["127.0.0.1"]
        edge = start_edge(API=f"api:{old.server_port}", EVENTS="events:1", **PLENTY)
        assert edge.ask("GET", "/api/v1/queue").status == 200
        names.addresses["api"] = ["127.0.0.1", "127.0.0.2"]
        until(lambda: edge.ask("GET", "/api/v1/queue").status == 200 and new.asked, 60, "the new one is asked, too")
        names.addresses["api"] = ["127.0.0.2"]
        until(lambda: forgotten(edge, old), 60, "the old one is asked no more")


def forgotten(edge: Edge, replica: StandIn) -> bool:
    before = len(replica.asked)
    assert all(edge.ask("GET", "/api/v1/queue").status == 200 for _ in range(10))
    return len(replica.asked) == before
