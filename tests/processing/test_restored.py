"""PostgreSQL was restored to an older state than RabbitMQ's: messages tell of requests that it never accepted."""

import pytest

from processing.broker.pointers import queue_name
from processing.handlers import HandlerRequest
from queues.models import Request, UserQueue
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, queue_of, requests_of, statuses_of, submit
from tests.queues.commands import run

KEPT, LOST = 4, 6


@pytest.mark.parametrize("rebuilt", [True, False])
@pytest.mark.parametrize("consumed", [0, 1, 2, KEPT, KEPT + LOST])
@pytest.mark.parametrize("singly", [True, False])
def test_numbers_that_are_given_again_run_their_new_requests_once_and_in_order(
    hand: Hand, script: Script, singly: bool, consumed: int, rebuilt: bool
) -> None:
    """`rebuilt`: with `manage.py rebuild_broker`, as the documentation has it, and left to the workers. `singly`: they
    came long after one another, so that RabbitMQ had a message of each.
    """
    ran: list[tuple[str, int]] = []

    @script
    def old(request: HandlerRequest) -> None:
        ran.append(("old", request.sequence))

    @script
    def new(request: HandlerRequest) -> None:
        ran.append(("new", request.sequence))

    user = new_user()
    submit(user, *["old"] * (KEPT + LOST))
    hand.dispatch_singly(user) if singly else hand.dispatch()
    for _ in range(consumed):  # ran before the disaster, and PostgreSQL does not know it any more
        hand.wire.open().basic_get(queue_name(queue_of(user).id), auto_ack=True)
    Request.objects.filter(queue__user=user, seq__gt=KEPT).delete()
    UserQueue.objects.filter(user=user).update(last_seq=KEPT, published_seq=KEPT)

    if rebuilt:
        assert run("rebuild_broker", "--yes", "--json").json == {"republished": 1, "left_to_workers": 0}
    submit(user, *["new"] * 3)
    hand.settle()
    submit(user, *["new"] * 5)  # more than were lost
    hand.settle()

    assert ran == [("old", seq) for seq in range(1, KEPT + 1)] + [("new", seq) for seq in range(KEPT + 1, KEPT + 9)]
    assert statuses_of(user) == ["succeeded"] * (KEPT + 8)
    assert len(requests_of(user)) == queue_of(user).last_seq
