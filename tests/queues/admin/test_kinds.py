"""Operators pause, resume and limit kinds in the admin, each with the rights for it; the board says what waits long."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.utils import timezone

from accounts.models import User
from queues.admin import alarms, queue_detail
from queues.limits import deployment
from queues.models import KindLimit, Permit, UserQueue
from queues.operations import backlog
from queues.operations.figures import figures
from queues.states import QueueState, Status
from tests.client import Client
from tests.queues.rows import queue_of, request_in
from tests.staff import confirm, member_of

pytestmark = pytest.mark.django_db
KINDS = "/admin/queues/kindlimit/"


@pytest.fixture(autouse=True)
def _declared(groups: None) -> None:
    deployment.declare()


def act(client: Client, action: str, *kinds: str, reason: str = "ticket 4711") -> int:
    status: int = confirm(client, KINDS, {"action": action, "_selected_action": kinds}, reason).status_code
    return status


def held_back(kind: str, minutes: float) -> UserQueue:
    """A queue whose head has waited for its kind for so long."""
    user = User.objects.create_user(f"waits-for-{kind}")
    far = timezone.now() + timedelta(days=366 * 1000)
    queue = queue_of(user, last_seq=2, published_seq=2, state=QueueState.WAITING, wake_at=far, avg_service_seconds=1.0)
    for seq in (1, 2):
        request_in(queue, seq, Status.QUEUED, timezone.now() - timedelta(minutes=minutes), kind=kind)
    Permit.objects.create(queue_id=queue.pk, kind=kind, seq=1, since=timezone.now() - timedelta(minutes=minutes))
    return queue


def exposed() -> list[Any]:
    return [sample for metric in figures() for sample in metric.samples]


def test_every_kind_is_listed_with_its_limits_and_what_waits() -> None:
    deployment.set_limits("demo.echo", max_concurrency=3)
    held_back("demo.echo", 1)
    page = member_of("viewer").get(KINDS)
    found: dict[str, Any] = {row.kind: row for row in page.context["cl"].result_list}
    assert set(found) >= {"demo.echo", "demo.steps", "http.call"}
    echo = found["demo.echo"]
    assert (echo.most, echo.at_work.waiting, echo.at_work.running) == (3, 1, 0)
    assert found["demo.steps"].at_work.running is None


@pytest.mark.parametrize(("group", "pauses", "limits"), [("viewer", 0, 0), ("operator", 1, 0), ("admin", 1, 1)])
def test_each_group_does_what_it_may(group: str, pauses: bool, limits: bool) -> None:
    client = member_of(group)
    assert (act(client, "pause", "demo.echo") == 302) == pauses
    assert KindLimit.objects.get(kind="demo.echo").paused == pauses
    form = {"max_concurrency": "4", "rate_here": "5/10s", "reason": "because"}
    assert (client.post(f"{KINDS}demo.echo/change/", form).status_code == 302) == limits
    row = KindLimit.objects.get(kind="demo.echo")
    assert (row.most, row.rate_most, row.rate_seconds) == ((4, 5, 10) if limits else (None, None, None))
    if limits:
        told = LogEntry.objects.latest("id").get_change_message()
        assert told == "limited: because (max_concurrency 4, rate 5/10s)"
        assert act(client, "resume", "demo.echo") == 302
        assert not KindLimit.objects.get(kind="demo.echo").paused


def test_nothing_is_paused_before_it_is_confirmed_with_a_reason() -> None:
    operator = member_of("operator")
    chosen = {"action": "pause", "_selected_action": ["demo.echo", "demo.steps"]}
    page = operator.post(KINDS, chosen)
    assert "for any user" in page.content.decode()
    assert page.context["named"] == ["demo.echo", "demo.steps"]
    page = operator.post(KINDS, {**chosen, "confirmed": "yes", "reason": " "})
    assert page.context["form"].errors == {"reason": ["This field is required."]}
    assert not KindLimit.objects.filter(paused=True).exists()
    assert not LogEntry.objects.exists()
    assert act(operator, "pause", "demo.echo", "demo.steps") == 302
    assert set(KindLimit.objects.filter(paused=True).values_list("kind", "paused_by")) == {
        ("demo.echo", "the-operator: ticket 4711"), ("demo.steps", "the-operator: ticket 4711"),
    }  # fmt: skip
    assert {entry.get_change_message() for entry in LogEntry.objects.all()} == {"paused: ticket 4711"}


@pytest.mark.parametrize(("field", "value"), [("rate_here", "x/y"), ("max_concurrency", "-1"), ("reason", "")])
def test_what_does_not_fit_is_said_beside_its_field(field: str, value: str) -> None:
    form = {"max_concurrency": "4", "rate_here": "5/10s", "reason": "because", field: value}
    page = member_of("admin").post(f"{KINDS}demo.echo/change/", form)
    assert field in page.context["adminform"].form.errors
    assert KindLimit.objects.get(kind="demo.echo").most is None


def test_what_a_kind_keeps_waiting_for_long_is_on_the_board_and_in_the_metrics() -> None:
    deployment.pause("demo.echo", "bob")
    deployment.set_limits("demo.steps", max_concurrency=1)
    queue = held_back("demo.echo", 20)
    held_back("demo.steps", 5)
    backlog.recent.__init__()  # type: ignore[misc]
    standing = backlog.measure()
    (light,) = alarms.held_back(standing)
    assert (light.name, light.state, light.means) == (
        "Held back: demo.echo", "1 queue for up to 20 min", "It is paused by bob.",
    )  # fmt: skip
    assert standing.ages["moving"] == 0
    assert 1195 < standing.ages["held_back"] < 1300
    samples = {(one.name.removeprefix("ordered_work_kind_"), *one.labels.values()): one.value for one in exposed()}
    assert samples["held_back", "demo.echo"] == samples["held_back", "demo.steps"] == 1
    assert 1195 < samples["held_back_seconds", "demo.echo", "paused"] < 1300
    assert 295 < samples["held_back_seconds", "demo.steps", "limit"] < 400
    assert (samples["running", "demo.steps"], samples[("wait_alert_seconds",)]) == (0, 900)
    page = queue_detail.page_of(str(queue.pk), "")
    assert page is not None
    assert (page.eta_seconds, page.reasons) == (
        None, ["Its head waits for its kind, which is paused, or has as many as may run or begin: see Kinds."],
    )  # fmt: skip
