"""What is shown is true: depth, room, places and times count what really waits, whatever was given up amid the line."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.utils import timezone

from queues.enqueue.accept import accept_messages, accept_together
from queues.exceptions import TooManyGivenUp
from queues.kinds import find
from queues.lifecycle import control, correction, outbox
from queues.lifecycle.lease import Lease
from queues.lifecycle.outbox import Shard
from queues.lifecycle.recovery import recover
from queues.models import Request, UserQueue
from queues.operations import integrity
from queues.states import QueueState, Status
from queues.values import Submission, SubmissionCall
from tests.processing.crew import Hand, submit
from tests.queues.api import Caller
from tests.queues.life import Life
from tests.queues.rows import queue_of, request_in
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("declared_kinds")


def running(caller: Caller, waiting: int) -> UserQueue:
    """A queue whose head runs, with so many behind it, full."""
    submit(caller.user, *range(waiting + 1), kind="test.patient")
    UserQueue.objects.filter(user=caller.user).update(
        state="ready", published_seq=F("last_seq"), waiting_limit=waiting + 1, avg_service_seconds=2
    )
    queue = UserQueue.objects.get(user=caller.user)
    assert Lease.take(queue.pk, worker_id=1)
    return queue


def test_a_purge_behind_a_running_request_makes_room_at_once() -> None:
    alice = Caller()
    queue = running(alice, 4)
    assert alice.post("requests", {"kind": "demo.echo", "payload": 1}).status == 429
    purged = alice.post("queue/purge").json
    assert (purged["depth"], purged["eta_seconds"]) == (1, 2)
    told = [alice.submit(n) for n in range(4)]
    assert [(one["sequence"], one["position"], one["eta_seconds"]) for one in told] == [
        (6, 1, 2), (7, 2, 4), (8, 3, 6), (9, 4, 8),
    ]  # fmt: skip
    refused = alice.post("requests", {"kind": "demo.echo", "payload": 1})
    assert (refused.status, refused.json["detail"]) == (429, "5 requests are waiting; your queue holds 5.")
    assert [alice.get(f"requests/{one['id']}").json["position"] for one in told] == [1, 2, 3, 4]
    page = alice.get("requests?order=asc").json["results"]
    assert [one["position"] for one in page] == [0, None, None, None, None, 1, 2, 3, 4]
    assert UserQueue.objects.get(id=queue.pk).given_up_ahead == 4


def test_a_cancel_behind_a_running_request_brings_those_behind_it_forward() -> None:
    alice = Caller()
    queue = running(alice, 4)
    control.cancel(Request.objects.get(queue=queue, seq=3).id)
    page = alice.get("requests?order=asc&limit=3").json
    assert [one["position"] for one in page["results"]] == [0, 1, None]
    second = alice.get(page["next"].partition("/api/v1/")[2]).json["results"]
    assert [one["position"] for one in second] == [2, 3]
    assert alice.submit("fits again")["position"] == 4


def test_room_that_a_purge_made_is_there_for_those_accepted_together() -> None:
    alice = Caller()
    running(alice, 2)
    control.purge(UserQueue.objects.get(user=alice.user).pk)
    session = alice.user.sessions.get().pk
    asks = [SubmissionCall(alice.user.pk, session, Submission(find("test.patient"), "1"), "") for _ in range(3)]
    taken = accept_together(asks[:2]).accepted
    assert [one.position for one in taken.values()] == [1, 2]
    assert not accept_together(asks[2:]).accepted, "full again"


def test_what_is_given_up_behind_a_waiting_head_has_places_until_the_line_has_none() -> None:
    """Several statements walk along them, of which some serve other users, too."""
    alice = Caller()
    queue = queue_of(alice.user, waiting_limit=2)
    head, body = alice.submit("it waits"), {"kind": "demo.echo", "payload": 1}
    for place in range(2, 21):
        given_up = alice.submit(place)
        alice.post(f"requests/{given_up['id']}/cancel")
    again = f"requests/{given_up['id']}/retry"
    for path, asked in (("requests", body), ("requests/batch", {"requests": [body]}), (again, None)):
        refused = alice.post(path, asked)
        assert (refused.status, refused.json["type"]) == (429, "/problems/queue-full")
        assert refused.json["detail"].startswith("19 requests were cancelled or have expired behind one")
        assert refused.headers["Retry-After"] == "60"
    session = alice.user.sessions.get().pk
    ask = SubmissionCall(alice.user.pk, session, Submission(find("demo.echo"), "1"), "")
    assert not accept_together([ask]).accepted
    assert not accept_messages([ask])
    assert Request.objects.filter(queue=queue).count() == 20
    control.cancel(head["id"])
    assert alice.submit("there are places again")["position"] == 0


def test_what_was_scheduled_enters_a_line_without_places_and_no_more_is_scheduled_then() -> None:
    alice = Caller()
    queue = queue_of(alice.user, waiting_limit=2, last_seq=20, given_up_ahead=19)
    request_in(queue, 1, Status.QUEUED)
    later = timezone.now() + timedelta(hours=1)
    submit(alice.user, 1, 2, kind="demo.echo", not_before=later)
    Request.objects.filter(queue=queue).update(not_before=timezone.now())
    assert outbox.enter_line(Shard(0, 1), 10) == 2
    for seq in (21, 22):
        control.cancel(Request.objects.get(queue=queue, seq=seq).id)
    with pytest.raises(TooManyGivenUp):
        submit(alice.user, 3, kind="demo.echo", not_before=later)


@pytest.mark.no_cover  # what it runs is covered elsewhere, and being watched takes half as long again
@pytest.mark.parametrize("seed", range(8))
def test_depth_and_places_count_what_waits_whatever_happens_to_a_queue(seed: int) -> None:
    life, steps = Life(seed), []
    for _ in range(100):
        steps.append(life.step())
        life.check(steps)


def test_a_count_that_a_hand_made_wrong_is_found_and_mended_and_stops_no_queue() -> None:
    alice = Caller()
    queue = running(alice, 3)
    control.cancel(Request.objects.get(queue=queue, seq=3).id)
    for wrong in (0, 7):
        UserQueue.objects.filter(id=queue.pk).update(given_up_ahead=wrong)
        ((_, (found,)),) = integrity.compare(10)
        assert str(found).endswith(f"given_up_ahead is {wrong}, but of what is ahead 1 are final")
        correction.correct(queue.pk)  # also while a worker has it
        assert UserQueue.objects.get(id=queue.pk).given_up_ahead == 1
    UserQueue.objects.filter(id=queue.pk).update(given_up_ahead=7)
    assert UserQueue.objects.get(id=queue.pk).depth == 0
    recover(queue.pk, 1)
    lease = Lease.take(queue.pk, worker_id=2)
    assert lease
    lease.record(0, [], QueueState.DRAINING, 4)
    lease.record(4, [], QueueState.DRAINING, 1)
    assert UserQueue.objects.get(id=queue.pk).given_up_ahead == 0


def test_a_blocked_head_is_shown_as_blocked_and_nobody_behind_it_is_told_a_time() -> None:
    alice = Caller()
    queue = queue_of(alice.user, last_seq=2, published_seq=2, state=QueueState.BLOCKED, avg_service_seconds=1)
    head = request_in(queue, 1, Status.RETRYING, attempt=3, on_failure="block")
    request_in(queue, 2, Status.QUEUED)
    shown = alice.get(f"requests/{head.id}").json
    assert (shown["status"], shown["attempt"], shown["position"], shown["eta_seconds"]) == ("blocked", 3, 0, None)
    assert [one["id"] for one in alice.get("requests?status=blocked").json["results"]] == [str(head.id)]
    assert alice.get("requests?status=retrying").json["results"] == []
    assert alice.get("queue").json["eta_seconds"] is None
    behind = alice.submit("behind it")
    assert (behind["position"], behind["eta_seconds"]) == (2, None)
    assert alice.get(f"requests/{behind['id']}").json["eta_seconds"] is None
    control.retry(head.id)
    assert alice.get(f"requests/{head.id}").json["status"] == "retrying"
    assert alice.get("requests?status=blocked").json["results"] == []
    again = alice.get("requests?status=retrying").json["results"]
    assert [one["id"] for one in again] == [str(head.id)]


def test_what_runs_shows_its_attempt_that_it_is_to_end_and_when_it_began_for_good(
    hand: Hand,
    script: Callable[..., Any],
) -> None:
    alice, seen = Caller(), []

    @script
    def looked_at(request: Any) -> str:
        control.cancel(request.id)
        seen_running(request)
        if request.attempt == 1:
            raise RuntimeError("once more")
        return "done"

    @script
    def slow(request: Any) -> None:
        seen_running(request)

    def seen_running(request: Any) -> None:
        """Behind a fast one in a claim, once the watch has recorded that."""
        until(lambda: alice.get(f"requests/{request.id}").json["status"] == "running")
        seen.append(alice.get(f"requests/{request.id}").json)

    @script
    def fast(request: Any) -> None: ...

    submit(alice.user, "fast", "fast", "slow", "fast", "looked_at")
    hand.settle()
    assert len(seen) >= 2
    for then in seen:
        now = alice.get(f"requests/{then['id']}").json
        assert then["status"] == "running"
        assert then["started_at"] == now["started_at"] is not None
    assert [one["attempt"] for one in seen[:2]] == [1, 1]
    assert [one["cancel_requested"] for one in seen[:2]] == [False, True]
