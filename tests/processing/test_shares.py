"""A kind that may take long never takes all threads: whoever asks for another is served beside it."""

import threading

import pytest

from processing.handlers import HandlerRequest
from processing.worker import drain
from processing.worker.shares import Shares
from queues import kinds
from tests.processing.conftest import Script
from tests.processing.crew import Crew, Hand, all_done, new_user, queue_of, requests_of, statuses_of, submit
from tests.waiting import until


@pytest.fixture(autouse=True)
def shares(monkeypatch: pytest.MonkeyPatch) -> Shares:
    """Those of a process of four threads."""
    shares = Shares()
    shares.set_threads(4)
    monkeypatch.setattr(drain, "shares", shares)
    return shares


def test_users_with_slow_requests_leave_threads_for_the_others(hand: Hand, script: Script) -> None:
    free = threading.Event()
    running: list[int] = []

    @script
    def slow(request: HandlerRequest) -> None:
        running.append(request.sequence)
        assert free.wait(30)

    @script
    def fast(request: HandlerRequest) -> int:
        return 1

    many, other = [new_user() for _ in range(8)], new_user()
    with Crew(workers=4):
        for user in many:
            submit(user, "slow")
        until(lambda: len(running) == 3)
        submit(other, "fast", kind="test.limited")
        until(lambda: statuses_of(other) == ["succeeded"], 10, "somebody else waits for slow requests")
        assert len(running) == 3, "three quarters of the threads"
        free.set()
        until(all_done, 30)
    assert [statuses_of(user) for user in many] == [["succeeded"]] * 8
    assert {request.attempt for user in many for request in requests_of(user)} == {1}, "no attempt was counted"


def test_a_queue_that_is_put_off_waits_and_has_begun_nothing(hand: Hand, script: Script, shares: Shares) -> None:
    @script
    def slow(request: HandlerRequest) -> int:
        return 1

    kind = kinds.find("test.script")
    assert [shares.enter(kind) for _ in range(3)] == [None] * 3
    user = new_user()
    submit(user, "slow")
    hand.dispatch()
    hand.work()
    assert (queue_of(user).state, requests_of(user)[0].started_at) == ("waiting", None)
    for _ in range(3):
        shares.leave(kind)
    hand.settle()
    assert statuses_of(user) == ["succeeded"]


def test_where_places_come_free_all_the_time_the_next_one_is_waited_for(
    shares: Shares, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that is put off waits for a quarter of a second or longer: as long as dozens of fast handlers take."""
    monkeypatch.setattr("django.conf.settings.ENV.record_after_ms", 10_000)  # however busy the machine is
    kind = kinds.find("test.script")
    assert [shares.enter(kind) for _ in range(3)] == [None] * 3
    shares.leave(kind)
    assert shares.enter(kind) is None
    over = threading.Timer(0.05, shares.leave, [kind])
    over.start()
    assert shares.enter(kind) is None
    over.join()


def test_who_waited_in_vain_lets_the_next_ones_not_wait(shares: Shares, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token has many queues, and the last may be another user's."""
    monkeypatch.setattr("django.conf.settings.ENV.record_after_ms", 50)
    kind = kinds.find("test.script")
    assert [shares.enter(kind) for _ in range(3)] == [None] * 3
    shares.leave(kind)
    assert shares.enter(kind) is None
    assert shares._is_brisk(kind)
    assert isinstance(shares.enter(kind), float)
    assert not shares._is_brisk(kind)


def test_where_none_came_free_of_late_nobody_waits_for_a_place(shares: Shares, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread is one of those that are kept for other kinds."""
    monkeypatch.setattr("django.conf.settings.ENV.record_after_ms", 60_000)
    kind = kinds.find("test.script")
    assert [shares.enter(kind) for _ in range(3)] == [None] * 3
    assert isinstance(shares.enter(kind), float)


def test_a_kind_that_never_takes_long_may_have_every_thread(shares: Shares) -> None:
    kind = kinds.find("test.limited")
    assert [shares.enter(kind) for _ in range(20)] == [None] * 20
