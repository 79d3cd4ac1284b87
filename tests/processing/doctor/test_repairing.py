"""`doctor --repair` puts right what a hand or a lost broker left behind."""

from typing import Any

import pytest
from django.utils import timezone

from accounts.models import User
from processing.broker import tokens
from processing.broker.pointers import queue_name
from processing.handlers import HandlerRequest
from queues.management.command_base import Exit, OperatorCommand
from queues.models import OperatorAction, Request, UserQueue
from tests.processing.conftest import Script
from tests.processing.crew import Hand, Wire, all_done, new_user, queue_of, requests_of, statuses_of, submit
from tests.processing.doctor.conftest import faults
from tests.queues.api import Caller
from tests.queues.commands import run


@pytest.mark.usefixtures("fine")
def test_messages_that_rabbitmq_lost_are_published_again(hand: Hand, wire: Wire) -> None:
    user = new_user()
    submit(user, "fine", "fine")
    hand.dispatch()
    wire.delete(queue_name(queue_of(user).id))
    ran = run("doctor", "--json")
    assert faults(ran) == [("broker", f"manage.py queue republish {queue_of(user).id}")]
    assert run("doctor", "--repair", "--dry-run").status == Exit.FAULTS
    assert run("doctor", "--repair").status == Exit.NOT_CONFIRMED
    assert queue_of(user).published_seq == 2, "nothing was changed yet"
    assert run("doctor", "--repair", "--yes", "--reason", "broker lost").status == Exit.DONE
    assert OperatorAction.objects.get().outcome == "1 of 1 repaired"
    hand.settle()
    assert statuses_of(user) == ["succeeded", "succeeded"]


@pytest.mark.usefixtures("fine")
def test_rows_that_a_hand_deleted_are_found_and_passed_over(hand: Hand) -> None:
    user = new_user()
    submit(user, *["fine"] * 5)
    hand.dispatch()
    Request.objects.filter(queue__user=user, seq__in=(1, 3)).delete()
    ran = run("doctor", "--json", "--batch-size", "1")
    assert [check for check, _ in faults(ran)] == ["counters"]
    assert "5 requests should be there, 3 rows are" in ran.out
    assert run("doctor", "--repair", "--yes").status == Exit.DONE
    hand.settle()
    assert statuses_of(user) == ["cancelled", "succeeded", "cancelled", "succeeded", "succeeded"]


@pytest.mark.usefixtures("fine")
def test_a_counter_behind_its_rows_is_found_before_anything_collides(hand: Hand) -> None:
    user = new_user()
    submit(user, "fine", "fine", "fine")
    UserQueue.objects.filter(user=user).update(last_seq=2)
    ran = run("doctor", "--json")
    assert "last_seq is 2, but a request has the number 3" in ran.out
    assert run("doctor", "--repair", "--yes").status == Exit.DONE
    submit(user, "fine")
    hand.settle()
    assert statuses_of(user) == ["succeeded"] * 4


def test_what_a_queue_has_passed_without_an_outcome_is_found_and_ended_for_its_owner_to_decide(
    hand: Hand, script: Script
) -> None:
    ran: list[int] = []

    @script
    def fine(request: HandlerRequest) -> int:
        ran.append(request.sequence)
        return 1

    owner = Caller(new_user())
    submit(owner.user, *["fine"] * 3)
    hand.settle()
    for seq in (1, 2):
        Request.objects.filter(queue__user=owner.user, seq=seq).update(status="queued", finished_at=None, result=None)
    first, second, _ = requests_of(owner.user)
    assert faults(run("doctor", "--json")) == [], "its queue is at rest"
    found = run("doctor", "--all", "--json")
    queue_id = queue_of(owner.user).id
    said = f"queue {queue_id}: it has passed request {first.id} and 1 more without an outcome (done_seq is 3)"
    assert [row["detail"] for row in found.json if row["grade"] == "fault"] == [said]
    assert faults(found)[0][1].startswith("manage.py doctor --repair")
    assert run("doctor", "--all", "--repair", "--yes").status == Exit.DONE
    assert statuses_of(owner.user) == ["failed", "failed", "succeeded"]
    assert owner.get(f"requests/{second.id}").json["error"]["type"] == "Passed"
    hand.settle()
    assert ran == [1, 2, 3], "nothing runs again unasked"
    assert owner.post(f"requests/{second.id}/retry").json["sequence"] == 4
    hand.settle()
    assert ran == [1, 2, 3, 4]


def test_what_a_busy_queue_has_passed_is_ended_though_a_worker_has_it() -> None:
    user = new_user()
    submit(user, *["anything"] * 4)
    UserQueue.objects.filter(user=user).update(done_seq=2, published_seq=4, state="draining", claimed=2)
    Request.objects.filter(queue__user=user, seq=1).update(status="succeeded", finished_at=timezone.now())
    ran = run("doctor", "--repair", "--yes", "--json")
    assert "not repaired" not in ran.err
    assert "counters" not in [check for check, _ in faults(ran)]
    assert statuses_of(user) == ["succeeded", "failed", "queued", "queued"]


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize("damage", [{"last_seq": 2**62}, {"last_seq": 2**62, "published_seq": 2**61}])
def test_a_last_seq_from_nowhere_is_corrected_at_once(hand: Hand, damage: dict[str, int]) -> None:
    user = new_user()
    submit(user, "fine", "fine")
    hand.dispatch()
    UserQueue.objects.filter(user=user).update(**damage)
    assert f"{2**62} requests should be there, 2 rows are" in run("doctor", "--json").out
    assert "not repaired" not in run("doctor", "--repair", "--yes").err
    assert queue_of(user).last_seq == 2
    submit(user, "fine")
    hand.settle()
    assert statuses_of(user) == ["succeeded"] * 3


def test_a_last_seq_from_nowhere_leaves_a_queue_that_has_nothing_at_rest() -> None:
    user = new_user()
    submit(user, "anything")
    Request.objects.filter(queue__user=user).delete()
    UserQueue.objects.filter(user=user).update(last_seq=2**62, published_seq=2**61, state="ready")
    assert run("doctor", "--repair", "--yes").status == Exit.DONE
    queue = queue_of(user)
    assert (queue.last_seq, queue.published_seq, queue.state) == (0, 0, "idle")


def test_a_request_with_a_number_from_nowhere_is_not_mended_by_making_millions() -> None:
    user = new_user()
    submit(user, "anything", "anything")
    Request.objects.filter(queue__user=user, seq=2).update(seq=2**61)
    ran = run("doctor", "--repair", "--yes", "--json")
    assert ran.status == Exit.FAULTS
    assert "not repaired" in ran.err
    assert "one of these numbers is wrong" in ran.err
    assert Request.objects.filter(queue__user=user).count() == 2
    assert queue_of(user).last_seq == 2


def test_what_a_worker_has_is_left_to_it() -> None:
    user = new_user()
    submit(user, "anything", "anything")
    UserQueue.objects.filter(user=user).update(state="draining", last_seq=1)
    ran = run("doctor", "--repair", "--yes", "--json")
    assert ran.status == Exit.FAULTS
    assert "not repaired" in ran.err
    assert "A worker has the queue" in ran.err


def test_a_queue_that_is_erased_meanwhile_is_not_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    user = new_user()
    submit(user, "anything", "anything")
    Request.objects.filter(queue__user=user, seq=1).delete()

    def erased(*_: Any) -> bool:
        User.objects.filter(id=user.id).delete()
        return True

    monkeypatch.setattr(OperatorCommand, "confirm", erased)
    ran = run("doctor", "--repair")
    assert (ran.status, "not repaired" in ran.err) == (Exit.DONE, True)


def test_a_missing_token_queue_is_made(wire: Wire) -> None:
    wire.delete(tokens.TOKEN_QUEUE)
    assert [check for check, _ in faults(run("doctor", "--json"))] == ["tokens"]
    assert run("doctor", "--repair", "--yes").status == Exit.DONE
    assert wire.tokens() == 0


@pytest.mark.usefixtures("fine")
def test_a_wiped_broker_is_rebuilt(hand: Hand, wire: Wire) -> None:
    users = [new_user() for _ in range(3)]
    for user in users:
        submit(user, "fine", "fine")
    hand.dispatch()
    for user in users:
        wire.delete(queue_name(queue_of(user).id))
    wire.purge(tokens.TOKEN_QUEUE)
    UserQueue.objects.filter(user=users[2]).update(state="draining")
    assert run("rebuild_broker", "--dry-run", "--json").json == {"would_republish": 3}
    ran = run("rebuild_broker", "--yes", "--batch-size", "2", "--json")
    assert (ran.status, ran.json) == (Exit.DONE, {"republished": 2, "left_to_workers": 1})
    UserQueue.objects.filter(user=users[2]).update(state="ready")
    hand.wire.put_token(queue_of(users[2]).id)
    hand.settle()
    assert all_done()
    assert [statuses_of(user) for user in users] == [["succeeded"] * 2] * 3
