"""GET /requests/{id}?wait=: an answer as soon as it is final, no connection held, none the wiser without Redis."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from django.http import HttpResponse
from django.test import RequestFactory

from accounts.authentication import VERIFIED
from accounts.models import Session
from queues.live import long_poll
from queues.models import Request, UserQueue
from queues.notify import changes
from queues.notify.changes import finished
from queues.states import Status
from tests.asgi import as_wsgi, in_threads
from tests.queues.api import Answer, Caller, ahead
from tests.queues.threads import in_thread

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nobody_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The waker ends with its test: it has a connection to the database."""
    monkeypatch.setattr(long_poll, "LINGER_SECONDS", 0.0)
    yield
    waker = long_poll.waiting._waker
    if waker is not None:
        waker.join(5)


DJANGO = as_wsgi(in_threads(6))


def ask(caller: Caller, path: str, **headers: str) -> Answer:
    """Through the door that waits, which the usual client of tests goes past."""
    sent = {"HTTP_AUTHORIZATION": f"Bearer {caller.token}"} | {
        f"HTTP_{name.upper()}": headers[name] for name in headers
    }
    started: list[Any] = []
    request = RequestFactory().generic("GET", f"/api/v1/{path}", **sent)  # type: ignore[arg-type]
    body = b"".join(DJANGO(request.environ, lambda status, headers: started.append((status, headers))))
    ((status, named),) = started
    return Answer(HttpResponse(body, status=int(status), headers=dict(named)))


def get(caller: Caller, path: str) -> Callable[[], Any]:
    return in_thread(lambda: (ask(caller, path), time.monotonic()))


def end(request_id: str, *, hint: bool = True) -> float:
    """What a worker does at the end; when it was done."""
    request = Request.objects.get(id=request_id)
    Request.objects.filter(id=request_id).update(status=Status.SUCCEEDED, finished_at=Now(), attempt=1)
    UserQueue.objects.filter(id=request.queue_id).update(
        last_seq=request.seq, published_seq=request.seq, done_seq=request.seq
    )
    ended = time.monotonic()
    if hint:
        finished(request.queue_id, request.seq)
    return ended


def somebody_waits(count: int = 1) -> None:
    until = time.monotonic() + 60
    while len(long_poll.waiting._waiters) < count:
        assert time.monotonic() < until
        time.sleep(0.005)


def someone_was_looked_at() -> None:
    until = time.monotonic() + 60
    while not any(waiter.looked_at for waiter in long_poll.waiting._waiters):
        assert time.monotonic() < until
        time.sleep(0.005)


def test_the_answer_comes_when_the_request_is_final(alice: Caller) -> None:
    mine = alice.submit()["id"]
    answer = get(alice, f"requests/{mine}?wait=30")
    someone_was_looked_at()
    ended = end(mine)
    shown, at = answer()
    assert shown.json["status"] == "succeeded"
    assert at - ended < long_poll.LOOK_SECONDS / 2  # the hint woke it, not the look


def test_a_lost_hint_costs_a_second_at_most(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_poll, "hint", lambda *_: False)
    mine = alice.submit()["id"]
    answer = get(alice, f"requests/{mine}?wait=30")
    somebody_waits()
    ended = end(mine, hint=False)
    shown, at = answer()
    assert shown.json["status"] == "succeeded"
    assert at - ended < long_poll.LOOK_SECONDS + 1


def test_without_redis_the_answer_comes_all_the_same(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = alice.submit()["id"]
    monkeypatch.setattr(settings.ENV, "redis_url", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(long_poll, "hint", lambda *_: False)
    answer = get(alice, f"requests/{mine}?wait=30")
    somebody_waits()
    end(mine, hint=False)
    assert answer()[0].json["status"] == "succeeded"


def test_what_ended_before_anybody_listened_is_seen_at_once(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = alice.submit()["id"]
    own = long_poll.Waiting.for_final

    async def a_moment_too_late(self: Any, request: Any, seconds: float) -> None:
        in_thread(lambda: end(mine, hint=False))()
        await own(self, request, seconds)

    monkeypatch.setattr(long_poll.Waiting, "for_final", a_moment_too_late)
    began = time.monotonic()
    assert ask(alice, f"requests/{mine}?wait=30").json["status"] == "succeeded"
    assert time.monotonic() - began < 5


def test_a_cancelled_request_wakes_who_waits_for_it(alice: Caller) -> None:
    ids = [alice.submit()["id"], alice.submit(not_before=ahead(days=1))["id"], alice.submit()["id"]]
    answers = [get(alice, f"requests/{one}?wait=30") for one in ids]
    somebody_waits(3)
    alice.post(f"requests/{ids[0]}/cancel")
    alice.post(f"requests/{ids[1]}/cancel")
    alice.post("queue/purge")
    assert [answer()[0].json["status"] for answer in answers] == ["cancelled"] * 3


def test_time_is_up_and_the_request_is_shown_as_it_is(alice: Caller) -> None:
    mine = alice.submit()
    began = time.monotonic()
    assert ask(alice, f"requests/{mine['id']}?wait=1").json == mine
    assert 1 <= time.monotonic() - began < 5
    etag = alice.get(f"requests/{mine['id']}").headers["ETag"]
    assert ask(alice, f"requests/{mine['id']}?wait=1", If_None_Match=etag).status == 304


def test_a_token_that_expires_while_its_request_is_waited_for_is_good_until_then(
    alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = alice.submit()["id"]
    answer = get(alice, f"requests/{mine}?wait=30")
    somebody_waits()
    later = time.time() + 1_000_000
    monkeypatch.setattr("accounts.tokens.time.time", lambda: later)
    end(mine)
    shown, _ = answer()
    assert (shown.status, shown.json["status"]) == (200, "succeeded")
    refused = ask(alice, f"requests/{mine}", **{VERIFIED: "x", VERIFIED.replace("_", "-"): "x"})
    assert (refused.status, refused.json["type"]) == (401, "/problems/token-expired")


def test_a_session_that_ends_while_its_request_is_waited_for_sees_nothing(alice: Caller) -> None:
    mine = alice.submit()["id"]
    answer = get(alice, f"requests/{mine}?wait=30")
    somebody_waits()
    Session.objects.filter(user=alice.user).update(ended_at=Now())
    end(mine)
    refused, _ = answer()
    assert (refused.status, refused.json["type"]) == (401, "/problems/session-ended")


def test_nothing_waits_for_what_is_final_or_somebody_elses(alice: Caller) -> None:
    mine = alice.submit()["id"]
    began = time.monotonic()
    assert ask(Caller(), f"requests/{mine}?wait=30").status == 404
    alice.post(f"requests/{mine}/cancel")
    assert ask(alice, f"requests/{mine}?wait=30").json["status"] == "cancelled"
    assert time.monotonic() - began < 20


def test_long_polls_beyond_what_a_process_takes_are_answered_at_once(
    alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "streams", 2)
    mine = alice.submit()["id"]
    waiters = [get(alice, f"requests/{mine}?wait=30") for _ in range(2)]
    somebody_waits(2)
    assert ask(alice, f"requests/{mine}?wait=30").json["status"] == "queued"  # at once
    assert len(long_poll.waiting._waiters) == 2
    end(mine)
    assert [answer()[0].json["status"] for answer in waiters] == ["succeeded"] * 2


def test_the_long_polls_of_one_user_keep_nobody_else_from_waiting(
    alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "long_polls_per_user", 2)
    bob = Caller()
    mine, his = alice.submit()["id"], bob.submit()["id"]
    waiters = [get(alice, f"requests/{mine}?wait=30") for _ in range(2)]
    somebody_waits(2)
    assert ask(alice, f"requests/{mine}?wait=30").json["status"] == "queued"  # at once
    waiters.append(get(bob, f"requests/{his}?wait=30"))
    somebody_waits(3)
    end(mine)
    end(his)
    assert [answer()[0].json["status"] for answer in waiters] == ["succeeded"] * 3
    again = get(alice, f"requests/{alice.submit()['id']}?wait=1")
    somebody_waits(1)
    again()
    assert long_poll.waiting._of_queue == {}


def test_who_waits_holds_no_connection_to_the_database(alice: Caller) -> None:
    mine = alice.submit()["id"]
    before = connections_to_the_database()  # this test's, and what earlier ones left to die
    answers = [get(alice, f"requests/{mine}?wait=30") for _ in range(4)]
    somebody_waits(4)
    someone_was_looked_at()
    until = time.monotonic() + 60
    while connections_to_the_database() > before + 1:  # the waker's
        assert time.monotonic() < until
        time.sleep(0.01)
    end(mine)
    assert {answer()[0].status for answer in answers} == {200}


def connections_to_the_database() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def test_a_worker_says_nothing_about_queues_that_nobody_watches(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(changes, "hint", lambda *message: told.append(message))
    worker = changes.Watched()
    monkeypatch.setattr(changes, "watched", worker)
    worker.listen()
    mine = alice.submit()["id"]
    queue_id = UserQueue.objects.get(user=alice.user).id
    finished(queue_id, 1)
    assert told == []
    answer = get(alice, f"requests/{mine}?wait=30")
    until = time.monotonic() + 60
    while queue_id not in worker:
        assert time.monotonic() < until
        time.sleep(0.005)
    assert queue_id + 1 not in worker
    finished(queue_id, 1)
    assert [message for _, message in told] == [f"{queue_id}:1"]
    end(mine, hint=False)
    answer()


@pytest.mark.parametrize("wait", ["-1", "31", "1.5", "x", "", "1&wait=2"])
def test_a_wait_that_does_not_fit_is_named(alice: Caller, wait: str) -> None:
    answer = alice.get(f"requests/{'0' * 8}?wait={wait}")
    assert (answer.status, list(answer.errors)) == (400, ["wait"])


def test_the_waker_ends_when_nobody_waits(alice: Caller) -> None:
    mine = alice.submit()["id"]
    ask(alice, f"requests/{mine}?wait=1")
    waker = long_poll.waiting._waker
    if waker is not None:
        waker.join(10)
    assert long_poll.waiting._waker is None
    assert not any(thread.name == "long polls" for thread in threading.enumerate())
