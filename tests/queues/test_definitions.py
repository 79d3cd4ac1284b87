"""One word, one figure: the API, the commands, the admin and the metrics agree, whatever state the queue is in."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.utils import timezone
from uuid_utils.compat import uuid7

from queues import throughput
from queues.admin import queue_detail
from queues.models import Request, UserQueue
from queues.operations import backlog, selectors
from queues.operations.figures import figures
from queues.states import THROUGHPUT, AttemptOutcome, QueueState, Status
from tests.queues.api import Caller
from tests.queues.commands import run
from tests.queues.rows import queue_of, request_in

pytestmark = pytest.mark.django_db

FIRED_LATE = timedelta(seconds=300)  # the one that waits longest was scheduled: this long ago it could begin


def a_queue(alice: Caller, state: QueueState) -> UserQueue:
    """Three are over, four are in line, of which one was given up; the head is in the state's favourite status."""
    now = timezone.now()
    queue = queue_of(
        alice.user,
        last_seq=7,
        published_seq=3 if state == QueueState.IDLE else 7,
        done_seq=3,
        given_up_ahead=1,
        state=state,
        claimed=int(state == QueueState.DRAINING),
        wake_at=now if state == QueueState.WAITING else None,
    )
    for seq, status in enumerate((Status.SUCCEEDED, Status.FAILED, Status.CANCELLED), 1):
        request_in(queue, seq, status, now - timedelta(seconds=20))
    failed_before = state in (QueueState.WAITING, QueueState.BLOCKED)
    head = Status.RETRYING if failed_before else Status.QUEUED
    earlier = {"created_at": now - 2 * FIRED_LATE, "not_before": now - FIRED_LATE}
    request_in(queue, 4, head, attempt=int(failed_before), **({} if state == QueueState.DRAINING else earlier))
    request_in(queue, 5, Status.CANCELLED, now - timedelta(seconds=50))
    request_in(queue, 6, Status.QUEUED, **(earlier if state == QueueState.DRAINING else {"created_at": now}))
    request_in(queue, 7, Status.QUEUED, now)
    request_in(queue, None, Status.SCHEDULED, now, not_before=now + FIRED_LATE)
    return queue


@pytest.mark.parametrize("state", QueueState)
def test_the_age_of_what_waits_longest_is_the_same_everywhere(alice: Caller, state: QueueState) -> None:
    queue = a_queue(alice, state)
    since = datetime.fromisoformat(alice.get("queue").json["oldest_waiting_at"])
    (listed,) = run("queues", "list", "--json").json
    page = queue_detail.page_of(str(queue.pk), "")
    assert page is not None
    ages = [
        (timezone.now() - since).total_seconds(),
        listed["oldest_waiting_seconds"],
        (timezone.now() - page.queue.oldest_waiting_at).total_seconds(),
        max(backlog.measure().ages.values()),
        run("queues", "top", "--json", "--times", "1").json["oldest_waiting_seconds"],
    ]
    assert ages == [pytest.approx(FIRED_LATE.total_seconds(), abs=30)] * len(ages)


@pytest.mark.parametrize("state", QueueState)
@pytest.mark.parametrize("paused", [False, True])
def test_what_waits_and_how_long_it_will_take_is_the_same_everywhere(
    alice: Caller, state: QueueState, paused: bool
) -> None:
    queue = a_queue(alice, state)
    UserQueue.objects.filter(id=queue.pk).update(avg_service_seconds=1.25, paused=paused)
    told = alice.get("queue").json
    page = queue_detail.page_of(str(queue.pk), "")
    assert page is not None
    runs = int(state == QueueState.DRAINING)
    assert [told["depth"], page.queue.depth, run("queues", "list", "--json").json[0]["depth"]] == [3] * 3
    assert UserQueue.objects.annotate(waiting=selectors.DEPTH).get(id=queue.pk).waiting == 3
    kinds = {one["kind"]: one["waiting"] for one in run("kinds", "list", "--json").json}
    assert kinds["demo.echo"] - 1 == len(page.waiting) == 3 - runs, "beside the one that is scheduled"
    known = not paused and state != QueueState.BLOCKED
    assert told["eta_seconds"] == page.eta_seconds == (3.75 if known else None)
    last = alice.get("requests?order=desc&status=queued").json["results"][0]
    assert (last["position"], last["eta_seconds"]) == (2, 2.5 if known else None)


def test_a_queue_that_nobody_used_has_no_wait(alice: Caller) -> None:
    before = alice.get("queue").json
    queue = queue_of(alice.user)
    page = queue_detail.page_of(str(queue.pk), "")
    assert page is not None
    after = alice.get("queue").json
    assert (before["eta_seconds"], after["eta_seconds"], page.eta_seconds) == (0, 0, 0)
    assert before["limit"] == after["limit"] == page.queue.limit


@pytest.mark.parametrize("state", QueueState)
def test_a_status_is_the_same_in_the_api_and_in_the_commands(alice: Caller, state: QueueState) -> None:
    queue = a_queue(alice, state)
    for status in Status:
        meant = {
            request.id for request in Request.objects.select_related("queue") if request.status_now == status
        }  # the one of a request that is shown alone
        assert {UUID(one["id"]) for one in alice.get(f"requests?status={status}").json["results"]} == meant, status
        assert set(selectors.having(Request.objects.all(), status).values_list("id", flat=True)) == meant, status
        newest = selectors.newest_having(Request.objects.all(), status, "")
        assert set(newest.values_list("id", flat=True)) == meant, status
    assert queue.depth == alice.get("queue").json["depth"] == run("queues", "list", "--json").json[0]["depth"] == 3
    assert backlog.measure().depth == 3


def test_throughput_is_what_ran_in_the_last_minute_everywhere(alice: Caller) -> None:
    queue = a_queue(alice, QueueState.READY)
    page = queue_detail.page_of(str(queue.pk), "")
    assert page is not None
    assert alice.get("queue").json["finished_per_minute"] == 2  # nobody did the one that was cancelled
    assert page.finished_per_minute == run("queues", "list", "--json").json[0]["finished_per_minute"] == 2
    assert {*throughput.COUNTED} - {AttemptOutcome.REJECTED} == {*THROUGHPUT}  # the board's, of all queues


def test_the_metrics_tell_what_the_commands_tell(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    a_queue(alice, QueueState.READY)
    monkeypatch.setattr(backlog, "recent", backlog.Recent())
    found = {metric.name: metric for metric in figures()}
    assert found["ordered_work_depth_max"].samples[0].value == 3
    oldest = {sample.labels["queues"]: sample.value for sample in found["ordered_work_oldest_waiting_seconds"].samples}
    assert oldest["moving"] == pytest.approx(FIRED_LATE.total_seconds(), abs=30)


def test_the_smallest_id_of_a_moment_lies_below_all_that_are_given_from_then_on() -> None:
    before, moment = uuid7(), timezone.now() + timedelta(milliseconds=2)
    assert before < selectors.first_id(moment)
    later = uuid7(nanoseconds=int(moment.timestamp() * 1_000_000) * 1000)
    assert selectors.first_id(moment) <= later
