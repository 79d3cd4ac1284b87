"""Statements for many queues: what is locked or fenced out is left out, and costs the others nothing."""

from copy import copy
from typing import Any

import pytest

from queues.lifecycle import outbox
from queues.lifecycle.lease import Lease, Record, claimed, record_together, take_together
from queues.models import UserQueue
from queues.states import QueueState
from tests.processing.crew import new_user, queue_of, requests_of, statuses_of, submit
from tests.queues.leases import (
    ALL,
    published,
    succeeded,
)
from tests.queues.threads import at_once, holding, in_thread

pytestmark = pytest.mark.usefixtures("declared_kinds")


def lease_of(user: Any, worker_id: int = 1) -> Lease:
    lease = Lease.take(queue_of(user).id, worker_id)
    assert lease is not None
    return lease


def test_many_leases_are_taken_in_one_commit_each_with_its_own_fence_and_head() -> None:
    one, other = published(1), published(2)
    lease_of(other).record(0, [], QueueState.READY)
    leases, left_out = take_together([queue_of(user).id for user in (other, one, other)], 7)
    assert left_out == []
    by_user = {lease.user_id: lease for lease in leases}
    assert len(leases) == len(by_user) == 2
    assert [(by_user[user.id].fence, by_user[user.id].published_seq) for user in (one, other)] == [(1, 1), (2, 2)]
    assert [work.seq for lease in leases for work in lease.came_along] == [1, 1]
    for user in (one, other):
        row = queue_of(user)
        assert (row.state, row.worker_id, row.claimed) == ("draining", 7, 1)


WHY = ["paused", "idle", "somebody has it", "its row is locked", "a worker died there"]


@pytest.mark.parametrize("why", WHY)
def test_of_many_queues_one_that_cannot_be_had_costs_the_others_nothing(why: str) -> None:
    one, other = published(1), published(1)
    queue = queue_of(other)
    if why == "paused":
        UserQueue.objects.filter(user=other).update(paused=True)
    elif why == "idle":
        UserQueue.objects.filter(user=other).update(state="idle", published_seq=0)
    elif why == "a worker died there":
        UserQueue.objects.filter(user=other).update(crash_recovery_until_seq=1)
    elif why == "somebody has it":
        lease_of(other, 2)
    before = queue_of(other)
    ids = [queue.id, queue_of(one).id]
    if why == "its row is locked":
        with holding("SELECT FROM queues_userqueue WHERE id = %s FOR UPDATE", queue.id):
            leases, left_out = in_thread(lambda: take_together(ids, 1))()
    else:
        leases, left_out = take_together(ids, 1)
    assert [lease.user_id for lease in leases] == [one.id]
    assert left_out == ([queue.id] if why in ("its row is locked", "a worker died there") else []), "to be had alone"
    after = queue_of(other)
    assert (after.state, after.fence, after.worker_id) == (before.state, before.fence, before.worker_id)


def test_a_queue_is_taken_without_waiting_for_its_head() -> None:
    """What has the head's lock alone, as retention does, changes nothing of what is run."""
    user = published(1)
    with holding("SELECT FROM queues_request WHERE id = %s FOR UPDATE", requests_of(user)[0].id):
        ((taken,), _) = in_thread(lambda: take_together([queue_of(user).id], 1))()
    assert not taken.came_along
    assert [work.seq for work in taken.claimed(1)] == [1]


@pytest.mark.parametrize(("count", "come"), [(1, [2]), (3, [2, 3, 4]), (9, [2, 3, 4, 5])])
def test_few_that_are_claimed_come_along_with_the_record_in_order(count: int, come: list[int]) -> None:
    lease = lease_of(published(5))
    record_together([Record(lease, 1, [succeeded(1)], QueueState.DRAINING, count, along=count)])
    assert [work.seq for work in lease.came_along] == come
    assert lease.has(count), "RabbitMQ has no more than these"
    assert lease.came_along == lease.claimed(count)


def test_of_what_runs_already_nothing_comes_along() -> None:
    lease = lease_of(published(5))
    record_together([Record(lease, 1, [succeeded(1)], QueueState.DRAINING, 3)])
    assert not lease.came_along
    assert not lease.has(3), "what is to run next would be read"


def test_what_somebody_has_locked_comes_along_with_no_record() -> None:
    user = published(5)
    lease = lease_of(user)
    with holding("SELECT FROM queues_request WHERE id = %s FOR UPDATE", requests_of(user)[2].id):
        in_thread(lambda: record_together([Record(lease, 1, [succeeded(1)], QueueState.DRAINING, 3, along=3)]))()
    assert [work.seq for work in lease.came_along] == [2, 4]
    assert not lease.has(3), "so all are read again"


def test_many_take_many_queues_at_once_and_each_is_had_by_one_of_them() -> None:
    ids = [queue_of(published(1)).id for _ in range(20)]
    taken = at_once(6, lambda n: take_together(ids if n % 2 else ids[::-1], n + 1))
    assert sorted(lease.queue_id for leases, _ in taken for lease in leases) == sorted(ids)


def test_what_came_of_many_queues_is_recorded_in_one_commit() -> None:
    one, other, third = published(1), published(3), published(2)
    leases = {user.id: lease_of(user) for user in (one, other, third)}
    found = record_together(
        [
            Record(leases[other.id], 2, [succeeded(1), succeeded(2)], QueueState.DRAINING, 1),
            Record(leases[one.id], 1, [succeeded(1)], QueueState.DRAINING, 1),
            Record(leases[third.id], 0, [], QueueState.WAITING, delay=5),
        ]
    )
    assert found == ([], [])
    assert [leases[user.id].state for user in (one, other, third)] == ["idle", "draining", "waiting"]
    assert [leases[user.id].done_seq for user in (one, other, third)] == [1, 2, 0]
    assert [statuses_of(user) for user in (one, other, third)] == [
        ["succeeded"],
        ["succeeded", "succeeded", "queued"],
        ["queued", "queued"],
    ]
    assert {user.id: [work.seq for work in found] for user, found in claims_of(leases, other, third)} == {
        other.id: [3], third.id: [1, 2],
    }  # fmt: skip


def claims_of(leases: Any, *users: Any) -> Any:
    found = claimed([(leases[user.id], 5) for user in users])
    return [(user, found[leases[user.id].queue_id]) for user in users]


def test_of_many_records_one_that_is_fenced_out_or_locked_costs_the_others_nothing() -> None:
    users = [published(1) for _ in range(4)]
    leases = [lease_of(user) for user in users]
    UserQueue.objects.filter(user=users[0]).update(fence=9)
    records = [Record(lease, 1, [succeeded(1)], QueueState.DRAINING, 1) for lease in leases]
    with holding("SELECT FROM queues_userqueue WHERE user_id = %s FOR UPDATE", users[1].id):
        found = in_thread(lambda: record_together(records))()
    assert (found.fenced_out, found.left_out) == (records[:1], records[1:2])
    assert [statuses_of(user) for user in users] == [["queued"]] * 2 + [["succeeded"]] * 2
    assert [lease.done_seq for lease in leases] == [0, 0, 1, 1]
    assert record_together(records[1:2]) == ([], [])
    assert statuses_of(users[1]) == ["succeeded"]


def test_records_of_the_same_many_queues_deadlock_with_nobody() -> None:
    """Two who believe that they have the same leases: one of them is wrong, and waits for nobody."""
    users = [published(5) for _ in range(20)]
    leases = [lease_of(user) for user in users]

    def race(n: int) -> Any:
        mine = [copy(lease) for lease in (leases if n % 2 else leases[::-1])]
        return record_together([Record(lease, 1, [succeeded(1)], QueueState.DRAINING, 1) for lease in mine])

    at_once(4, race)
    assert [queue_of(user).done_seq for user in users] == [1] * 20


def test_two_dispatchers_marking_the_same_many_queues_deadlock_with_nobody() -> None:
    users = [new_user() for _ in range(30)]
    for user in users:
        submit(user, None)
    parcels = outbox.unpublished(ALL, 0, 100)
    assert len(parcels) == 30
    woken = at_once(4, lambda n: outbox.mark_published(parcels if n % 2 else parcels[::-1])[0])
    assert sorted(id_ for ids in woken for id_ in ids) == [p.queue_id for p in parcels]
