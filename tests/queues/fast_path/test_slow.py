"""What takes long is left to threads: while the event loop reads and checks one user's payload, all others wait."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import structlog
from pydantic import BaseModel
from structlog.testing import capture_logs

from project.rest.parsers import loads
from queues import kinds
from queues.api import slow_kinds
from queues.api.fast_path import FastPath
from queues.api.plain import LARGEST
from tests.queues.fast_path.conftest import Recorded, call

pytestmark = pytest.mark.django_db(transaction=True)

HEAD, LONG_NUMBER = b'{"kind":"demo.echo","payload":[', b"1234567890123456789]}"
MEMBERS = {"numbers": b"1,", "fractions": b"0.0,", "objects": b"{},", "arrays": b"[],", "keys": b'{"":1},'}


def of_size(size: int, member: bytes) -> bytes:
    """A body with as many members as fit, and a number that each of them is looked at for."""
    return HEAD + member * ((size - len(HEAD) - len(LONG_NUMBER)) // len(member)) + LONG_NUMBER


class Slow(BaseModel):
    """Its check takes as long as the test says."""

    check: int = 0

    def model_post_init(self, _: Any) -> None:
        if self.check:
            CHECKS[0]()


CHECKS: list[Callable[[], None]] = []


def compute() -> None:
    began = time.thread_time()
    while time.thread_time() - began < slow_kinds.SLOW_SECONDS * 1.2:
        pass


def stand_still() -> None:
    time.sleep(slow_kinds.SLOW_SECONDS * 1.2)


def refuse_late() -> None:
    compute()
    raise ValueError("no")


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A kind with that schema."""
    slow = replace(kinds.find("demo.echo"), name="test.slow", schema=Slow)
    monkeypatch.setitem(kinds._kinds, ("test.slow", 1), slow)
    monkeypatch.setitem(kinds._newest, "test.slow", slow)
    return slow


def submit(fast: FastPath, token: str, check: int = 0) -> int:
    return call(fast, token, {"kind": "test.slow", "payload": {"check": check}}).status


@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
def test_a_body_that_takes_long_to_read_is_read_in_a_thread(
    member: bytes, fast: FastPath, django: Recorded, token: str
) -> None:
    assert call(fast, token, of_size(64 * 1024, member)).status == 202
    assert django.asked == 1


@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
def test_no_body_that_is_read_on_the_event_loop_takes_longer_than_a_schema_may(
    member: bytes, fast: FastPath, django: Recorded, token: str
) -> None:
    body = of_size(LARGEST, member)

    def seconds() -> float:
        began = time.thread_time()
        loads(body)
        return time.thread_time() - began

    assert min(seconds() for _ in range(5)) < slow_kinds.SLOW_SECONDS / 2, "the garbage collector's time is its own"
    assert call(fast, token, body).status == 202
    assert django.asked == 0


@pytest.mark.parametrize(("check", "status"), [(compute, 202), (refuse_late, 400)])
def test_a_schema_that_computes_for_long_is_asked_in_a_thread_for_a_minute(
    check: Callable[[], None], status: int, fast: FastPath, kind: Any, django: Recorded, token: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tests.queues.fast_path.test_slow.CHECKS", [check])
    monkeypatch.setattr(slow_kinds, "log", structlog.get_logger())
    with capture_logs() as log:
        assert submit(fast, token, check=1) == status
        asked = django.asked
        assert [submit(fast, token) for _ in range(3)] == [202] * 3
    assert django.asked == asked + 3
    assert [line["kind"] for line in log if line["event"] == "slow_schema"] == ["test.slow"]
    assert call(fast, token).status == 202
    assert django.asked == asked + 3, "other kinds"
    clock = time.monotonic
    monkeypatch.setattr(slow_kinds.time, "monotonic", lambda: clock() + slow_kinds.FORGET_SECONDS)
    assert submit(fast, token) == 202
    assert django.asked == asked + 3


def test_a_machine_that_stands_still_once_sends_no_kind_to_threads(
    fast: FastPath, kind: Any, django: Recorded, token: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tests.queues.fast_path.test_slow.CHECKS", [stand_still])
    assert [submit(fast, token, check=1), submit(fast, token)] == [202, 202]
    assert django.asked == 0


def test_a_schema_that_waits_each_time_is_asked_in_a_thread(
    fast: FastPath, kind: Any, django: Recorded, token: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tests.queues.fast_path.test_slow.CHECKS", [stand_still])
    assert [submit(fast, token, check=1) for _ in range(3)] == [202] * 3
    assert django.asked == 1
