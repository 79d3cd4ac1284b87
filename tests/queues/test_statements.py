"""What a statement sees when it had to wait for another: rows as they are then, not as they were when it began."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH

from accounts.models import Session
from queues.exceptions import FencedOut
from queues.lifecycle import control, outbox
from queues.lifecycle.lease import Lease
from queues.models import Request, UserQueue
from queues.sql import control as ends
from queues.sql import reads
from queues.states import QueueState
from tests.processing.crew import new_user, queue_of, requests_of, statuses_of, submit
from tests.queues.leases import (
    ALL,
    HOT,
    published,
    succeeded,
)
from tests.queues.threads import at_once, in_thread, wait_for_a_lock
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("declared_kinds")


def marked(parcels: Any) -> list[int]:
    """As the dispatcher does it: what is locked has its turn later. The queues that woke up."""
    woken, locked = outbox.mark_published(parcels)
    while locked:
        more, locked = outbox.mark_published(locked)
        woken += more
    return woken


def test_a_lease_that_waited_sees_that_its_head_was_cancelled_meanwhile() -> None:
    user = published(2)
    queue = queue_of(user)
    with transaction.atomic():
        UserQueue.objects.select_for_update(no_key=True).get(id=queue.id)
        taking = in_thread(lambda: Lease.take(queue.id, 1))
        in_thread(wait_for_a_lock)()  # in a transaction of one's own, nothing new is seen
        Request.objects.filter(queue=queue, seq=1).update(status="cancelled", finished_at=timezone.now())
    lease = taking()
    assert [(work.seq, work.finished_at is not None) for work in lease.came_along] == [(1, True)]


def test_a_lease_that_waited_for_a_cancel_begins_with_the_next_request() -> None:
    user = published(2)
    queue = queue_of(user)
    with transaction.atomic():
        control.cancel(requests_of(user)[0].id)
        taking = in_thread(lambda: Lease.take(queue.id, 1))
        in_thread(wait_for_a_lock)()  # in a transaction of one's own, nothing new is seen
    lease = taking()
    assert (lease.done_seq, lease.came_along[0].seq) == (1, 2)


def test_of_many_who_want_a_lease_one_gets_it() -> None:
    queue = queue_of(published(1))
    taken = at_once(8, lambda n: Lease.take(queue.id, n + 1))
    assert len([lease for lease in taken if lease is not None]) == 1
    assert queue_of(queue.user).fence == 1


def test_what_is_cancelled_is_either_run_or_taken_away_never_both() -> None:
    """A cancel races with the record that claims the next requests: whoever is second sees what the first has done."""
    for _ in range(10):
        user = published(3)
        queue = queue_of(user)
        lease = Lease.take(queue.id, 1)
        assert lease is not None
        second = requests_of(user)[1].id

        def race(n: int, lease: Lease = lease, second: Any = second) -> Any:
            if n:
                return control.cancel(second)
            lease.record(1, [succeeded(1)], QueueState.DRAINING, 2)
            return lease.claimed(2)

        claimed, _ = at_once(2, race)
        (work,) = [work for work in claimed if work.seq == 2]
        row = Request.objects.get(id=second)
        if row.status == "cancelled":
            assert work.finished_at is not None, "it was taken away, so the worker passes it over"
        else:
            assert row.cancel_asked_at is not None, "the worker had it, so it was asked"


def test_a_record_and_a_dispatcher_at_once_leave_no_queue_asleep() -> None:
    for _ in range(10):
        user = published(1)
        queue = queue_of(user)
        lease = Lease.take(queue.id, 1)
        assert lease is not None
        submit(user, None)
        parcels = outbox.unpublished(ALL, queue.id - 1, 1)

        def race(n: int, lease: Lease = lease, parcels: Any = parcels) -> Any:
            return marked(parcels) if n else lease.record(1, [succeeded(1)], QueueState.DRAINING, 1)

        _, woken = at_once(2, race)
        row = queue_of(user)
        assert (row.done_seq, row.published_seq) == (1, 2)
        assert (row.state, woken) in (("draining", []), ("ready", [queue.id]))


def test_nothing_of_a_record_is_written_once_the_fence_has_moved() -> None:
    user = published(2)
    lease = Lease.take(queue_of(user).id, 1)
    assert lease is not None
    UserQueue.objects.filter(user=user).update(fence=lease.fence + 1)
    with pytest.raises(FencedOut):
        lease.record(1, [succeeded(1)], QueueState.DRAINING, 1)
    assert statuses_of(user) == ["queued", "queued"]
    assert lease.done_seq == 0


def test_what_is_prepared_is_short_enough_to_be_remembered() -> None:
    """Psycopg parses longer texts again each time. Only its own constant says how long that is."""
    lengths = {name: len(one.text) for name, one in HOT.items()}
    assert len(lengths) > 20
    assert max(lengths.values()) <= MAX_CACHED_STATEMENT_LENGTH


def test_what_is_planned_while_tables_are_small_is_planned_for_large_ones() -> None:
    """A plan is kept while tables grow, until PostgreSQL analyzes them."""
    Session.open(published(30))
    for _ in range(10):
        published(1)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE accounts_user, accounts_session, queues_userqueue, queues_request")
        for name, statement in HOT.items():
            plan = generic_plan(cursor, statement.text)
            assert not re.search("Seq Scan on (accounts|queues)_(?!kindlimit)", plan), f"{name}\n{plan}"


def test_what_is_planned_while_tables_are_empty_looks_up_places_in_line() -> None:
    """Until PostgreSQL analyzes them, a user's request costs as much as if there were no others of theirs."""
    names = {"one_request_a_place", "queues_request_pkey", "request_given_up", "request_scheduled"}
    names |= {"request_due", "request_lapses"}  # of all queues, by a moment
    looked_up = {**HOT, "QUEUE_SUMMARY": reads.QUEUE_SUMMARY, "EXPIRE": ends.EXPIRE, "END_IN_LINE": ends.END_IN_LINE}
    looked_up["PASS_OVER"] = ends.PASS_OVER
    looked_up |= {"OWN_REQUEST": reads.OWN_REQUEST, "OWN_REQUESTS": reads.OWN_REQUESTS}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("TRUNCATE queues_request, queues_attempt")
        for name, statement in looked_up.items():
            plan = generic_plan(cursor, statement.text)
            used = set(re.findall(r"using (\w+) on queues_request\b", plan))
            assert used <= names, f"{name}\n{plan}"
            assert "Join Filter: (r.id" not in plan, f"compares each with each: {name}\n{plan}"
            assert "Seq Scan on queues_request" not in plan, f"{name}\n{plan}"
        transaction.set_rollback(True)


def generic_plan(cursor: Any, text: str) -> str:
    numbers: dict[str, int] = {}
    numbered = re.sub(r"%\((\w+)\)s", lambda found: f"${numbers.setdefault(found[1], len(numbers) + 1)}", text)
    cursor.execute("PREPARE planned AS " + numbered.replace("%%", "%"))
    values = f"({', '.join(['NULL'] * len(numbers))})" if numbers else ""
    cursor.execute(f"EXPLAIN EXECUTE planned {values}")
    lines = [line for (line,) in cursor.fetchall()]
    cursor.execute("DEALLOCATE planned")
    return "\n".join(lines)


def test_the_same_record_twice_counts_once() -> None:
    """A commit whose answer was lost is tried again."""
    user = published(2)
    lease = Lease.take(queue_of(user).id, 1)
    assert lease is not None
    lease.record(1, [succeeded(1)], QueueState.DRAINING, 1)
    lease.done_seq = 0
    with pytest.raises(FencedOut):
        lease.record(1, [succeeded(1)], QueueState.DRAINING, 1)
    assert lease.catch_up() == 1
    assert queue_of(user).done_seq == 1


def test_scheduled_requests_enter_the_line_in_the_order_of_their_moments_beside_new_ones() -> None:
    """What is due in a queue that somebody has locked is looked for again, as the dispatcher does it."""
    user = new_user()
    later = timezone.now() + timedelta(hours=1)
    for minutes in (3, 1, 2):
        submit(user, minutes, not_before=later + timedelta(minutes=minutes))
    Request.objects.filter(queue__user=user).update(not_before=F("not_before") - timedelta(hours=2))

    def entered() -> bool:
        outbox.enter_line(ALL, 100)
        return not Request.objects.filter(queue__user=user, seq=None).exists()

    def race(n: int) -> Any:
        return until(entered) if n < 2 else [submit(user, None)[0].seq for _ in range(5)]

    at_once(4, race)
    found = requests_of(user)
    assert [request.seq for request in found] == list(range(1, 14))
    assert [request.payload for request in found if request.payload] == [1, 2, 3]
    assert queue_of(user).last_seq == 13


def test_cancelling_what_is_scheduled_while_it_enters_the_line_deadlocks_with_nobody() -> None:
    for _ in range(5):
        user = new_user()
        submit(user, *[None] * 6, not_before=timezone.now() + timedelta(hours=1))
        Request.objects.filter(queue__user=user).update(not_before=timezone.now() - timedelta(hours=1))
        ids = list(Request.objects.filter(queue__user=user).values_list("id", flat=True))

        def race(n: int, ids: Any = ids) -> Any:
            return outbox.enter_line(ALL, 100) if n == 0 else control.cancel(ids[n])

        at_once(6, race)
        outbox.enter_line(ALL, 100)
        assert Request.objects.filter(queue__user=user, status="cancelled").count() == 5
        (left,) = Request.objects.filter(queue__user=user, status="queued")
        assert left.seq is not None
