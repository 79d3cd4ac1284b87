"""What a stream tells: every change once, in order, and after a break whatever changed meanwhile."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from accounts.tokens import read_access
from queues.exceptions import SessionOver
from queues.lifecycle import control
from queues.live import change_feed
from queues.live.change_feed import EventId, Follower
from queues.models import Request, UserQueue
from tests.queues.api import Caller
from tests.queues.events import Event, read

pytestmark = pytest.mark.django_db


def follower(caller: Caller, last_id: str = "") -> Follower:
    return Follower(read_access(caller.token), last_id)


def look(one: Follower) -> list[Event]:
    """All that is new by now."""
    told = read(one.look())
    while one.more:
        told += read(one.look())
    return told


def requests(told: list[Event]) -> list[tuple[Any, ...]]:
    return [event.told[:2] for event in told if event.name == "request"]


def move(caller: Caller, **changes: Any) -> None:
    """Change the queue's row, as the machinery does."""
    UserQueue.objects.filter(user=caller.user).update(**changes)


def begin(caller: Caller, seq: int) -> None:
    move(caller, state="draining", published_seq=seq, claimed=1, claimed_at=Now(), wake_at=None)


def end(caller: Caller, seq: int, status: str = "succeeded") -> None:
    Request.objects.filter(queue__user=caller.user, seq=seq).update(status=status, finished_at=Now(), attempt=1)
    move(caller, state="idle", done_seq=seq, published_seq=seq, wake_at=None)


def postpone(caller: Caller, seq: int) -> None:
    Request.objects.filter(queue__user=caller.user, seq=seq).update(status="retrying", attempt=1)
    move(caller, state="waiting", wake_at=Now())


def test_who_begins_is_told_the_queue_and_what_is_not_final(alice: Caller) -> None:
    for _ in range(4):
        alice.submit()
    alice.submit(not_before=(timezone.now() + timedelta(days=1)).isoformat())
    end(alice, 1)
    control.cancel(Request.objects.get(seq=3).id)
    told = look(follower(alice))
    assert told[0].name == "queue"
    assert told[0].data == alice.get("queue").json
    assert requests(told) == [(2, "queued"), (4, "queued"), (None, "scheduled")]
    assert [event.data for event in told[1:]] == [alice.get(f"requests/{e.data['id']}").json for e in told[1:]]


def test_who_never_asked_for_anything_is_told_of_the_first(alice: Caller) -> None:
    one = follower(alice)
    assert [(event.name, event.data["state"], event.data["depth"]) for event in look(one)] == [("queue", "idle", 0)]
    alice.submit()
    assert requests(look(one)) == [(1, "queued")]


def test_each_change_is_told_once(alice: Caller) -> None:
    one = follower(alice)
    look(one)
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
        told = look(one)
        assert requests(told) == [(1, status)]
        assert [event.name for event in told] == ["queue", "request"]
        assert look(one) == []


def test_what_happened_between_two_looks_is_told_as_it_is_now(alice: Caller) -> None:
    one = follower(alice)
    look(one)
    for _ in range(3):
        alice.submit()
    end(alice, 2)
    Request.objects.filter(seq=1).update(status="failed", finished_at=Now())
    begin(alice, 3)
    assert requests(look(one)) == [(1, "failed"), (2, "succeeded"), (3, "running")]


def test_what_is_given_up_amid_the_line_is_told_once(alice: Caller) -> None:
    ids = [alice.submit()["id"] for _ in range(4)]
    one = follower(alice)
    look(one)
    alice.post(f"requests/{ids[2]}/cancel")
    assert requests(look(one)) == [(3, "cancelled")]
    assert look(one) == []
    end(alice, 1)
    assert requests(look(one)) == [(1, "succeeded")]
    Request.objects.filter(seq=2).update(status="succeeded", finished_at=Now())
    end(alice, 4)
    assert requests(look(one)) == [(2, "succeeded"), (4, "succeeded")]


def test_what_is_scheduled_is_told_until_it_ends_or_is_in_line(alice: Caller) -> None:
    one = follower(alice)
    look(one)
    tomorrow = (timezone.now() + timedelta(days=1)).isoformat()
    given_up, due = (alice.submit(not_before=tomorrow)["id"] for _ in range(2))
    assert requests(look(one)) == [(None, "scheduled")] * 2
    alice.post(f"requests/{given_up}/cancel")
    assert requests(look(one)) == [(None, "cancelled")]
    move(alice, last_seq=1)
    Request.objects.filter(id=due).update(seq=1, status="queued")
    assert requests(look(one)) == [(1, "queued")]
    assert look(one) == []


def test_an_event_of_the_queue_comes_when_more_than_its_pace_is_new(alice: Caller) -> None:
    one = follower(alice)
    look(one)
    for verb, paused in (("pause", True), ("resume", False)):
        alice.post(f"queue/{verb}")
        assert [(event.name, event.data["paused"]) for event in look(one)] == [("queue", paused)]
    move(alice, seconds_each=5.0)
    assert look(one) == []


def test_whoever_comes_back_has_missed_nothing_wherever_they_were(alice: Caller) -> None:
    one = follower(alice)
    story = look(one)
    tomorrow = (timezone.now() + timedelta(days=1)).isoformat()
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
        story += look(one)
    truth = {str(request.id): request.status_now.value for request in Request.objects.select_related("queue")}
    for at, last in enumerate(story):
        known = {event.data["id"]: event.data["status"] for event in story[: at + 1] if event.name == "request"}
        back = look(follower(alice, last.id))
        known |= {event.data["id"]: event.data["status"] for event in back if event.name == "request"}
        assert known == truth, f"after {last.id}"
        assert back[0].name == "queue"


def test_who_was_away_while_it_was_given_up_is_told(alice: Caller) -> None:
    waiting = [alice.submit()["id"] for _ in range(3)]
    scheduled = alice.submit(not_before=(timezone.now() + timedelta(days=1)).isoformat())["id"]
    before = look(follower(alice))[-1].id
    for one in (waiting[1], scheduled):
        alice.post(f"requests/{one}/cancel")
    told = [event.data["id"] for event in look(follower(alice, before)) if event.data.get("status") == "cancelled"]
    assert sorted(told) == sorted([waiting[1], scheduled])


def test_who_comes_back_with_nothing_missed_is_told_the_queue_alone(alice: Caller) -> None:
    alice.submit()
    end(alice, 1)
    last = look(follower(alice))[-1].id
    assert [event.name for event in look(follower(alice, last))] == ["queue"]


@pytest.mark.parametrize(
    "last_id", ["x", "0", "0-0", "1-0-0", "9-9-0", "0-9-0", f"0-0-{10**13}", "0-0-9" + "9" * 30, "-1-0-0"]
)
def test_an_id_that_cannot_be_ours_begins_anew(alice: Caller, last_id: str) -> None:
    alice.submit()
    alice.submit()
    end(alice, 1)
    assert requests(look(follower(alice, last_id))) == [(2, "queued")]


def test_who_was_away_for_too_long_begins_anew(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    last = look(follower(alice))[-1].id
    for _ in range(3):
        alice.submit()
    end(alice, 2)
    Request.objects.filter(seq=1).update(status="succeeded", finished_at=Now())
    assert requests(look(follower(alice, last))) == [(1, "succeeded"), (2, "succeeded"), (3, "queued")]
    monkeypatch.setattr(change_feed, "MOST_MISSED", 2)
    assert requests(look(follower(alice, last))) == [(3, "queued")]
    for _ in range(2):
        request = alice.submit(not_before=(timezone.now() + timedelta(days=1)).isoformat())
        alice.post(f"requests/{request['id']}/cancel")
    monkeypatch.setattr(change_feed, "MOST_MISSED", 5000)
    monkeypatch.setattr(change_feed, "MOST_BESIDE", 1)
    assert requests(look(follower(alice, last))) == [(3, "queued")]


def test_however_much_there_is_it_comes_in_bounded_parts(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    alice.post("requests/batch", {"requests": [{"kind": "demo.echo", "payload": "x" * 1000}] * 100})
    one = follower(alice)
    parts = [read(one.look())]
    while one.more:
        parts.append(read(one.look()))
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
        part = one.look()
        sizes.append(len(part))
        told += read(part)
    assert max(sizes) < 8000
    assert len(read_rows) < 300, "what is too large for one look is not read again in each"
    assert requests(told) == [(seq, "queued") for seq in range(1, 101)]


def test_who_breaks_off_amid_the_beginning_goes_on_there(alice: Caller) -> None:
    alice.post("requests/batch", {"requests": [{"kind": "demo.echo", "payload": None}] * 100})
    one = follower(alice)
    told = read(one.look())
    assert one.more
    told += look(follower(alice, told[-1].id))
    assert {event.data["sequence"] for event in told if event.name == "request"} == set(range(1, 101))


def test_a_cancellation_amid_the_beginning_is_told(alice: Caller) -> None:
    alice.post("requests/batch", {"requests": [{"kind": "demo.echo", "payload": None}] * 100})
    one = follower(alice)
    told = read(one.look())
    control.cancel(Request.objects.get(seq=2).id)
    control.cancel(Request.objects.get(seq=90).id)
    told += look(one)
    assert (2, "cancelled") in requests(told)
    assert (90, "queued") not in requests(told)


def test_json_with_line_breaks_stays_one_event(alice: Caller) -> None:
    alice.post("requests", b'{"kind": "demo.echo", "payload": {"a":\r\n [1,\n\n 2],\r"b": "\\n"}}')
    told = look(follower(alice))[-1]
    assert told.data["payload"] == {"a": [1, 2], "b": "\n"}


def test_progress_is_told_without_asking_postgresql_and_only_of_what_runs(alice: Caller) -> None:
    mine = alice.submit()["id"]
    one = follower(alice)
    look(one)
    progress = b'{"current":1,"total":3,"note":""}'
    assert one.progress(mine, progress) is None  # the client does not know that it runs: look
    begin(alice, 1)
    look(one)
    assert one.progress(str(UUID(int=1)), progress) is None
    (told,) = read(one.progress(mine, progress) or b"")
    assert (told.data["status"], told.data["progress"]["current"]) == ("running", 1)


def test_others_requests_are_never_told(alice: Caller) -> None:
    bob = Caller()
    bob.submit()
    last = look(follower(bob))[-1].id
    assert requests(look(follower(alice))) == []
    assert requests(look(follower(alice, last))) == []


@pytest.mark.parametrize("how", ["session", "inactive", "erased"])
def test_whose_session_is_over_is_told_nothing(alice: Caller, how: str) -> None:
    one = follower(alice)
    look(one)
    if how == "session":
        alice.user.end_sessions()
    elif how == "inactive":
        alice.user.is_active = False
        alice.user.save()
    else:
        alice.user.delete()
    with pytest.raises(SessionOver):
        one.look()


def test_an_id_says_what_was_told() -> None:
    place = EventId(3, 5, 1795256114620)
    assert EventId.read(str(place)) == place
