"""Schedules in the admin: each action says what it does and to which, and asks why."""

import re
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from accounts.models import SecurityEvent, User
from processing.schedules import writing
from processing.schedules.models import Schedule
from project.admin import tokens
from queues.models import Request
from tests.client import Client
from tests.processing.crew import new_user
from tests.queues.threads import at_once
from tests.staff import confirm, make_groups, member_of

pytestmark = pytest.mark.django_db

SCHEDULES = "/admin/schedules/schedule/"


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    return client


def test_operators_see_and_control_them_when_they_have_said_why(operator: Client) -> None:
    user = new_user()
    made = writing.add(user.id, '{"n": 1}', {"name": "nightly", "kind": "demo.echo", "every_seconds": 60})
    assert b"every 60 s" in operator.get(SCHEDULES, {"q": user.username}).content
    assert operator.get(f"{SCHEDULES}{made.id}/change/").status_code == 200
    assert operator.get(f"{SCHEDULES}add/").status_code == 403
    states = []
    for action in ("pause", "resume", "run"):
        asked = {"action": action, "_selected_action": [str(made.id)]}
        page = operator.post(SCHEDULES, asked)
        assert page.context["named"] == [f"nightly of {user.username}: demo.echo, every 60 s"]
        again = operator.post(SCHEDULES, {**asked, "confirmed": "yes", "reason": " "})
        assert again.context["form"].errors == {"reason": ["This field is required."]}
        states.append((Schedule.objects.get().enabled, Request.objects.count()))
        confirm(operator, SCHEDULES, asked)
        states.append((Schedule.objects.get().enabled, Request.objects.count()))
    assert states == [(True, 0), (False, 0), (False, 0), (True, 0), (True, 0), (True, 1)]
    told = SecurityEvent.objects.filter(event="staff_action").order_by("id").values_list("detail", flat=True)
    assert list(told)[-3:] == [
        f"changed schedules.Schedule {made.id}: {done}: ticket 4711" for done in ("paused", "resumed", "submitted")
    ]


@pytest.mark.parametrize(("group", "operates"), [("viewer", False), ("operator", True), ("admin", True)])
def test_each_group_does_what_it_may(group: str, operates: bool) -> None:
    make_groups()
    client = member_of(group)
    add(1)
    schedule = Schedule.objects.get()
    assert list(client.get(SCHEDULES).context["cl"].result_list) == [schedule]
    assert client.get(f"{SCHEDULES}{schedule.id}/change/").status_code == 200
    for action in ("pause", "resume", "run"):
        asked = {"action": action, "_selected_action": [str(schedule.id)]}
        answer = confirm(client, SCHEDULES, asked)
        assert answer.status_code == (302 if operates else 403), action
    assert Request.objects.count() == operates


def add(count: int) -> None:
    fields = {"user": new_user(), "kind": "demo.echo", "payload": {}, "every_seconds": 60}
    Schedule.objects.bulk_create(Schedule(name=str(uuid4()), **fields) for _ in range(count))


def test_what_is_done_is_what_the_page_asked_about(operator: Client) -> None:
    add(25)
    every = {"action": "pause", "_selected_action": [str(Schedule.objects.all()[0].pk)], "select_across": "1"}
    page = operator.post(SCHEDULES, every)
    assert (len(page.context["named"]), page.context["left_out"]) == (20, 5)
    add(1)
    operator.post(SCHEDULES, form_of(page))
    assert Schedule.objects.filter(enabled=True).count() == 1


def test_more_than_one_request_can_do_are_refused_and_so_is_nothing(operator: Client) -> None:
    add(101)
    every = {"action": "pause", "_selected_action": [str(Schedule.objects.all()[0].pk)], "select_across": "1"}
    assert b"Nothing was done: select at most 100 at once" in operator.post(SCHEDULES, every, follow=True).content
    nothing = operator.post(SCHEDULES, every | {"action": "resume"}, follow=True)
    assert b"There is nothing that this could be done to." in nothing.content


def form_of(page: Any) -> dict[str, list[str]]:
    """What the confirmation sends, with a reason."""
    sent = re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', page.content.decode())
    return {"reason": ["ticket 4711"]} | {name: [value for one, value in sent if one == name] for name, _ in sent}


def asked_to_run(operator: Client) -> dict[str, list[str]]:
    add(1)
    return form_of(operator.post(SCHEDULES, {"action": "run", "_selected_action": [str(Schedule.objects.get().pk)]}))


def test_a_form_that_is_sent_again_submits_nothing_more(operator: Client) -> None:
    form = asked_to_run(operator)
    assert b"1 submitted." in operator.post(SCHEDULES, form, follow=True).content
    assert b"This was confirmed before, and is done only once." in operator.post(SCHEDULES, form, follow=True).content
    assert Request.objects.count() == 1
    confirm(operator, SCHEDULES, {"action": "run", "_selected_action": form["_selected_action"]})
    assert Request.objects.count() == 2, "a new confirmation is another one"


@pytest.fixture
def no_schedules(transactional_db: None) -> Iterator[None]:
    yield
    Schedule.objects.all().delete()


@pytest.mark.usefixtures("no_schedules")
@pytest.mark.django_db(transaction=True)
def test_a_double_click_submits_once(operator: Client) -> None:
    form, cookies = asked_to_run(operator), operator.cookies

    def click(_: int) -> int:
        client = Client()
        client.cookies = cookies
        return int(client.post(SCHEDULES, form).status_code)

    assert at_once(4, click) == [302] * 4
    assert Request.objects.count() == 1


@pytest.mark.parametrize("token", ["yes", "of another action", "of somebody else", "of the day before yesterday"])
def test_a_confirmation_that_was_not_given_here_does_nothing(
    operator: Client, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    form = asked_to_run(operator)
    if token == "yes":
        form["confirmed"] = ["yes"]
    elif token == "of another action":
        pause = {"action": "pause", "_selected_action": form["_selected_action"]}
        form["confirmed"] = form_of(operator.post(SCHEDULES, pause))["confirmed"]
    elif token == "of somebody else":
        operator.force_login(User.objects.create_superuser("another"))
    else:
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + tokens.TOKEN_SECONDS + 1)
    assert (
        b"This page was too old, or not yours. Nothing was done." in operator.post(SCHEDULES, form, follow=True).content
    )
    assert not Request.objects.exists()
