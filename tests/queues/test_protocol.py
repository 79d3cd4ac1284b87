"""The code keeps what the model promises. The machines at the end are broken on purpose: they must be found out."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.db.models.functions import Now
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    run_state_machine_as_test,
)

from queues.lifecycle import lease as lease_module
from queues.models import Request, UserQueue
from queues.sql import protocol
from queues.sql.statement import Statement
from tests.processing.crew import new_user, submit
from tests.queues.protocol_machine import Protocol, Rabbit

pytestmark = pytest.mark.usefixtures("declared_kinds")


class OverRabbitMQ(Protocol):
    broker_class = Rabbit


class WithoutSweeper(Protocol):
    sweeper = False


class WithoutRecheck(Protocol):
    rechecks = False


def walk(machine: type[Protocol], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            database=None,
        ),
    )


@pytest.mark.no_cover  # what it runs is covered elsewhere, and being watched takes half as long again
def test_the_code_keeps_what_the_model_promises() -> None:
    walk(Protocol, examples=30)


def test_the_code_keeps_it_over_rabbitmq() -> None:
    walk(OverRabbitMQ, examples=6)


def publish_and_wake(world: Protocol) -> None:
    """One dispatcher reads, publishes, marks and sends the token."""
    for _ in range(4):
        world.dispatcher_steps(0)
    assert world.tokens == 1


def test_without_the_sweeper_a_lost_token_is_a_lost_wake_up() -> None:
    for machine in (Protocol, WithoutSweeper):
        world = machine()
        publish_and_wake(world)
        world.broker_loses_everything()
        if machine.sweeper:
            world.teardown()
        else:
            with pytest.raises(AssertionError, match="L: stuck"):
                world.teardown()


def test_going_idle_without_a_second_look_is_refused_by_the_database() -> None:
    for machine in (Protocol, WithoutRecheck):
        world = machine()
        publish_and_wake(world)
        for _ in range(2):
            world.worker_steps(0)  # takes the token, leases
        world.broker_loses_everything()
        world.worker_steps(0)  # finds nothing
        if machine.rechecks:
            world.worker_steps(0)
            world.teardown()
        else:
            with pytest.raises(IntegrityError, match="idle_owes_nothing"):
                world.worker_steps(0)


@pytest.mark.parametrize("fenced", [True, False])
def test_without_the_fence_one_records_who_has_lost_the_lease(monkeypatch: pytest.MonkeyPatch, fenced: bool) -> None:
    if not fenced:
        guard = "fence = told.fence AND "
        assert protocol.RECORD.text.count(guard) == 2
        monkeypatch.setattr(lease_module, "RECORD", Statement(protocol.RECORD.text.replace(guard, "")))
    world = Protocol()
    publish_and_wake(world)
    for _ in range(3):
        world.worker_steps(0)  # takes the token, leases, gets its message
    world.lease_runs_out_under_a_live_worker(0)
    world.sweep()
    for _ in range(2):
        world.worker_steps(1)
    if fenced:
        world.worker_steps(0)
        assert world.done == 0, "it recorded nothing"
        world.teardown()
    else:
        with pytest.raises(AssertionError, match="without the newest fence"):
            world.worker_steps(0)


def test_the_database_refuses_what_the_protocol_never_does() -> None:
    user = new_user()
    submit(user, None, None, kind="test.patient")
    wrong: list[Callable[[], Any]] = [
        lambda: UserQueue.objects.filter(user=user).update(published_seq=3),
        lambda: UserQueue.objects.filter(user=user).update(done_seq=1),
        lambda: UserQueue.objects.filter(user=user).update(published_seq=1),
        lambda: UserQueue.objects.filter(user=user).update(state="waiting"),
        lambda: UserQueue.objects.filter(user=user).update(wake_at=Now()),
        lambda: Request.objects.filter(queue__user=user, seq=2).update(seq=1),
        lambda: Request.objects.filter(queue__user=user, seq=2).update(status="succeeded"),
        lambda: Request.objects.filter(queue__user=user, seq=2).update(finished_at=Now()),
        lambda: Request.objects.filter(queue__user=user, seq=2).update(status="running"),
        lambda: Request.objects.filter(queue__user=user, seq=2).update(status="scheduled"),
    ]
    for change in wrong:
        with pytest.raises(IntegrityError):
            change()
    connection.close()
