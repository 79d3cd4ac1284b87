"""All streams of a process: without Redis, without PostgreSQL, and with clients that do not read."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now

from accounts.tokens import read_access
from project.rest.problems import ServiceUnavailable
from queues.api import events as stream_views
from queues.api.events import LoopsBody
from queues.exceptions import SessionOver
from queues.live import sse as module
from queues.live.change_feed import Follower
from queues.live.sse import PULSE, Stream, Streams
from queues.models import Request, UserQueue
from queues.notify import changes
from queues.notify.hints import Listener
from tests.queues.api import Caller
from tests.queues.events import read
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Iterator[Streams]:
    """A process's streams, whose threads end with the test: they have a connection to the database."""
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.0)
    monkeypatch.setattr(module, "PULSE_SECONDS", 0.1)
    streams = Streams()
    monkeypatch.setattr(stream_views, "streams", streams)
    yield streams
    for stream in tuple(streams._streams):
        streams.leave(stream)
    until(lambda: not any(one.name.startswith("streams") for one in threading.enumerate()), 20, "its threads end")


@pytest.fixture
def alice() -> Caller:
    return Caller()


def open_for(streams: Streams, caller: Caller) -> Stream:
    return streams.open(Follower(read_access(caller.token)), 100, 100)


def statuses(events: bytes) -> list[str]:
    return [event.data["status"] for event in read(events) if event.name == "request"]


def test_without_redis_a_change_is_told_within_a_pulse(
    alice: Caller, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "hint", lambda *_: False)
    monkeypatch.setattr(changes, "hint", lambda *_: False)
    monkeypatch.setattr(Listener, "_subscribe", lambda _: None)
    stream = open_for(streams, alice)
    streams.take(stream)
    alice.submit()
    until(lambda: statuses(stream.events) == ["queued"], 20, "it is told")


def test_a_hint_alone_has_a_change_told(alice: Caller, streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_feel_pulse", lambda: None)
    stream = open_for(streams, alice)
    streams.take(stream)

    def hears() -> bool:  # the hints' thread may not listen yet
        changes.changed(stream.follower.queue_id)
        return statuses(stream.events) == ["queued"]

    alice.submit()
    until(hears, 20, "it is told")


def test_while_nobody_takes_nobody_looks(alice: Caller, streams: Streams) -> None:
    stream = open_for(streams, alice)
    looks: list[None] = []
    look = stream.follower.next_events
    stream.follower.next_events = lambda: looks.append(None) or look()  # type: ignore[func-returns-value,method-assign]
    for _ in range(5):
        alice.submit()
    until(lambda: stream in streams._waiting, 60, "it waits for a look")
    kept = stream.events
    changes.changed(stream.follower.queue_id)
    until(lambda: stream.version is not None, 60, "there was a pulse")
    assert (looks, stream.events) == ([], kept)
    streams.take(stream)
    until(lambda: statuses(stream.events) == ["queued"] * 5, 60, "all is told at once")


def test_a_loops_client_that_takes_nothing_is_let_go(
    alice: Caller, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.5)

    async def one_that_hangs() -> None:
        body = LoopsBody(await asyncio.to_thread(open_for, streams, alice))
        async for _ in body:
            await asyncio.sleep(3600)  # sending never ends

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(asyncio.wait_for(one_that_hangs(), 30))
    assert len(streams) == 0


def test_a_stream_that_never_began_is_let_go_as_well(
    alice: Caller, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.5)
    LoopsBody(open_for(streams, alice))
    until(lambda: len(streams) == 0, 60, "it is let go")


def test_an_idle_stream_gives_signs_of_life(alice: Caller, streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_views, "HEARTBEAT_SECONDS", 0.01)

    async def beats() -> list[bytes]:
        parts = aiter(LoopsBody(await asyncio.to_thread(open_for, streams, alice)))
        return [await anext(parts) for _ in range(4)]

    opening, events, *hearts = asyncio.run(beats())
    assert (opening, read(events)[0].name) == (stream_views.OPENING, "queue")
    assert hearts == [stream_views.HEARTBEAT] * 2


def test_a_stream_outlives_a_failure_of_postgresql(
    alice: Caller, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = open_for(streams, alice)
    streams.take(stream)
    failed: list[str] = []

    def fail(what: str) -> Any:
        failed.append(what)
        raise OperationalError(what)

    with monkeypatch.context() as broken:
        broken.setattr(PULSE, "rows", lambda **_: fail("pulse"))
        broken.setattr(stream.follower, "next_events", lambda: fail("look"))
        alice.submit()
        changes.changed(stream.follower.queue_id)
        streams._tell({stream})
        until(lambda: {"pulse", "look"} <= set(failed), 60, "both failed")
    until(lambda: statuses(stream.events) == ["queued"], 20, "it is told afterwards")
    assert not stream.ended


def test_a_first_look_that_fails_is_the_answer(
    alice: Caller, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.user.end_sessions()
    with pytest.raises(SessionOver):
        open_for(streams, alice)
    monkeypatch.setattr(module, "OPEN_SECONDS", 0.0)
    with pytest.raises(ServiceUnavailable):
        open_for(streams, Caller())
    assert len(streams) == 0


def connections_open() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        (count,) = cursor.fetchone()
    return int(count)


def test_all_streams_together_hold_one_connection(streams: Streams) -> None:
    before = connections_open()  # with those that other tests' threads have not closed yet
    opened = [open_for(streams, Caller()) for _ in range(5)]
    for stream in opened:
        streams.take(stream)
    until(lambda: all(stream.version for stream in opened), 60, "there was a pulse")
    assert connections_open() <= before + 1


def test_nothing_is_published_about_a_queue_that_nobody_watches(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(changes, "hint", lambda _, message: told.append(message))
    process = changes.Watched()
    process._listening = True
    monkeypatch.setattr(changes, "watched", process)
    alice.submit()
    queue_id = UserQueue.objects.get().id
    changes.changed(queue_id)
    changes.progressed(queue_id, UUID(int=1), b"{}")
    assert told == []
    process._until[queue_id] = time.monotonic() + 60
    changes.changed(queue_id)
    changes.progressed(queue_id, UUID(int=1), b"{}")
    alice.submit()
    assert told == [str(queue_id), f"{queue_id} {UUID(int=1)} {{}}", str(queue_id)]


def test_progress_comes_from_its_hint(alice: Caller, streams: Streams) -> None:
    mine = alice.submit()["id"]
    UserQueue.objects.update(state="draining", published_seq=1, claimed=1, claimed_at=Now())
    stream = open_for(streams, alice)
    assert statuses(streams.take(stream)) == ["running"]

    def hears() -> bool:  # the hints' thread may not listen yet
        changes.progressed(stream.follower.queue_id, UUID(mine), b'{"current":1,"total":2,"note":""}')
        return b'"current":1' in stream.events

    until(hears, 20, "it is told")
    assert Request.objects.get().attempt == 0


def test_who_leaves_during_the_first_look_is_forgotten(
    alice: Caller, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(Follower(read_access(alice.token)))
    look = stream.follower.next_events

    def leave_and_look() -> bytes:
        streams.leave(stream)
        return look()

    monkeypatch.setattr(stream.follower, "next_events", leave_and_look)
    streams._enter(stream, 100, 100)
    until(stream.looked.is_set, 60, "it is looked for, too late")
    assert streams._of_queue == {}


def test_one_thread_hears_however_often_the_last_stream_goes_and_another_comes(
    alice: Caller, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(Listener, "hear", lambda *_: go_on.wait(30) and go_on.wait(0.01) and [])
    for _ in range(3):
        streams.leave(open_for(streams, alice))
        until(lambda: not streams._alive, 60, "they end")
    stream = open_for(streams, alice)
    go_on.set()
    until(lambda: [t.name for t in threading.enumerate()].count("streams' hints") == 1, 60, "one hears")
    streams.leave(stream)


def test_a_pulse_that_fails_in_an_unknown_way_ends_no_stream(
    alice: Caller, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = open_for(streams, alice)
    streams.take(stream)
    failed, feel_pulse = threading.Event(), streams._feel_pulse

    def fail_once() -> None:
        if failed.is_set():
            feel_pulse()
        else:
            failed.set()
            raise RuntimeError

    monkeypatch.setattr(streams, "_feel_pulse", fail_once)
    until(failed.is_set, 60, "it fails")
    alice.submit()
    until(lambda: statuses(stream.events) == ["queued"], 60, "it is told")
