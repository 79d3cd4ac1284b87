"""Many at once are limited and counted exactly, and do not wait for each other."""

import re
from typing import Any

import pytest

from accounts.models import Session, User
from project.web import rate_limit
from project.web.rate_limit import Limit
from queues.api.fast_path import FastPath
from queues.enqueue import group_commit
from queues.models import Request, UserQueue
from tests.metrics import counted
from tests.processing.crew import new_user, queue_of
from tests.queues.fast_path.conftest import Recorded, call
from tests.queues.rows import with_queues
from tests.queues.threads import at_once, holding, in_thread, wait_for_a_lock
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_full_queue_is_refused_with_its_pace_and_counted_once(fast: FastPath, user: User, token: str) -> None:
    UserQueue.objects.filter(user=user).update(waiting_limit=2)
    answers = [call(fast, token) for _ in range(4)]
    assert [answer.status for answer in answers] == [202, 202, 429, 429]
    assert answers[2].json["type"] == "/problems/queue-full"
    assert queue_of(user).last_seq == 2
    left = [int(re.findall(r"r=(\d+)", answer.headers["RateLimit"])[0]) for answer in answers]
    assert [left[0] - n for n in left] == [0, 1, 2, 3]


def test_limits_are_exact_whoever_comes_at_once(fast: FastPath, monkeypatch: Any) -> None:
    monkeypatch.setattr(rate_limit, "SUBMIT", Limit("exact", 50))
    users = with_queues(2)
    tokens = [Session.open(user).access for user in users]
    answers = at_once(20, lambda n: [call(fast, tokens[n % 2]) for _ in range(10)])
    for number, user in enumerate(users):
        mine = [answer for n, some in enumerate(answers) for answer in some if n % 2 == number]
        assert sorted(answer.status for answer in mine) == [202] * 50 + [429] * 50
        assert queue_of(user).last_seq == 50
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in mine if answer.status == 429)
        left = [answer.headers["RateLimit"] for answer in mine if answer.status == 202]
        assert len(set(left)) == 50  # each was told what is left after it


def test_many_at_once_get_places_without_gaps(fast: FastPath) -> None:
    users = [new_user() for _ in range(4)]
    tokens = [Session.open(user).access for user in users]
    answers = at_once(12, lambda n: [call(fast, tokens[n % 4]).json["sequence"] for _ in range(20)])
    assert all(places == sorted(places) for places in answers)
    for number, user in enumerate(users):
        mine = [place for n, places in enumerate(answers) for place in places if n % 4 == number]
        assert sorted(mine) == list(range(1, 61))
        assert list(Request.objects.filter(queue__user=user).order_by("seq").values_list("seq", flat=True)) == list(
            range(1, 61)
        )
        assert queue_of(user).last_seq == 60


def test_whoever_waits_for_a_lock_holds_up_nobody_else(fast: FastPath, django: Recorded) -> None:
    (locked, other) = with_queues(2)
    theirs, mine = Session.open(locked).access, Session.open(other).access
    with holding("SELECT FROM queues_userqueue WHERE user_id = %s FOR UPDATE", locked.id):
        waiting = in_thread(lambda: call(fast, theirs))
        in_thread(wait_for_a_lock)()
        assert in_thread(lambda: call(fast, mine))().status == 202
    assert waiting().status == 202
    assert django.asked == 1


def test_what_is_accepted_is_counted_logged_and_told_like_any_other(
    fast: FastPath, user: User, token: str, monkeypatch: Any
) -> None:
    told: list[Any] = []
    monkeypatch.setattr("queues.notify.hints.work_waits", lambda: told.append("hint"))
    monkeypatch.setattr("queues.event_log.accepted", lambda *args: told.append(args[0]))
    monkeypatch.setattr(group_commit, "changed", lambda queue_id: told.append(queue_id))
    before = counts()
    answer = call(fast, token)
    until(lambda: len(told) == 3)
    assert sorted(map(str, told)) == sorted(["hint", str(user.id), str(queue_of(user).id)])
    with monkeypatch.context() as patch:
        patch.setattr(group_commit, "accept_together", lambda _: 1 / 0)
        assert call(fast, token).status == 500
    assert answer.status == 202
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1, 1]


def counts() -> list[float]:
    """Accepted requests, and answers with 202 and with 500."""
    route = {"method": "POST", "route": "api/v1/requests"}
    answers = [counted("http_requests_total", status=status, **route) for status in ("202", "500")]
    return [counted("accepted_total", kind="demo.echo"), *answers]
