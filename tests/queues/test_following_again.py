"""Whoever comes back to a stream is told whatever changed meanwhile, however much it is."""

from typing import Any

import pytest
from django.db.models.functions import Now

from queues.lifecycle import control
from queues.live import change_feed
from queues.live.change_feed import EventId
from queues.models import Request
from tests.queues.api import Caller, ahead
from tests.queues.events import Event, read
from tests.queues.polls import begin, end, follower, poll, postpone, requests

pytestmark = pytest.mark.django_db


def test_whoever_comes_back_has_missed_nothing_wherever_they_were(alice: Caller) -> None:
    one = follower(alice)
    story = poll(one)
    tomorrow = ahead(days=1)
    for act in (
        alice.submit,
        alice.submit,
        lambda: begin(alice, 1),
        lambda: alice.submit(not_before=tomorrow),
        lambda: alice.submit(not_before=tomorrow),
        alice.submit,
        lambda: end(alice, 1),
        lambda: control.cancel(Request.objects.get(seq=3).id),
        lambda: control.cancel(Request.objects.filter(seq=None)[0].id),
        lambda: begin(alice, 2),
        lambda: postpone(alice, 2),
        alice.submit,
        lambda: begin(alice, 2),
    ):
        act()
        story += poll(one)
    truth = {str(request.id): request.status_now.value for request in Request.objects.select_related("queue")}
    for at, last in enumerate(story):
        known = {event.data["id"]: event.data["status"] for event in story[: at + 1] if event.name == "request"}
        back = poll(follower(alice, last.id))
        known |= {event.data["id"]: event.data["status"] for event in back if event.name == "request"}
        assert known == truth, f"after {last.id}"
        assert back[0].name == "queue"


def test_who_was_away_while_it_was_given_up_is_told(alice: Caller) -> None:
    waiting = [alice.submit()["id"] for _ in range(3)]
    scheduled = alice.submit(not_before=ahead(days=1))["id"]
    before = poll(follower(alice))[-1].id
    for one in (waiting[1], scheduled):
        alice.post(f"requests/{one}/cancel")
    told = [event.data["id"] for event in poll(follower(alice, before)) if event.data.get("status") == "cancelled"]
    assert sorted(told) == sorted([waiting[1], scheduled])


def test_who_comes_back_with_nothing_missed_is_told_the_queue_alone(alice: Caller) -> None:
    alice.submit()
    end(alice, 1)
    last = poll(follower(alice))[-1].id
    assert [event.name for event in poll(follower(alice, last))] == ["queue"]


@pytest.mark.parametrize(
    "last_id", ["x", "0", "0-0", "1-0-0", "9-9-0", "0-9-0", f"0-0-{10**13}", "0-0-9" + "9" * 30, "-1-0-0"]
)
def test_an_id_that_cannot_be_ours_begins_anew(alice: Caller, last_id: str) -> None:
    alice.submit()
    alice.submit()
    end(alice, 1)
    assert requests(poll(follower(alice, last_id))) == [(2, "queued")]


def test_who_was_away_for_too_long_begins_anew(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    last = poll(follower(alice))[-1].id
    for _ in range(3):
        alice.submit()
    end(alice, 2)
    Request.objects.filter(seq=1).update(status="succeeded", finished_at=Now())
    assert requests(poll(follower(alice, last))) == [(1, "succeeded"), (2, "succeeded"), (3, "queued")]
    monkeypatch.setattr(change_feed, "MOST_MISSED", 2)
    assert requests(poll(follower(alice, last))) == [(3, "queued")]
    for _ in range(2):
        request = alice.submit(not_before=ahead(days=1))
        alice.post(f"requests/{request['id']}/cancel")
    monkeypatch.setattr(change_feed, "MOST_MISSED", 5000)
    monkeypatch.setattr(change_feed, "MOST_BESIDE", 1)
    assert requests(poll(follower(alice, last))) == [(3, "queued")]


def test_however_much_there_is_it_comes_in_bounded_parts(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    alice.post("requests/batch", {"requests": [{"kind": "demo.echo", "payload": "x" * 1000}] * 100})
    one = follower(alice)
    parts = [read(one.next_events())]
    while one.more:
        parts.append(read(one.next_events()))
    assert max(len(part) for part in parts) <= change_feed.ROWS + 2  # the head and the queue
    assert requests([event for part in parts for event in part]) == [(seq, "queued") for seq in range(1, 101)]

    monkeypatch.setattr(change_feed, "LARGEST_BYTES", 5000)
    changed = change_feed.CHANGED_REQUESTS.rows
    read_rows: list[Any] = []

    def rows(**values: Any) -> list[Any]:
        found = changed(**values)
        read_rows.extend(found)
        return found

    monkeypatch.setattr(change_feed.CHANGED_REQUESTS, "rows", rows)
    one, sizes = follower(alice), []
    told: list[Event] = []
    while one.more:
        part = one.next_events()
        sizes.append(len(part))
        told += read(part)
    assert max(sizes) < 8000
    assert len(read_rows) < 300, "what is too large for one look is not read again in each"
    assert requests(told) == [(seq, "queued") for seq in range(1, 101)]


def test_who_breaks_off_amid_the_beginning_goes_on_there(alice: Caller) -> None:
    alice.post("requests/batch", {"requests": [{"kind": "demo.echo", "payload": None}] * 100})
    one = follower(alice)
    told = read(one.next_events())
    assert one.more
    told += poll(follower(alice, told[-1].id))
    assert {event.data["sequence"] for event in told if event.name == "request"} == set(range(1, 101))


def test_a_cancellation_amid_the_beginning_is_told(alice: Caller) -> None:
    alice.post("requests/batch", {"requests": [{"kind": "demo.echo", "payload": None}] * 100})
    one = follower(alice)
    told = read(one.next_events())
    control.cancel(Request.objects.get(seq=2).id)
    control.cancel(Request.objects.get(seq=90).id)
    told += poll(one)
    assert (2, "cancelled") in requests(told)
    assert (90, "queued") not in requests(told)


def test_an_id_says_what_was_told() -> None:
    place = EventId(3, 5, 1795256114620)
    assert EventId.read(str(place)) == place
