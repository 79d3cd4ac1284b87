"""Operators act only after they saw how many and whose, and said why."""

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry

from accounts.audit import Event, SecurityEvent
from accounts.models import User
from queues.admin import bulk_actions, bulk_steps
from queues.admin.bulk_actions import ControlAdmin
from queues.lifecycle import control
from queues.models import BulkAction, Request, UserQueue
from queues.operations import selectors
from queues.states import Status
from tests.client import Client
from tests.queues.admin.conftest import QUEUES, REQUESTS, act, ask, chosen
from tests.queues.rows import a_long_story, queue_of, request_in
from tests.staff import member_of
from tests.waiting import until

pytestmark = pytest.mark.django_db


def test_nothing_is_done_before_it_is_confirmed_with_a_reason(operator: Client, bob: User) -> None:
    queue = a_long_story(bob)
    page = ask(operator, QUEUES, "pause", queue)
    assert (page.context["total"], page.context["whose"]) == (1, [("bob-the-builder", 1, 5)])
    again = operator.post(QUEUES, chosen("pause", queue, confirmed=page.context["confirmed"], reason="  "))
    assert again.context["form"].errors == {"reason": ["This field is required."]}
    assert operator.post(QUEUES, chosen("pause", queue, reason="x", confirmed="made up")).status_code == 302
    assert not UserQueue.objects.get().paused
    assert not LogEntry.objects.exists()


def test_what_was_confirmed_for_one_action_does_another_nothing(operator: Client, bob: User) -> None:
    queue = a_long_story(bob)
    token = ask(operator, QUEUES, "pause", queue).context["confirmed"]
    operator.post(QUEUES, chosen("purge", queue, reason="x", confirmed=token))
    assert queue.requests.filter(status=Status.QUEUED).count() == 4


def test_a_selection_of_all_is_done_in_groups(operator: Client, bob: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_steps, "GROUP", 3)
    monkeypatch.setattr(bulk_actions, "USERS_NAMED", 2)
    for number in range(8):
        queue_of(User.objects.create_user(f"user-{number}"))
    calls: list[int] = []
    monkeypatch.setattr(control, "pause", lambda queue, _by: calls.append(queue))
    everything = {"select_across": "1", "_selected_action": ["1"]}
    page = ask(operator, QUEUES, "pause", **everything)
    assert (page.context["total"], page.context["users"], page.context["left_out"]) == (8, 8, 6)
    assert "8 paused" in act(operator, QUEUES, "pause", **everything)
    assert calls == sorted(UserQueue.objects.values_list("id", flat=True))
    (told,) = LogEntry.objects.filter(object_id=None)
    assert told.object_repr == "8 user queues"
    staff = SecurityEvent.objects.filter(event=Event.STAFF_ACTION)
    assert staff.filter(detail__contains="8 of 8, 0 skipped, 0 failed").count() == 1


@pytest.mark.parametrize("narrowed", ["?status=succeeded&kind=demo.echo", "?q=user"])
def test_an_action_is_for_all_that_match_not_for_the_newest_that_are_listed(
    operator: Client, monkeypatch: pytest.MonkeyPatch, narrowed: str
) -> None:
    monkeypatch.setattr(selectors, "LOOKED_AT", 2)
    for name in ("user-1", "user-2"):
        queue = queue_of(User.objects.create_user(name), last_seq=3, published_seq=3, done_seq=3)
        for seq in (1, 2, 3):
            request_in(queue, seq, Status.SUCCEEDED)
    assert len(operator.get(f"{REQUESTS}{narrowed}").context["cl"].result_list) == 2
    page = ask(operator, f"{REQUESTS}{narrowed}", "retry", select_across="1", _selected_action=["1"])
    assert page.context["total"] == 6


def test_too_many_are_refused_before_anything_is_done(
    operator: Client, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_actions, "MOST", 3)
    a_long_story(bob)
    page = ask(operator, REQUESTS, "cancel", select_across="1", _selected_action=["1"])
    assert "too much for one action" in page.content.decode()
    assert "<strong>More than 3 requests</strong></p>" in page.content.decode()
    assert bob.username not in page.content.decode(), "of whom how many are was not counted"
    assert 'name="confirmed"' not in page.content.decode()


def test_what_came_after_the_confirmation_is_not_meant(operator: Client, bob: User) -> None:
    queue = queue_of(bob, last_seq=2)
    request_in(queue, 1, Status.QUEUED)
    everything = {"select_across": "1", "_selected_action": ["1"]}
    token = ask(operator, REQUESTS, "cancel", **everything).context["confirmed"]
    before = Request.objects.get().id.int >> 80
    until(lambda: Request(queue=queue).id.int >> 80 > before + 5, 60, "the clock moved on")
    late = request_in(queue, 2, Status.QUEUED)
    operator.post(REQUESTS, chosen("cancel", confirmed=token, reason="x", **everything))
    assert list(Request.objects.filter(finished_at=None)) == [late]


def test_retries_keep_to_their_pace(operator: Client, bob: User) -> None:
    queue = queue_of(bob, last_seq=5, published_seq=5, done_seq=5)
    for seq in range(1, 6):
        request_in(queue, seq, Status.FAILED)
    page = act(operator, QUEUES, "retry_failed", queue, most="2", per="60")
    assert Request.objects.exclude(retry_of=None).count() == 1
    assert "1 of 5" in page
    (action,) = BulkAction.objects.all()
    assert 25 < (action.next_at - action.created_at).total_seconds() <= 31


def test_limits_are_for_admins(operator: Client, groups: None, bob: User) -> None:
    queue = a_long_story(bob)
    admin = member_of("admin")
    act(admin, QUEUES, "limit", queue, waiting_limit="7")
    assert UserQueue.objects.get().waiting_limit == 7
    page = ask(admin, QUEUES, "limit", queue)
    wrong = admin.post(
        QUEUES, chosen("limit", queue, confirmed=page.context["confirmed"], reason="x", waiting_limit="-1")
    )
    assert "waiting_limit" in wrong.context["form"].errors
    assert operator.post(QUEUES, chosen("limit", queue)).status_code == 403
    change = {"waiting_limit": "5", "reason": "x"}
    assert operator.post(f"{QUEUES}{queue.id}/change/", change).status_code == 403
    assert admin.post(f"{QUEUES}{queue.id}/change/", change).status_code == 302
    assert UserQueue.objects.get().waiting_limit == 5


def test_the_confirmation_names_the_request_and_its_error(operator: Client, bob: User) -> None:
    error = {"type": "RuntimeError", "message": "no template", "at": "2026-11-20T20:00:00+00:00"}
    queue = queue_of(bob, last_seq=136, done_seq=135, published_seq=136, state="blocked")
    head = request_in(queue, 136, Status.RETRYING, kind="report.build", attempt=2, error=error)
    page = " ".join(ask(operator, REQUESTS, "retry", head).content.decode().split())
    assert "report.build #136</a> of bob-the-builder" in page
    assert "2 attempts, RuntimeError: no template" in page


def test_a_hostile_name_or_payload_is_text_when_asked_and_done(groups: None) -> None:
    hostile = '"><script>alert(1)</script>'
    operator = member_of("operator")
    queue = queue_of(User.objects.create_user(hostile), last_seq=2)
    for seq in (1, 2):
        request_in(queue, seq, Status.QUEUED, kind=hostile, payload={hostile: hostile})
    control.pause(queue.id, hostile)
    pages = [
        ask(operator, REQUESTS, "cancel", *queue.requests.all()).content.decode(),
        ask(operator, f"{REQUESTS}?q=%22%3E%3Cscript%3Ealert(1)", "cancel", queue.requests.first()).content.decode(),
        operator.get(f"{QUEUES}{queue.id}/change/").content.decode(),
        act(operator, REQUESTS, "cancel", *queue.requests.all(), reason=hostile),
        operator.get(f"{REQUESTS}{queue.requests.first().pk}/history/").content.decode(),
    ]
    for page in pages:
        assert "&lt;script&gt;" in page
        assert "<script>alert" not in page


def test_of_nothing_nobody_has_anything() -> None:
    page = admin.site.get_model_admin(Request)
    assert isinstance(page, ControlAdmin)
    assert page._whose(Request.objects.none()) == {}
