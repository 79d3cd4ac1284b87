"""clients/python against the real service: its API over HTTP, a dispatcher and workers."""

import asyncio
import inspect
import itertools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from accounts.models import Session, User
from queues.lifecycle import control
from queues.models import Request as Row
from scripts.place import ROOT
from tests.processing.crew import Crew, queue_of
from tests.processing.test_streams import Server, serving

sys.path.insert(0, str(ROOT / "clients" / "python"))
from ordered_work import (
    AsyncClient,
    Client,
    Conflict,
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
PASSWORD = "a long and unusual one"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[Server]:
    import time

    with serving() as server:
        deadline = time.monotonic() + 90
        while not server.answers():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield server


@pytest.fixture
def url(server: Server, transactional_db: None) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def user(transactional_db: None) -> User:
    return User.objects.create_user(f"client-{next(_numbers)}", password=PASSWORD)


@pytest.fixture
def client(url: str, user: User) -> Iterator[Client]:
    session = Session.open(user)
    with Client(url, session.access, session.refresh, patience=Patience(first=0.05)) as client:
        yield client


@pytest.fixture
def crew(watch: object) -> Iterator[None]:
    with Crew(workers=2):
        yield


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
    with broken_by_a_proxy(server.port) as port, Client(f"http://127.0.0.1:{port}", "old", session.refresh) as client:
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
        broken_by_a_proxy(server.port) as port,
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


def test_what_is_sent_twice_is_done_once(url: str, user: User, server: Server) -> None:
    """The first answer to each submission is lost on its way: the key makes the second one the same."""
    session = Session.open(user)
    with (
        broken_by_a_proxy(server.port) as port,
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


def test_the_documented_examples_run(url: str, user: User, crew: None, tmp_path: Path) -> None:
    """Those of the README and of docs/clients.md, each as a program of its own."""
    texts = [(ROOT / path).read_text() for path in ("clients/python/README.md", "docs/clients.md")]
    examples = [found for text in texts for found in re.findall(r"(?s)```(python|bash)\n(.*?)```", text)]
    programs = [(language, code) for language, code in examples if "pip install" not in code]
    assert [language for language, _ in programs] == ["python", "bash", "python", "python"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "clients" / "python"), *sys.path])}
    for language, code in programs:
        code = code.replace("http://127.0.0.1:8000", url).replace("ada", user.username)
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "succeeded" in done.stdout.splitlines()[-1]


class broken_by_a_proxy:  # noqa: N801  (used as a function)
    """Passes calls on, and loses each first answer to a POST, and each first stream after a few events."""

    def __init__(self, port: int) -> None:
        lost: set[str] = set()

        class Handler(BaseHTTPRequestHandler):
            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {n: v for n, v in self.headers.items() if n.lower() not in ("host", "connection")}
                with httpx.stream(
                    self.command, f"http://127.0.0.1:{port}{self.path}", content=body, headers=headers, timeout=60
                ) as answer:
                    once = self.headers.get("Idempotency-Key") or self.path
                    first, stream = once not in lost, self.path.endswith("/events")
                    lost.add(once)
                    if first and self.command == "POST" and not stream:
                        answer.read()
                        return  # and the connection ends
                    self.send_response(answer.status_code)
                    self.send_header("Content-Type", answer.headers["content-type"])
                    self.end_headers()
                    for part in answer.iter_raw():
                        self.wfile.write(part)
                        self.wfile.flush()
                        if first and stream and b"event: request" in part:
                            return

            do_GET = do_POST = pass_on  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.thread: Callable[[], None] = self.server.serve_forever

    def __enter__(self) -> int:
        threading.Thread(target=self.thread, args=(0.01,), daemon=True).start()
        return int(self.server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
