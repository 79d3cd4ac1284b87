"""Whose queue is locked for long takes no more than half of the API's threads, whatever they ask for."""

import time
from typing import Any

import pytest
from django.conf import settings

from project.postgresql import limits
from queues.sql import locks
from tests.queues.api import Caller
from tests.queues.threads import Places, at_once, holding, in_thread

BODY = {"kind": "demo.echo", "payload": 1}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("route", "body"), [("requests", BODY), ("queue/pause", None), ("queue/resume", None)])
def test_calls_for_a_locked_queue_leave_half_of_the_threads_to_others(
    monkeypatch: pytest.MonkeyPatch, route: str, body: Any
) -> None:
    alice = Caller()
    alice.submit()
    places = Places(settings.ENV.api_threads // 2)
    monkeypatch.setattr(locks, "_patient", places)

    def asked(_: int) -> tuple[float, int]:
        began = time.monotonic()
        answer = Caller(alice.user, alice.token).post(route, body)
        return time.monotonic() - began, answer.status

    limits.play("api")  # the threads' connections have its limits
    with holding("SELECT FROM queues_userqueue WHERE user_id = %s FOR UPDATE", alice.user.id):
        answers = in_thread(lambda: at_once(10, asked))()
    assert {status for _, status in answers} == {503}
    assert sum(seconds > 1.5 for seconds, _ in answers) == places.most == settings.ENV.api_threads // 2
    assert alice.post(route, body).status in (200, 202)
