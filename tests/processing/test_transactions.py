"""The transactions of a turn: a connection that a handler spoils spoils nothing else, and atomic ones write once."""

from collections.abc import Callable

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from accounts.models import Session, User
from processing.handlers import HandlerRequest
from processing.worker.turn import Turn
from tests.processing.conftest import Script
from tests.processing.crew import Hand, attempts_of, elsewhere, new_user, queue_of, requests_of, statuses_of, submit

# The database connection that a handler shares with the turn


def end_own_connection() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def swallow_the_end() -> None:
    with pytest.raises(DatabaseError):
        end_own_connection()


def leave_autocommit_off() -> None:
    transaction.set_autocommit(False)
    User.objects.create(username="never committed")


def leave_atomic_open() -> None:
    transaction.atomic().__enter__()
    User.objects.create(username="never committed")


def leave_begin_open() -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
    User.objects.create(username="never committed")


def leave_transaction_broken() -> None:
    transaction.set_autocommit(False)
    with pytest.raises(DatabaseError), connection.cursor() as cursor:
        cursor.execute("SELECT 1/0")


def leave_close() -> None:
    connection.close()


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize(
    "spoil",
    [
        end_own_connection,
        swallow_the_end,
        leave_autocommit_off,
        leave_atomic_open,
        leave_begin_open,
        leave_transaction_broken,
        leave_close,
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_a_connection_that_a_handler_spoils_spoils_no_other_turn(
    hand: Hand, script: Script, spoil: Callable[[], None], fails: bool
) -> None:
    @script
    def spoiling(request: HandlerRequest) -> int:
        if request.attempt == 1:
            spoil()
            if fails:
                raise RuntimeError("as asked for")
        return 1

    user, other = new_user(), new_user()
    submit(user, "fine", "spoiling", "fine")
    submit(other, "fine")

    def work() -> bool:
        hand.settle()
        return True

    assert elsewhere(work)
    assert statuses_of(user) == ["succeeded"] * 3
    assert statuses_of(other) == ["succeeded"]
    outcomes = [outcome for _, outcome in attempts_of(requests_of(user)[1])]
    assert "lost" not in outcomes, "the worker lives"
    assert not User.objects.filter(username="never committed").exists()


# Handlers that are part of the recording transaction


def test_an_atomic_handler_writes_exactly_once_however_often_it_is_tried(hand: Hand, script: Script) -> None:
    @script
    def write(request: HandlerRequest) -> int:
        User.objects.create(username=f"written {request.sequence} {request.attempt}")
        if request.attempt < 3:
            raise RuntimeError("after the write")
        return 1

    user = new_user()
    submit(user, "write", "write", kind="test.atomic")
    hand.settle()
    assert statuses_of(user) == ["succeeded"] * 2
    written = User.objects.filter(username__startswith="written").values_list("username", flat=True)
    assert sorted(written) == ["written 1 3", "written 2 3"]


def violate_a_deferred_constraint() -> None:
    Session.objects.create(user_id=User().id, refresh_jti="x")


def swallow_a_failed_statement() -> None:
    with pytest.raises(DatabaseError), connection.cursor() as cursor:
        cursor.execute("SELECT 1/0")


def ask_for_a_rollback() -> None:
    transaction.set_rollback(True)


def lose_the_connection() -> None:
    swallow_the_end()


@pytest.mark.parametrize(
    "spoil",
    [violate_a_deferred_constraint, swallow_a_failed_statement, ask_for_a_rollback, lose_the_connection],
)
def test_an_atomic_handler_whose_writes_are_refused_has_not_succeeded(
    hand: Hand, script: Script, spoil: Callable[[], None]
) -> None:
    @script
    def write(request: HandlerRequest) -> int:
        User.objects.create(username=f"written {request.sequence} {request.attempt}")
        if request.sequence == 2 and request.attempt == 1:
            spoil()
        return request.attempt

    user = new_user()
    submit(user, "write", "write", "write", kind="test.atomic")
    hand.settle(8)
    assert statuses_of(user) == ["succeeded"] * 3
    assert [r.result for r in requests_of(user)] == [1, 2, 1]
    assert attempts_of(requests_of(user)[1]) == [(1, "failed"), (2, "succeeded")]
    written = User.objects.filter(username__startswith="written").values_list("username", flat=True)
    assert sorted(written) == ["written 1 1", "written 2 2", "written 3 1"]


def test_an_atomic_handler_that_is_fenced_out_has_written_nothing(hand: Hand, script: Script) -> None:
    @script
    def write(request: HandlerRequest) -> int:
        User.objects.create(username=f"written in attempt {request.attempt}")
        if request.attempt == 1:
            assert elsewhere(lambda: take_away(user))
        return 1

    user = new_user()
    submit(user, "write", kind="test.atomic")
    hand.settle()
    (request,) = requests_of(user)
    assert attempts_of(request) == [(1, "lost"), (2, "succeeded")]
    assert [u.username for u in User.objects.filter(username__startswith="written")] == ["written in attempt 2"]


def take_away(user: User) -> bool:
    """As the sweeper does with the queue of a worker that was silent for too long."""
    from queues.lifecycle.recovery import recover

    queue = queue_of(user)
    recover(queue.id, queue.fence)
    queue_of(user)
    type(queue).objects.filter(id=queue.id).update(state="waiting", wake_at=timezone.now())
    return True


@pytest.mark.usefixtures("fine")
def test_what_runs_beside_an_atomic_handler_in_its_claim_cannot_be_taken_away(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recording an atomic request shrinks what is claimed to one: what was claimed with it has to wait."""
    taken: list[bool] = []
    monkeypatch.setattr(Turn, "_next_size", lambda *_: 8)

    @script
    def cancelled_meanwhile(request: HandlerRequest) -> int:
        queue = queue_of(user)
        taken.append(request.sequence <= queue.done_seq + queue.claimed)
        return 1

    user = new_user()
    submit(user, "fine", "fine", "fine")
    submit(user, "fine", kind="test.atomic")
    submit(user, *["cancelled_meanwhile"] * 8)
    hand.settle()
    assert taken == [True] * 8
