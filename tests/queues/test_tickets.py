"""Tickets for event streams: one use, one stream, nobody else's."""

from collections.abc import Iterator

import pytest

from accounts.models import User
from project.redis import call
from queues.live import tickets
from tests.accounts.people import Api, at_once, make_user

EVENTS, TICKET = "queue/events", "queue/events/ticket"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _streams_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queues.live.sse.LINGER_SECONDS", 0.0)


@pytest.fixture
def user() -> Iterator[User]:
    user = make_user()
    yield user
    user.delete()


def open_with(ticket: str) -> int:
    answer = Api().get(f"{EVENTS}?ticket={ticket}")
    if answer.streaming:
        answer.close()
    return int(answer.status_code)


def test_a_ticket_opens_one_stream_without_a_header(user: User) -> None:
    ticket = Api.of(user).post(TICKET).json()["ticket"]
    assert [open_with(ticket) for _ in range(2)] == [200, 401]


def test_of_many_with_the_same_ticket_one_gets_in(user: User) -> None:
    ticket = Api.of(user).post(TICKET).json()["ticket"]
    assert sorted(at_once(8, lambda _: open_with(ticket))) == [200] + [401] * 7


def test_a_ticket_lives_for_half_a_minute(user: User) -> None:
    ticket = Api.of(user).post(TICKET).json()["ticket"]
    assert 0 < call("TTL", tickets._key(ticket)) <= 30


def test_a_ticket_opens_nothing_after_its_session_has_ended(user: User) -> None:
    api = Api.of(user)
    ticket = api.post(TICKET).json()["ticket"]
    user.end_sessions()
    assert open_with(ticket) == 401


def test_a_ticket_opens_nothing_but_the_stream(user: User) -> None:
    ticket = Api.of(user).post(TICKET).json()["ticket"]
    assert Api().get(f"queue?ticket={ticket}").status_code == 401
    assert Api().get("queue", HTTP_AUTHORIZATION=f"Bearer {ticket}").status_code == 401
    assert open_with(ticket) == 200


@pytest.mark.parametrize("made_up", ["x", "x" * 43, "x" * 5000, "%00", "%FF"])
def test_a_ticket_that_is_none_is_refused(made_up: str) -> None:
    assert open_with(made_up) == 401


def test_without_redis_there_are_no_tickets_and_streams_open_with_the_header(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise tickets.RedisUnavailable

    monkeypatch.setattr(tickets, "call", away)
    monkeypatch.setattr(tickets, "SPEND", away)
    api = Api.of(user)
    assert (api.post(TICKET).status_code, open_with("x")) == (503, 503)
    answer = api.get(EVENTS)
    assert answer.status_code == 200
    answer.close()
