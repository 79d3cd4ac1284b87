"""What a stream tells: every change once, in order."""

from uuid import UUID

import pytest
from django.db.models.functions import Now

from queues.exceptions import SessionOver
from queues.lifecycle import control
from queues.models import Request
from tests.queues.api import Caller, ahead
from tests.queues.events import read
from tests.queues.polls import begin, end, follower, move, poll, postpone, requests

pytestmark = pytest.mark.django_db


def test_who_begins_is_told_the_queue_and_what_is_not_final(alice: Caller) -> None:
    for _ in range(4):
        alice.submit()
    alice.submit(not_before=ahead(days=1))
    end(alice, 1)
    control.cancel(Request.objects.get(seq=3).id)
    told = poll(follower(alice))
    assert told[0].name == "queue"
    assert told[0].data == alice.get("queue").json
    assert requests(told) == [(2, "queued"), (4, "queued"), (None, "scheduled")]
    assert [event.data for event in told[1:]] == [alice.get(f"requests/{e.data['id']}").json for e in told[1:]]


def test_who_never_asked_for_anything_is_told_of_the_first(alice: Caller) -> None:
    one = follower(alice)
    assert [(event.name, event.data["state"], event.data["depth"]) for event in poll(one)] == [("queue", "idle", 0)]
    alice.submit()
    assert requests(poll(one)) == [(1, "queued")]


def test_each_change_is_told_once(alice: Caller) -> None:
    one = follower(alice)
    poll(one)
    alice.submit()
    steps = [
        lambda: None,
        lambda: begin(alice, 1),
        lambda: postpone(alice, 1),
        lambda: begin(alice, 1),
        lambda: end(alice, 1),
    ]
    for step, status in zip(steps, ["queued", "running", "retrying", "running", "succeeded"], strict=True):
        step()
        told = poll(one)
        assert requests(told) == [(1, status)]
        assert [event.name for event in told] == ["queue", "request"]
        assert poll(one) == []


def test_what_happened_between_two_looks_is_told_as_it_is_now(alice: Caller) -> None:
    one = follower(alice)
    poll(one)
    for _ in range(3):
        alice.submit()
    end(alice, 2)
    Request.objects.filter(seq=1).update(status="failed", finished_at=Now())
    begin(alice, 3)
    assert requests(poll(one)) == [(1, "failed"), (2, "succeeded"), (3, "running")]


def test_what_is_given_up_amid_the_line_is_told_once(alice: Caller) -> None:
    ids = [alice.submit()["id"] for _ in range(4)]
    one = follower(alice)
    poll(one)
    alice.post(f"requests/{ids[2]}/cancel")
    assert requests(poll(one)) == [(3, "cancelled")]
    assert poll(one) == []
    end(alice, 1)
    assert requests(poll(one)) == [(1, "succeeded")]
    Request.objects.filter(seq=2).update(status="succeeded", finished_at=Now())
    end(alice, 4)
    assert requests(poll(one)) == [(2, "succeeded"), (4, "succeeded")]


def test_what_is_scheduled_is_told_until_it_ends_or_is_in_line(alice: Caller) -> None:
    one = follower(alice)
    poll(one)
    tomorrow = ahead(days=1)
    given_up, due = (alice.submit(not_before=tomorrow)["id"] for _ in range(2))
    assert requests(poll(one)) == [(None, "scheduled")] * 2
    alice.post(f"requests/{given_up}/cancel")
    assert requests(poll(one)) == [(None, "cancelled")]
    move(alice, last_seq=1)
    Request.objects.filter(id=due).update(seq=1, status="queued")
    assert requests(poll(one)) == [(1, "queued")]
    assert poll(one) == []


def test_an_event_of_the_queue_comes_when_more_than_its_pace_is_new(alice: Caller) -> None:
    one = follower(alice)
    poll(one)
    for verb, paused in (("pause", True), ("resume", False)):
        alice.post(f"queue/{verb}")
        assert [(event.name, event.data["paused"]) for event in poll(one)] == [("queue", paused)]
    move(alice, avg_service_seconds=5.0)
    assert poll(one) == []


def test_json_with_line_breaks_stays_one_event(alice: Caller) -> None:
    alice.post("requests", b'{"kind": "demo.echo", "payload": {"a":\r\n [1,\n\n 2],\r"b": "\\n"}}')
    told = poll(follower(alice))[-1]
    assert told.data["payload"] == {"a": [1, 2], "b": "\n"}


def test_progress_is_told_without_asking_postgresql_and_only_of_what_runs(alice: Caller) -> None:
    mine = alice.submit()["id"]
    one = follower(alice)
    poll(one)
    progress = b'{"current":1,"total":3,"note":""}'
    assert one.progress(mine, progress) is None  # the client does not know that it runs: look
    begin(alice, 1)
    poll(one)
    assert one.progress(str(UUID(int=1)), progress) is None
    (told,) = read(one.progress(mine, progress) or b"")
    assert (told.data["status"], told.data["progress"]["current"]) == ("running", 1)


def test_others_requests_are_never_told(alice: Caller) -> None:
    bob = Caller()
    bob.submit()
    last = poll(follower(bob))[-1].id
    assert requests(poll(follower(alice))) == []
    assert requests(poll(follower(alice, last))) == []


@pytest.mark.parametrize("how", ["session", "inactive", "erased"])
def test_whose_session_is_over_is_told_nothing(alice: Caller, how: str) -> None:
    one = follower(alice)
    poll(one)
    if how == "session":
        alice.user.end_sessions()
    elif how == "inactive":
        alice.user.is_active = False
        alice.user.save()
    else:
        alice.user.delete()
    with pytest.raises(SessionOver):
        one.next_events()
