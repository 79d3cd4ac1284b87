"""A finished request is answered from Redis, to its owner alone, and from PostgreSQL where Redis has nothing."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.utils import timezone

from project import redis
from queues.lifecycle import removal
from queues.models import Request
from queues.operations import retention
from queues.operations.retention import Retention
from queues.representation import response_cache, rows
from queues.states import Status
from tests.metrics import counted
from tests.queues.api import Caller

pytestmark = pytest.mark.django_db


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """The ids of the requests whose rows were read from PostgreSQL for an owner."""
    read: list[UUID] = []
    own = rows.OWN_REQUEST.row

    def row(**values: Any) -> Any:
        read.append(values["request"])
        return own(**values)

    monkeypatch.setattr(rows.OWN_REQUEST, "row", row)
    return read


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Redis had just failed."""

    def fail(*_: Any, **__: Any) -> Any:
        raise redis.RedisUnavailable

    monkeypatch.setattr(response_cache, "call", fail)
    monkeypatch.setattr(redis, "call", fail)


def finished(caller: Caller, payload: Any = None) -> str:
    """A cancelled request of the caller's, which is final without a worker."""
    mine = caller.submit(payload)["id"]
    assert caller.post(f"requests/{mine}/cancel").status == 200
    return str(mine)


def asked(outcome: str) -> float:
    return counted("cache_asked_total", outcome=outcome)


def test_what_is_final_is_read_from_postgresql_once(alice: Caller, reads: list[UUID]) -> None:
    mine = finished(alice, {"n": 1.50})
    reads.clear()
    hits, misses = asked("hit"), asked("miss")
    answers = [alice.get(f"requests/{mine}") for _ in range(3)]
    assert len({(answer.content, answer.headers["ETag"]) for answer in answers}) == 1
    assert (answers[0].json["status"], answers[0].json["payload"]) == ("cancelled", {"n": 1.5})
    assert reads == [UUID(mine)]
    assert (asked("hit") - hits, asked("miss") - misses) == (2, 1)


def test_what_is_not_final_is_never_kept(alice: Caller, reads: list[UUID]) -> None:
    mine = alice.submit()["id"]
    for _ in range(2):
        assert alice.get(f"requests/{mine}").json["status"] == "queued"
    alice.post(f"requests/{mine}/cancel")
    assert alice.get(f"requests/{mine}").json["status"] == "cancelled"


def test_its_etag_holds_from_redis_as_from_postgresql(alice: Caller) -> None:
    mine = finished(alice)
    etag = alice.get(f"requests/{mine}").headers["ETag"]
    for sent in (etag, f"W/{etag}", '"another", ' + etag, "*"):
        answer = alice.get(f"requests/{mine}", If_None_Match=sent)
        assert (answer.status, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    assert alice.get(f"requests/{mine}", If_None_Match='"another"').status == 200


def test_waiting_for_it_is_over_at_once(alice: Caller, reads: list[UUID]) -> None:
    mine = finished(alice)
    alice.get(f"requests/{mine}")
    reads.clear()
    assert alice.get(f"requests/{mine}?wait=30").json["status"] == "cancelled"
    assert alice.get(f"requests/{mine.upper()}").json["status"] == "cancelled"
    assert reads == []


def test_others_find_nothing_however_often_its_owner_looked(alice: Caller) -> None:
    mine = finished(alice)
    alice.get(f"requests/{mine}")
    bob = Caller()
    foreign, absent = bob.get(f"requests/{mine}"), bob.get(f"requests/{UUID(int=5)}")
    assert (foreign.status, absent.status) == (404, 404)
    assert foreign.json | {"request_id": ""} == absent.json | {"request_id": ""}


def test_a_session_that_has_ended_gets_nothing_from_redis_either(alice: Caller) -> None:
    mine = finished(alice)
    alice.get(f"requests/{mine}")
    alice.user.end_sessions()
    assert alice.get(f"requests/{mine}").status == 401
    again = Caller(alice.user)
    assert again.get(f"requests/{mine}").status == 200
    again.user.is_active = False
    again.user.save()
    assert again.get(f"requests/{mine}").status == 401


def test_without_redis_postgresql_answers(alice: Caller, reads: list[UUID], away: None) -> None:
    mine = finished(alice)
    reads.clear()
    before = asked("unavailable")
    assert [alice.get(f"requests/{mine}").json["status"] for _ in range(2)] == ["cancelled"] * 2
    assert len(reads) == 2
    assert asked("unavailable") - before == 2
    assert not response_cache.forget([UUID(mine)])


def test_what_redis_forgot_is_kept_anew(alice: Caller, reads: list[UUID]) -> None:
    mine = finished(alice)
    alice.get(f"requests/{mine}")
    redis.call("DEL", f"final:{mine}")
    reads.clear()
    first = alice.get(f"requests/{mine}")
    assert alice.get(f"requests/{mine}").content == first.content
    assert len(reads) == 1


def test_it_is_kept_for_a_bounded_time_and_size(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = finished(alice)
    alice.get(f"requests/{mine}")
    assert 0 < redis.call("TTL", f"final:{mine}") <= settings.ENV.cache_seconds
    large = finished(alice, "x")
    monkeypatch.setattr(response_cache, "LARGEST_BYTES", 100)
    alice.get(f"requests/{large}")
    assert redis.call("EXISTS", f"final:{large}") == 0


def test_it_can_be_switched_off(alice: Caller, monkeypatch: pytest.MonkeyPatch, reads: list[UUID]) -> None:
    monkeypatch.setattr(settings.ENV, "cache_seconds", 0)
    mine = finished(alice)
    reads.clear()
    for _ in range(2):
        assert alice.get(f"requests/{mine}").status == 200
    assert len(reads) == 2


def test_what_is_pruned_is_gone_from_redis_as_well(alice: Caller) -> None:
    mine = finished(alice)
    Request.objects.filter(id=mine).update(seq=None)  # as one that was passed over
    assert alice.get(f"requests/{mine}").status == 200
    assert sum(retention.prune(Retention(timezone.now() + timedelta(minutes=1), [Status.CANCELLED]), 10)) == 1
    assert alice.get(f"requests/{mine}").status == 404


def test_a_reader_that_was_slower_than_the_erasure_leaves_nothing_behind(
    alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = finished(alice)
    keep = response_cache.keep

    def late(*kept: Any) -> None:
        removal.remove([UUID(mine)])
        keep(*kept)

    monkeypatch.setattr(response_cache, "keep", late)
    assert alice.get(f"requests/{mine}").status == 200  # it was there when it was read
    assert alice.get(f"requests/{mine}").status == 404
