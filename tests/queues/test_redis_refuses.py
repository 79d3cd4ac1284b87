"""A Redis that answers, but with errors, is a Redis that is away: all goes on without it, until it works again."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.db import connection
from redis import Redis as Client

from accounts.models import User
from project import redis as redis_client
from project.telemetry import health
from project.web import rate_limit
from queues.api.fast_path import FastPath
from queues.live import long_poll
from queues.models import Request
from queues.notify import progress
from queues.notify.hints import Listener
from scripts.place import free_port
from scripts.servers.redis import Redis
from tests.accounts.people import PASSWORD, Api
from tests.queues.api import Caller
from tests.queues.fast_path.conftest import Recorded, call
from tests.queues.rows import with_queues
from tests.queues.test_api_waiting import ask
from tests.queues.threads import in_thread
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


class Cluster(Redis):
    """One node of a Redis Cluster."""

    def prepare(self) -> None:
        super().prepare()
        with (self.folder / "redis.conf").open("a") as configuration:
            configuration.write("cluster-enabled yes\ncluster-require-full-coverage no\n")
            configuration.write(f"cluster-port {free_port()}\n")  # by default a port that outgoing connections may have


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis(tmp_path_factory.mktemp("redis")) as private:
        yield private


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as private:
        yield private


@pytest.fixture
def instead(another_redis: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Callable[[Redis], None]:
    """Has this process use another Redis, of which it knows nothing yet."""

    def use(private: Redis) -> None:
        another_redis(private.url)
        monkeypatch.setattr(rate_limit, "_local", rate_limit._Local())
        monkeypatch.setattr(health, "CACHED", 0.0)
        monkeypatch.setattr(long_poll, "LINGER_SECONDS", 0.0)

    return use


def no_replicas(client: Client) -> None:
    client.config_set("min-replicas-to-write", 1)


def no_memory(client: Client) -> None:
    client.config_set("maxmemory", 1)


def no_permission(client: Client) -> None:
    client.execute_command("ACL", "SETUSER", "default", "-@all")


def no_permission_for_one_sort_of_key(client: Client) -> None:
    client.execute_command("ACL", "SETUSER", "default", "resetkeys", "~final:*", "~progress:*")


def no_permission_to_publish(client: Client) -> None:
    client.execute_command("ACL", "SETUSER", "default", "-publish")


def read_only(client: Client) -> None:
    client.replicaof("127.0.0.1", str(free_port()))


def without_its_master(client: Client) -> None:
    client.config_set("replica-serve-stale-data", "no")
    read_only(client)


def cannot_save(client: Client) -> None:
    (Path(str(client.config_get("dir")["dir"])) / "dump.rdb").mkdir(exist_ok=True)  # the snapshot cannot go there
    client.set("something", "new")
    client.config_set("save", "3600 1")
    client.bgsave()
    until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 20, "the snapshot fails")


STATES = [
    no_replicas,
    no_memory,
    no_permission,
    no_permission_for_one_sort_of_key,
    no_permission_to_publish,
    read_only,
    without_its_master,
    cannot_save,
]


def cured(client: Client) -> None:
    client.execute_command("ACL", "SETUSER", "default", "+@all", "allkeys", "allchannels")
    client.replicaof("NO", "ONE")
    client.config_set("replica-serve-stale-data", "yes")
    for name, value in {"min-replicas-to-write": 0, "maxmemory": 0, "save": ""}.items():
        client.config_set(name, value)


@pytest.fixture
def mended(server: Redis, instead: Callable[[Redis], None]) -> Iterator[Callable[[], None]]:
    """Cures it; has it healthy at the beginning and at the end."""
    instead(server)
    with redis.Redis.from_url(server.url) as first:
        first.execute_command("ACL", "SETUSER", "root", "on", ">root", "allkeys", "allchannels", "+@all")
    with redis.Redis(port=server.port, username="root", password="root") as root:

        def cure() -> None:
            cured(root)

        yield cure
        cure()


@pytest.fixture(params=STATES, ids=lambda state: state.__name__)
def refusing(request: Any, server: Redis, mended: Callable[[], None]) -> Callable[[], None]:
    """Redis refuses, in one of many ways, until it is cured by what this gives."""
    with redis.Redis(port=server.port, username="root", password="root", decode_responses=True) as root:
        request.param(root)
    return mended


@pytest.fixture
def fast() -> Iterator[FastPath]:
    application = FastPath(Recorded())
    yield application
    application.close()


@pytest.fixture(autouse=True)
def nothing_is_left_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(health, "_recent", recent := health._Recent())
    yield
    if waker := long_poll.waiting._waker:
        waker.join(5)
    for thread in recent.threads.values():
        thread.submit(lambda: connection.close())
        thread.shutdown(wait=True)


def everything_goes_on(fast: FastPath) -> None:
    """Submitting both ways, logging in, guessing up to the limit, reading what is final, progress: as without Redis."""
    (user,) = with_queues(1)
    alice = Caller(user)
    answer = call(fast, alice.token)
    assert (answer.status, fast.application.asked) == (202, 0)  # type: ignore[attr-defined]
    assert alice.post("requests", {"kind": "demo.echo", "payload": 1}, Idempotency_Key="a").status == 202
    assert alice.post("requests/batch", {"requests": [{"kind": "demo.echo", "payload": 1}] * 2}).status == 202
    final = alice.submit()["id"]
    assert alice.post(f"requests/{final}/cancel").status == 200
    for _ in range(2):
        assert alice.get(f"requests/{final}").json["status"] == "cancelled"
    progress.report(Request.objects.get(id=final).id, 1, 2, queue_id=1)
    assert alice.get("requests").status == alice.get("queue").status == 200
    name = f"with-password-{user.id}"
    User.objects.create_user(name, password=PASSWORD)
    assert Api().post("auth/token", {"username": name, "password": PASSWORD}).status_code == 200


def ready() -> tuple[int, str, str]:
    answer = Api().get("/health/ready")
    return answer.status_code, answer.json()["status"], answer.json()["checks"]["redis"]


def test_whatever_redis_refuses_all_goes_on_and_health_says_so(refusing: Callable[[], None], fast: FastPath) -> None:
    everything_goes_on(fast)
    assert ready() == (200, "degraded", "down")
    refusing()
    until(lambda: ready()[2] == "ok", 10, "it is used again")
    answer = call(fast, Caller(with_queues(1)[0]).token)
    assert answer.headers["RateLimit"]


def test_guessing_stays_limited_while_redis_refuses(
    refusing: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (user,) = with_queues(1)
    monkeypatch.setattr(User, "check_password", lambda *_: False)
    body = {"username": user.username, "password": "guess"}
    statuses = [Api().post("auth/token", body).status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2


@pytest.mark.parametrize("refusing", [no_memory, no_permission], indirect=True, ids=lambda state: state.__name__)
def test_who_waits_for_a_request_hears_of_its_end_while_redis_refuses(refusing: Callable[[], None]) -> None:
    alice = Caller(with_queues(1)[0])
    mine = alice.submit()["id"]
    polled = in_thread(lambda: (ask(alice, f"requests/{mine}?wait=20"), time.monotonic()))
    until(lambda: long_poll.waiting._waiters, 20, "it waits")
    alice.post(f"requests/{mine}/cancel")
    cancelled = time.monotonic()
    answer, answered = polled()
    assert answer.json["status"] == "cancelled"
    assert answered - cancelled < 5


def test_who_listens_just_waits_while_redis_refuses_and_hears_again_soon(refusing: Callable[[], None]) -> None:
    listener = Listener("work")
    began = time.monotonic()
    assert listener.hear(0.2) == []
    assert 0.2 <= time.monotonic() - began < 2
    refusing()

    def heard() -> bool:
        threading.Timer(0.05, lambda: redis_client.hint(listener._channels[0], "something")).start()
        return listener.hear(0.5) == ["something"]

    until(heard, 20, "it hears again")
    listener.close()


@pytest.mark.parametrize("slots", [False, True], ids=["cluster is down", "keys in several slots"])
def test_a_cluster_counts_as_away(
    cluster: Redis, instead: Callable[[Redis], None], fast: FastPath, slots: bool
) -> None:
    with redis.Redis.from_url(cluster.url) as client:
        if slots:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            until(lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")), 20, "a cluster")
    instead(cluster)
    everything_goes_on(fast)
    assert ready() == (200, "degraded", "down")
