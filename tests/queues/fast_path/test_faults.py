"""Whatever breaks beside the fast path, nobody is told what is not known."""

import io
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, OperationalError, connection

from accounts.models import User
from project import redis
from project.web import together
from queues.api import fast_path
from queues.api.fast_path import FastPath
from queues.enqueue import group_commit
from queues.enqueue.accept import accept_together
from tests.processing.crew import queue_of
from tests.queues.fast_path.conftest import Recorded, call
from tests.queues.threads import NOTHING_IS_ACCEPTED, holding, in_thread, wait_for_a_lock

pytestmark = pytest.mark.django_db(transaction=True)


def test_when_postgresql_goes_in_the_middle_nobody_is_told_what_is_not_known(
    fast: FastPath, user: User, token: str, django: Recorded
) -> None:
    with holding(NOTHING_IS_ACCEPTED), connection.cursor() as cursor:
        asked = in_thread(lambda: call(fast, token, HTTP_X_REQUEST_ID="mine"))
        in_thread(wait_for_a_lock)()
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    answer = asked()
    slow = call(Recorded(), "x")  # what Django says to something it refuses
    assert answer.status == 503
    assert answer.json["request_id"] == answer.headers["X-Request-ID"] == "mine"
    assert set(answer.headers) == {*slow.headers, "Retry-After"} - {"WWW-Authenticate"}
    assert django.asked == 0
    assert call(fast, token).json["sequence"] == 1
    assert django.asked == 0


def test_what_was_not_refused_by_postgresql_itself_is_never_asked_again(
    fast: FastPath, user: User, token: str, django: Recorded, monkeypatch: Any
) -> None:
    """An answer that got lost behind the commit looks like a refusal to Django's classes."""

    def garbled(asks: Any) -> Any:
        accept_together(asks)
        raise DatabaseError("lost synchronization with server") from psycopg.DatabaseError("lost synchronization")

    monkeypatch.setattr(group_commit, "accept_together", garbled)
    answer = call(fast, token)
    assert (answer.status, django.asked) == (500, 0)
    assert queue_of(user).last_seq == 1


def test_a_restart_of_postgresql_while_nobody_asks_costs_nobody_anything(
    fast: FastPath, user: User, token: str, django: Recorded, monkeypatch: Any
) -> None:
    monkeypatch.setattr(together, "QUIET_SECONDS", 0.0)
    assert call(fast, token).status == 202
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    assert call(fast, token).json["sequence"] == 2
    assert django.asked == 0


def test_an_answer_that_cannot_be_made_is_a_fault_of_ours_and_not_asked_again(
    fast: FastPath, user: User, token: str, django: Recorded, monkeypatch: Any
) -> None:
    monkeypatch.setattr(fast_path, "encoded", lambda _: 1 / 0)
    answer = call(fast, token)
    assert (answer.status, django.asked) == (500, 0)
    assert queue_of(user).last_seq == 1


class Unread(io.BytesIO):
    def read(self, *_: Any) -> bytes:
        raise AssertionError("somebody who may not ask made a thread wait for the body")


@pytest.mark.parametrize(
    "environ", [{"HTTP_AUTHORIZATION": "Bearer x"}, {"HTTP_AUTHORIZATION": ""}, {"HTTP_HOST": "evil.example"}]
)
def test_the_body_of_somebody_who_may_not_ask_is_not_read(environ: dict[str, str], token: str) -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    assert call(FastPath(refusing), token, **environ, **{"wsgi.input": Unread()}).status == 401


def test_after_a_fork_it_accepts_as_before(fast: FastPath, user: User, token: str, django: Recorded) -> None:
    assert call(fast, token).status == 202
    parents, thread = fast.commits._waiting, fast.commits._thread
    fast.commits._process += 1  # as in a child, which has no such thread
    assert call(fast, token).json["sequence"] == 2
    assert django.asked == 0
    assert fast.commits._thread is not thread
    parents.put(None)
    thread.join()


def test_a_connection_that_cannot_even_be_closed_keeps_nobody_waiting(
    fast: FastPath, user: User, token: str, monkeypatch: Any
) -> None:
    def broken(*_: Any) -> Any:
        raise OperationalError

    looks = {"close_if_unusable_or_obsolete": lambda: None, "close_if_health_check_failed": lambda: None}
    with monkeypatch.context() as patch:
        patch.setattr(group_commit, "accept_together", broken)
        patch.setattr(together, "connection", SimpleNamespace(close=broken, **looks))
        assert call(fast, token).status == 503
    assert call(fast, token).status == 202


def test_a_fault_is_answered_as_one_and_the_next_submission_is_accepted(
    fast: FastPath, user: User, token: str, monkeypatch: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(group_commit, "accept_together", lambda _: 1 / 0)
        answer = call(fast, token)
        assert (answer.status, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert call(fast, token).status == 202


def test_without_redis_it_still_accepts_and_says_nothing_of_limits(
    fast: FastPath, user: User, token: str, django: Recorded, monkeypatch: Any
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise redis.RedisUnavailable

    monkeypatch.setattr(redis, "call", away)
    answer = call(fast, token)
    assert (answer.status, django.asked) == (202, 0)
    assert "RateLimit" not in answer.headers
