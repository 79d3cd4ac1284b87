"""GET /api/v1/queue/events of the real processes."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest

from accounts.models import Session, User
from accounts.tokens import keyring
from processing.handlers import HandlerRequest
from queues.lifecycle import control
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, queue_of, submit
from tests.processing.streaming import PATH, Client, Server, answer, opening, serving
from tests.queues.threads import holding, in_thread, wait_for_a_lock
from tests.waiting import until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def both(django_db_setup: None) -> Iterator[list[Server]]:
    """Two processes, started side by side."""
    with ExitStack() as stack:
        servers = [stack.enter_context(serving()) for _ in range(2)]
        until(lambda: all(server.answers() for server in servers), 90, "both answer")
        yield servers


@pytest.fixture
def server(both: list[Server]) -> Server:
    return both[0]


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[..., Client]]:
    """Opens streams of the server that end with the test."""
    opened: list[Client] = []

    def open_(user: User, token: str = "", full: bool = False) -> Client:
        client = opening(server, token or Session.open(user).access, full)
        opened.append(client)
        return client

    yield open_
    for client in opened:
        client.close()


def test_who_streams_sees_each_step_as_it_happens(connect: Callable[..., Client], hand: Hand, script: Script) -> None:
    alice, bob = new_user(), new_user()
    client = connect(alice)

    @script
    def steps(request: HandlerRequest) -> str:
        until(lambda: client.knows(1, "running", None), 60, "it is told to run")
        request.progress(1, 2)
        until(lambda: client.knows(1, "running", 1), 60, "its first step is told")
        request.progress(2, 2)
        return "done"

    submit(alice, "steps")
    submit(bob, "steps")
    control.purge(queue_of(bob).id)
    until(lambda: client.knows(1, "queued", None), 60, "it is told to be accepted")
    hand.settle(60)
    until(lambda: client.knows(1, "succeeded", None), 60, "its end is told")
    assert [status for _, status, _ in client.summaries] == sorted(
        (status for _, status, _ in client.summaries), key=["queued", "running", "succeeded"].index
    )
    assert {event.data["sequence"] for event in client.events if event.name == "request"} == {1}
    last = [event for event in client.events if event.name == "request"][-1]
    assert last.data["result"] == "done"
    assert [event.data["depth"] for event in client.events if event.name == "queue"][-1] == 0
    assert (client.status, client.headers["content-type"]) == (200, "text/event-stream")
    assert (client.headers["cache-control"], client.headers["x-accel-buffering"]) == ("no-store", "no")
    assert "content-encoding" not in client.headers
    assert "x-request-id" in client.headers


def test_a_stream_goes_on_elsewhere_with_nothing_missed(both: list[Server], hand: Hand, script: Script) -> None:
    script(answer)
    alice = new_user()
    token = Session.open(alice).access
    first = opening(both[0], token)
    submit(alice, "answer", "answer")
    until(lambda: first.knows(2, "queued", None), 60, "both are told to be accepted")
    first.close()
    hand.settle(60)
    second = opening(both[1], token, last_id=first.events[-1].id)
    until(
        lambda: second.knows(1, "succeeded", None) and second.knows(2, "succeeded", None), 60, "what was missed is told"
    )
    second.close()


def end_sessions(user: User) -> None:
    user.end_sessions()


def deactivate(user: User) -> None:
    user.is_active = False
    user.save()


def erase(user: User) -> None:
    user.delete()


@pytest.mark.parametrize("how", [end_sessions, deactivate, erase])
def test_a_stream_ends_with_its_session(
    transactional_db: None, connect: Callable[..., Client], how: Callable[[User], None]
) -> None:
    alice = new_user()
    client, bobs = connect(alice), connect(new_user())
    until(lambda: client.events and bobs.events, 60, "both streams have begun")
    how(alice)
    until(lambda: client.ended, 60, "the stream ends")
    assert client.comments[-1] == ": the session has ended"
    assert not bobs.ended


def test_a_stream_ends_with_its_token(transactional_db: None, connect: Callable[..., Client]) -> None:
    alice = new_user()
    claims = keyring().decode(Session.open(alice).access)
    client = connect(alice, token=keyring().encode({**claims, "exp": int(time.time()) + 3}))
    assert client.status == 200
    until(lambda: client.ended, 60, "the stream ends")
    assert client.comments[-1] == ": the access token has expired"


def test_streams_are_limited_and_make_room_when_they_end(
    transactional_db: None, connect: Callable[..., Client]
) -> None:
    alice = new_user()
    mine = [connect(alice) for _ in range(3)]
    refused = connect(alice)
    assert (refused.status, b"too-many-streams" in refused.body) == (429, True)
    assert int(refused.headers["retry-after"]) > 0
    assert connect(new_user()).status == 200
    full = connect(new_user(), full=True)
    assert (full.status, int(full.headers["retry-after"]) > 0) == (503, True)
    mine[0].close()
    until(lambda: connect(alice).status == 200, 60, "there is room again")


def test_who_may_not_stream_is_told_why(transactional_db: None, connect: Callable[..., Client], server: Server) -> None:
    alice = new_user()
    token = Session.open(alice).access
    alice.end_sessions()
    for sent, name in ((token, b"session-ended"), ("x", b"token-invalid")):
        client = connect(alice, token=sent)
        assert (client.status, name in client.body) == (401, True)
    living = {"Authorization": f"Bearer {Session.open(alice).access}"}
    for method, path, headers, status in (
        ("GET", PATH, {}, 401),
        ("GET", f"{PATH}?x=1", living, 400),
        ("HEAD", PATH, living, 405),
        ("POST", PATH, living, 405),
    ):
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request(method, path, headers=headers)
        answered = connection.getresponse()
        body = answered.read()
        assert answered.status == status
        assert answered.getheader("Content-Type") == "application/problem+json"
        assert bool(body) == (method != "HEAD")
        connection.close()


def test_waiting_streams_leave_the_api_its_threads_and_postgresql_its_connections(
    transactional_db: None, both: list[Server]
) -> None:
    streams = [opening(both[0], Session.open(new_user()).access) for _ in range(4)]
    until(lambda: all(stream.events for stream in streams), 60, "all have begun")
    connections = [HTTPConnection("127.0.0.1", both[0].port, timeout=30) for _ in range(16)]
    for connection in connections:
        connection.request("GET", "/api/v1/kinds", headers={"Authorization": f"Bearer {streams[0].token}"})
    assert {connection.getresponse().status for connection in connections} == {200}
    for one in [*connections, *streams]:
        one.close()


def test_health_is_answered_while_every_thread_waits_for_postgresql(transactional_db: None, server: Server) -> None:
    token = Session.open(new_user()).access
    with holding("LOCK TABLE accounts_user IN ACCESS EXCLUSIVE MODE"):
        stuck = [HTTPConnection("127.0.0.1", server.port, timeout=30) for _ in range(6)]  # of three threads
        for connection in stuck:
            connection.request("GET", "/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"})
        in_thread(wait_for_a_lock)()
        assert server.answers()
    assert {connection.getresponse().status for connection in stuck} <= {200, 503}
    for connection in stuck:
        connection.close()


def test_a_process_that_stops_ends_its_streams_first(transactional_db: None) -> None:
    with serving() as server:
        until(server.answers, 90, "it is up")
        client = Client(server.port, Session.open(new_user()).access)
        until(lambda: client.events, 60, "the stream has begun")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: client.ended, 60, "the stream has ended")
        assert client.comments[-1] == ": the server stops; come again"
        assert server.process.wait(30) is not None
