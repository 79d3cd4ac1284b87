"""Whose queue is locked for long takes no more than half of the API's threads, whatever they ask for."""

import time
from typing import Any

import pytest
from django.conf import settings

from project.postgresql import limits
from queues.sql import locks
from queues.sql.accept import OPEN_QUEUE
from tests.queues.api import Caller, ahead
from tests.queues.threads import Places, at_once, holding, in_thread

BODY = {"kind": "demo.echo", "payload": 1}


HELD = {
    "queue": "SELECT FROM queues_userqueue WHERE user_id = %s FOR UPDATE",
    "scheduled request": """
        SELECT FROM queues_request r JOIN queues_userqueue q ON q.id = r.queue_id WHERE q.user_id = %s FOR UPDATE OF r
    """,
    "first acceptance": OPEN_QUEUE.text.replace("%(user)s", "%s"),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("held", "route", "body"),
    [
        ("queue", "requests", BODY),
        ("queue", "queue/pause", None),
        ("queue", "queue/resume", None),
        ("scheduled request", "requests/{id}/cancel", None),
        ("scheduled request", "queue/purge", None),
        ("first acceptance", "queue/pause", None),
        ("first acceptance", "requests", BODY),
    ],
)
def test_calls_for_a_locked_queue_leave_half_of_the_threads_to_others(
    monkeypatch: pytest.MonkeyPatch, held: str, route: str, body: Any
) -> None:
    alice = Caller()
    if held == "scheduled request":
        route = route.format(id=alice.submit(1, not_before=ahead(days=1))["id"])
    elif held == "queue":
        alice.submit()
    places = Places(settings.ENV.api_threads // 2)
    monkeypatch.setattr(locks, "_patient", places)

    def asked(_: int) -> tuple[float, int]:
        began = time.monotonic()
        answer = Caller(alice.user, alice.token).post(route, body)
        return time.monotonic() - began, answer.status

    limits.play("api")  # the threads' connections have its limits
    with holding(HELD[held], alice.user.id):
        answers = in_thread(lambda: at_once(10, asked))()
    assert {status for _, status in answers} == {503}
    assert sum(seconds > 1.5 for seconds, _ in answers) == places.most == settings.ENV.api_threads // 2
    assert alice.post(route, body).status in (200, 202)
