"""clients/python against the real service: its API over HTTP, a dispatcher and workers."""

import asyncio
import inspect
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from accounts.models import Session, User
from queues.lifecycle import control
from queues.models import Request as Row
from scripts.place import ROOT, free_port
from tests.processing.clients.conftest import PASSWORD
from tests.processing.clients.lossy_proxy import lossy_proxy
from tests.processing.crew import queue_of, submit
from tests.processing.streaming import Server, serving
from tests.waiting import until

sys.path.insert(0, str(ROOT / "clients" / "python"))
from ordered_work import (
    AsyncClient,
    Client,
    Conflict,
    Event,
    Invalid,
    NotAuthenticated,
    NotFound,
    Patience,
    StillRunning,
    Submission,
    Unavailable,
    Unreachable,
)

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def client(url: str, user: User) -> Iterator[Client]:
    session = Session.open(user)
    with Client(url, session.access, session.refresh, patience=Patience(first=0.05)) as client:
        yield client


def test_log_in_submit_and_wait(url: str, user: User, crew: None) -> None:
    with Client.login(url, user.username, PASSWORD) as client:
        done = client.run("demo.echo", {"n": [1, None, "ü"]}, timeout=60)
        assert (done.status, done.result, done.final, done.succeeded) == (
            "succeeded",
            {"n": [1, None, "ü"]},
            True,
            True,
        )
        assert client.get(done.id) == done
        assert isinstance(done.finished_at, datetime)
        assert done.created_at <= done.finished_at
        assert client.queue().depth == 0
        many = client.submit_batch([("demo.echo", n) for n in range(4)] + [Submission("demo.echo", 4, version=1)])
        assert [client.wait(one.id, 60).result for one in many] == [0, 1, 2, 3, 4]
        assert [one.sequence for one in many] == [2, 3, 4, 5, 6]
        assert [one.payload for one in client.requests(order="asc", limit=2)] == [{"n": [1, None, "ü"]}, 0, 1, 2, 3, 4]
        failed = client.run("demo.flaky", {"failures": 0}, timeout=60)
        assert failed.succeeded
    with pytest.raises(NotAuthenticated):
        Client.login(url, user.username, "wrong")


def test_the_same_with_an_event_loop(url: str, user: User, crew: None) -> None:
    async def main() -> None:
        async with await AsyncClient.login(url, user.username, PASSWORD) as client:
            done = await client.run("demo.echo", 7, timeout=60)
            assert (done.status, done.result) == ("succeeded", 7)
            many = await client.submit_batch([("demo.echo", n) for n in range(3)])
            ended = await asyncio.gather(*(client.wait(one.id, 60) for one in many))
            assert [one.result for one in ended] == [0, 1, 2]
            assert [one.payload async for one in client.requests(order="asc", limit=1)] == [7, 0, 1, 2]
            with pytest.raises(NotFound):
                await client.get("01890000-0000-7000-8000-000000000000")
            assert (await client.pause()).paused
            waiting = await client.submit("demo.echo", 9)
            async for event in client.follow():
                if event.request is not None and event.request.final:
                    assert (event.request.id, event.request.status) == (waiting.id, "cancelled")
                    break
                if event.queue is not None and not (await client.get(waiting.id)).final:
                    await client.cancel(waiting.id)

    asyncio.run(main())


def test_both_have_the_same_verbs() -> None:
    verbs = {name: one for name, one in vars(Client).items() if not name.startswith("_")}
    others = {name: one for name, one in vars(AsyncClient).items() if not name.startswith("_")}
    assert set(verbs) == set(others)
    for name, verb in verbs.items():
        ours, theirs = (inspect.signature(getattr(one, "__func__", one)) for one in (verb, others[name]))
        assert list(ours.parameters.values()) == list(theirs.parameters.values()), name


def test_errors_are_classes_that_name_fields(client: Client) -> None:
    with pytest.raises(Invalid) as wrong:
        client.submit("demo.steps", {"steps": 0, "delay_ms": 0})
    assert (wrong.value.status, wrong.value.type) == (400, "/problems/validation")
    assert [error.field for error in wrong.value.errors] == ["payload.steps"]
    assert "payload.steps" in str(wrong.value)
    assert wrong.value.request_id
    one = client.submit("demo.echo", 1)
    client.cancel(one.id)
    with pytest.raises(Conflict):
        client.cancel(one.id)
    with pytest.raises(ValueError, match="no time zone"):
        client.submit("demo.echo", 1, not_before=datetime(2030, 1, 1))  # noqa: DTZ001


def test_waiting_has_an_end(client: Client) -> None:
    client.pause()
    one = client.submit("demo.echo", 1, expires_at=datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(StillRunning):
        client.wait(one.id, timeout=0.3)
    assert client.resume().paused is False


def test_an_access_token_that_ran_out_is_renewed_once_for_all_threads(client: Client) -> None:
    client.access = client.access[:-4] + "AAAA"
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(client.queue())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6
    Session.objects.update(ended_at=datetime.now(UTC))
    with pytest.raises(NotAuthenticated):
        client.queue()


def test_a_renewal_whose_answer_was_lost_ends_no_session(url: str, user: User, server: Server) -> None:
    session = Session.open(user)
    with lossy_proxy(server.port) as port, Client(f"http://127.0.0.1:{port}", "old", session.refresh) as client:
        client.patience = Patience(first=0.05)
        assert client.queue().depth == 0
        assert client.refresh != session.refresh
        client.access = "old"
        assert client.queue().depth == 0
    assert Session.live.filter(user=user).count() == 1


def test_a_task_that_is_cancelled_while_it_renews_ends_no_session(url: str, user: User) -> None:
    token = Session.open(user).refresh

    async def main() -> None:
        async with AsyncClient(url, "old", token) as client:
            arrived = asyncio.Event()

            async def lose(response: httpx.Response) -> None:
                if response.url.path.endswith("/refresh") and not arrived.is_set():
                    arrived.set()
                    await asyncio.Event().wait()

            client._http.event_hooks = {"response": [lose]}
            task = asyncio.create_task(client.queue())
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.queue()).depth == 0

    asyncio.run(main())
    assert Session.live.filter(user=user).count() == 1


def test_a_stream_that_breaks_goes_on_where_it_was(url: str, user: User, server: Server) -> None:
    session = Session.open(user)
    with (
        lossy_proxy(server.port) as port,
        Client(f"http://127.0.0.1:{port}", session.access, patience=Patience(first=0.05)) as client,
    ):
        first = client.submit("demo.echo", 1)
        told = []
        for event in client.follow():
            if event.request is None:
                continue
            told.append(event.request.payload)
            if event.request.id == first.id:
                second = client.submit("demo.echo", 2)  # the proxy has cut the stream after its first events
            elif event.request.id == second.id:
                break
    assert told[-1] == 2
    assert 1 in told


def followed(client: Client | AsyncClient, **how: Any) -> Iterator[Event]:
    """What `follow` gives, of either client."""
    if isinstance(client, Client):
        yield from client.follow(**how)
        return
    with asyncio.Runner() as runner:
        events = client.follow(**how)
        while True:
            yield runner.run(anext(events))  # type: ignore[arg-type]  # it has all that a coroutine has


@pytest.mark.parametrize("which", [Client, AsyncClient])
def test_following_outlasts_a_restart_of_the_service(user: User, which: type[Client] | type[AsyncClient]) -> None:
    """Nor do renewals end it that nobody answers."""
    port, unanswered = free_port(), ["renewal"] * 5
    tried: list[str] = []
    client = which(
        f"http://127.0.0.1:{port}", "old", Session.open(user).refresh, patience=Patience(2, first=0.01, longest=0.1)
    )

    def lose(request: httpx.Request) -> None:
        tried.append(request.url.path)
        if unanswered and request.url.path.endswith("/refresh"):
            raise httpx.ConnectError(f"no {unanswered.pop()}", request=request)

    async def lose_too(request: httpx.Request) -> None:
        lose(request)

    client._http.event_hooks = {"request": [lose if which is Client else lose_too]}
    told: list[Event] = []

    def follow() -> None:
        for event in followed(client):
            told.append(event)
            if event.request is not None:
                return

    following = threading.Thread(target=follow, daemon=True)
    with serving(port) as server:
        until(server.answers, 90, "the API answers")
        following.start()
        until(lambda: told, 30, "it follows")
    before = len(tried)
    until(lambda: len(tried) > before + 10, 30, "it is tried more often than other calls are")
    submit(user, 1, kind="demo.echo")
    with serving(port):
        following.join(90)
    assert told[-1].request is not None
    assert not unanswered


@pytest.mark.parametrize("which", [Client, AsyncClient])
def test_following_ends_for_what_does_not_heal(url: str, user: User, which: type[Client] | type[AsyncClient]) -> None:
    session = Session.open(user)
    with pytest.raises(NotFound):
        next(followed(which(f"{url}/elsewhere", session.access)))
    Session.objects.update(ended_at=datetime.now(UTC))
    with pytest.raises(NotAuthenticated):
        next(followed(which(url, "old", session.refresh)))
    with pytest.raises(Unreachable):
        next(followed(which("http://127.0.0.1:9", "token", patience=Patience(first=0.01)), give_up_after=0.1))


def test_what_is_sent_twice_is_done_once(url: str, user: User, server: Server) -> None:
    """The first answer to each submission is lost on its way: the key makes the second one the same."""
    session = Session.open(user)
    with (
        lossy_proxy(server.port) as port,
        Client(f"http://127.0.0.1:{port}", session.access, patience=Patience(first=0.05)) as client,
    ):
        one = client.submit("demo.echo", "once")
        assert client.submit("demo.echo", "once", key="mine").id == client.submit("demo.echo", "once", key="mine").id
    rows = Row.objects.filter(queue__user=user).order_by("seq")
    assert (rows.count(), str(rows[0].id)) == (2, one.id)
    control.purge(queue_of(user).id)


def test_what_cannot_be_reached_is_said_after_so_many_attempts(client: Client) -> None:
    answers: list[int] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        answers.append(1)
        return httpx.Response(
            503, json={"type": "/problems/unavailable", "detail": "away"}, headers={"Retry-After": "0"}
        )

    http = httpx.Client(base_url="http://service", transport=httpx.MockTransport(refuse))
    with pytest.raises(Unavailable, match="away"):
        Client("", "token", patience=Patience(attempts=3, first=0.01), http=http).submit("demo.echo", 1)
    assert len(answers) == 3
    with pytest.raises(Unavailable):
        Client("", "token", patience=Patience(attempts=3, first=0.01), http=http).pause()
    assert len(answers) == 4  # not by itself: nobody knows whether it was done
    nobody = Client("http://127.0.0.1:9", "token", patience=Patience(attempts=2, first=0.01))
    with pytest.raises(Unreachable):
        nobody.queue()
