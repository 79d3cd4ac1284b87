"""What many ask for at the same time is accepted together, and each has only their own fate."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Session, User
from project import redis
from project.web import rate_limit
from project.web import together as gathering
from queues import kinds
from queues.enqueue import group_commit
from queues.enqueue.accept import TakenTogether, accept_together
from queues.enqueue.group_commit import GroupCommit
from queues.models import Request, UserQueue
from queues.values import Submission, SubmissionCall
from tests.processing.crew import queue_of
from tests.queues.rows import with_queues
from tests.queues.threads import NOTHING_IS_ACCEPTED, holding, in_thread, wait_for_a_lock
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


def asks(*users: User) -> list[SubmissionCall]:
    """One ask of each, in a session that is made for it."""
    echo = kinds.find("demo.echo")
    return [
        SubmissionCall(user.id, Session.objects.create(user=user).id, Submission(echo, "1"), "trace") for user in users
    ]


def test_nobody_submits_in_the_session_of_another() -> None:
    """As a token would ask that names one user, and a session of another's."""
    (user, other) = with_queues(2)
    (ask,) = asks(other)
    assert accept_together([SubmissionCall(user.id, ask.session_id, ask.submission, "trace")]) == ({}, set())
    assert not Request.objects.exists()


def test_of_a_group_each_user_has_only_their_own_fate() -> None:
    fine, ended, full, locked = with_queues(4)
    (good, over, much, held) = asks(fine, ended, full, locked)
    again = SubmissionCall(fine.id, good.session_id, Submission(good.submission.kind, "2"), "trace")
    elsewhere = asks(fine)[0]
    Session.objects.filter(id=over.session_id).update(ended_at=timezone.now())
    UserQueue.objects.filter(user=full).update(waiting_limit=1)
    more = SubmissionCall(full.id, much.session_id, Submission(much.submission.kind, "2"), "trace")
    brought = [good, over, much, held, again, more, elsewhere]
    with holding("SELECT FROM queues_userqueue WHERE user_id = %s FOR UPDATE", locked.id):
        accepted, later = in_thread(lambda: accept_together(brought))()
    assert later == {held.submission.id, elsewhere.submission.id}  # the others' fate would be the same again
    assert {request: one.seq for request, one in accepted.items()} == {good.submission.id: 1, again.submission.id: 2}
    assert [queue_of(user).last_seq for user in (fine, ended, full, locked)] == [2, 0, 0, 0]
    assert Request.objects.count() == 2


@pytest.fixture
def together(monkeypatch: Any) -> Iterator[Callable[..., list[Any]]]:
    """Brings asks so that they are one group; gives what became of each."""
    group = GroupCommit()
    sizes: list[int] = []

    def measured(asks: Any) -> Any:
        sizes.append(len(asks))
        return accept_together(asks)

    def bring(brought: list[SubmissionCall], counted: int = 0) -> list[Any]:
        (first,) = asks(*with_queues(1))
        with holding(NOTHING_IS_ACCEPTED):
            waiting = in_thread(lambda: asyncio.run(group.accept(first)))
            in_thread(wait_for_a_lock)()
            rest = [in_thread(lambda ask=ask: asyncio.run(group.accept(ask))) for ask in brought]
            until(lambda: group._queue().qsize() == len(brought))
        assert waiting() is not None
        outcomes = [join() for join in rest]
        assert sizes == [1, counted or len(brought)]
        return outcomes

    monkeypatch.setattr(group_commit, "accept_together", measured)
    yield bring
    group.close()


def test_what_gathers_while_a_statement_is_under_way_is_committed_at_once(
    together: Callable[..., list[Any]],
) -> None:
    outcomes = together(asks(*with_queues(6)))
    assert [accepted.seq for accepted, _ in outcomes] == [1] * 6
    assert all(taken[0].remaining for _, taken in outcomes)


def test_when_one_cannot_be_stored_each_is_asked_again_by_itself(
    together: Callable[..., list[Any]],
) -> None:
    users = with_queues(3)
    bad, *good = asks(*users)
    bad = SubmissionCall(bad.user_id, bad.session_id, Submission(bad.submission.kind, "{"), "trace")
    before = rate_limit.count(rate_limit.SUBMIT.claim(str(users[1].id)))[1][0].remaining
    assert together([bad, *good]) == [None, None, None]  # that is: by Django
    assert [queue_of(user).last_seq for user in users] == [0, 0, 0]
    after = rate_limit.count(rate_limit.SUBMIT.claim(str(users[1].id)))[1][0].remaining
    assert after == before - 1  # what the group had counted was given back


def test_a_counter_in_redis_that_is_none_concerns_its_user_alone(together: Callable[..., list[Any]]) -> None:
    users = with_queues(3)
    key = rate_limit.SUBMIT.claim(str(users[0].id)).redis_key
    redis.call("SET", key, "broken", "EX", 60)
    first, *others = together(asks(*users), counted=2)
    assert first is None
    assert [accepted.seq for accepted, _ in others] == [1, 1]


@pytest.mark.parametrize("released", [True, False])
def test_a_queue_that_is_locked_is_tried_some_more_times(released: bool, monkeypatch: Any) -> None:
    (user,) = with_queues(1)
    (ask,) = asks(user)
    held, over = threading.Event(), threading.Event()
    tries: list[int] = []

    def hold() -> None:
        with holding("SELECT FROM queues_userqueue FOR UPDATE"):
            held.set()
            over.wait(30)

    def measured(brought: list[SubmissionCall]) -> Any:
        found = accept_together(brought)
        tries.append(len(found.accepted))
        if released and len(tries) == 2:
            over.set()
            holder()
        return found

    monkeypatch.setattr(group_commit, "accept_together", measured)
    group = GroupCommit()
    holder = in_thread(hold)
    assert held.wait(30)
    outcome = in_thread(lambda: asyncio.run(group.accept(ask)))()
    over.set()
    holder()
    group.close()
    assert tries == ([0, 0, 1] if released else [0] * group_commit.TRIES)
    assert bool(outcome) == released
    left = rate_limit.count(rate_limit.SUBMIT.claim(str(user.id)))[1][0].remaining
    # Once with this look; given back where Django counts.
    assert left == rate_limit.SUBMIT.quota - (2 if released else 1)


def test_those_who_met_a_lock_are_brought_again_after_a_pause_and_large_ones_once(monkeypatch: Any) -> None:
    """Of what is brought again each byte is sent again, in a statement for which others wait."""
    (user,) = with_queues(1)
    (small,) = asks(user)
    brought = [
        SubmissionCall(user.id, small.session_id, Submission(small.submission.kind, payload), "trace")
        for payload in ("1", "2", f'"{"x" * 65_536}"')
    ]
    sizes: list[int] = []
    pauses: list[float] = []
    gathered = threading.Event()

    def measured(asked: list[SubmissionCall]) -> Any:
        sizes.append(len(asked))
        assert gathered.wait(30)
        return accept_together(asked)

    group = GroupCommit()
    (first,) = asks(*with_queues(1))
    monkeypatch.setattr(group_commit, "accept_together", measured)
    with holding("SELECT FROM queues_userqueue WHERE user_id = %s FOR UPDATE", user.id):
        before = in_thread(lambda: asyncio.run(group.accept(first)))
        until(lambda: sizes)
        rest = [in_thread(lambda ask=ask: asyncio.run(group.accept(ask))) for ask in brought]
        until(lambda: group._queue().qsize() == 3)
        monkeypatch.setattr(gathering, "time", SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic))
        gathered.set()
        assert before() is not None
        assert [join() for join in rest] == [None] * 3
    group.close()
    assert sizes == [1, 3] + [2] * (group_commit.TRIES - 1)
    assert len(pauses) >= (group_commit.TRIES - 1) * gathering.LOOKS


def test_what_a_full_queue_refuses_is_not_asked_again(together: Callable[..., list[Any]]) -> None:
    """To add up what a queue keeps costs more than all else: never again and again in others' statement."""
    full, fine = with_queues(2)
    UserQueue.objects.filter(user=full).update(waiting_limit=0)
    outcomes = together(asks(full, fine))
    assert [outcome and outcome[0].seq for outcome in outcomes] == [None, 1]


def test_it_ends_after_those_who_came_before_have_their_answers() -> None:
    group = GroupCommit()
    (ask,) = asks(*with_queues(1))
    with holding(NOTHING_IS_ACCEPTED):
        waiting = in_thread(lambda: asyncio.run(group.accept(ask)))
        in_thread(wait_for_a_lock)()
        ending = in_thread(group.close)
    assert waiting() is not None
    ending()
    assert not group._thread.is_alive()


def test_who_was_to_be_tried_once_more_when_it_ends_is_told(monkeypatch: Any) -> None:
    group = GroupCommit()
    (ask,) = asks(*with_queues(1))
    ending = []

    def closing(_: Any) -> Any:
        ending.append(in_thread(group.close))
        until(lambda: group._waiting.qsize() == 1)
        return TakenTogether({}, {ask.submission.id})

    monkeypatch.setattr(group_commit, "accept_together", closing)
    assert in_thread(lambda: asyncio.run(group.accept(ask)))() is None
    ending[0]()
    assert not group._thread.is_alive()
