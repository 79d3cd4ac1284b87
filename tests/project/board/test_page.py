"""The admin's first page says how everything is, renews itself, and stalls for nobody."""

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import User
from project.telemetry import health
from queues import metrics, throughput
from queues.admin import alarms, dashboard
from queues.kinds import Rate
from queues.limits import deployment
from queues.models import Request
from queues.operations import backlog
from queues.states import QueueState, Status
from tests.client import Client
from tests.project.board.conftest import BOARD, PAGE
from tests.queues.rows import queue_of, request_in
from tests.waiting import until

pytestmark = pytest.mark.django_db


def test_it_shows_queues_requests_and_processes(operator: Client) -> None:
    for state in (QueueState.READY, QueueState.BLOCKED, QueueState.BLOCKED):
        queue = queue_of(User.objects.create_user(f"user-{timezone.now().timestamp()}"), last_seq=1, state=state)
        request_in(queue, 1, Status.QUEUED)
    page = operator.get(BOARD)
    assert page.status_code == 200
    told = page.context["board"]
    assert {state.name: state.queues for state in told.states} == {
        "ready": 1,
        "draining": 0,
        "waiting": 0,
        "blocked": 2,
    }
    assert told.standing.depth == 3
    assert "0 of 1 shard led" in page.content.decode()
    assert "Nothing runs: manage.py work." in page.content.decode()


def test_it_is_red_when_a_queue_is_blocked_or_work_waits_and_nothing_moves(operator: Client) -> None:
    def wrong() -> dict[str, str]:
        backlog.recent._until = 0.0
        return {light.name: light.state for light in operator.get(BOARD).context["board"].wrong}

    runs = queue_of(User.objects.create_user("runs"))
    waiting = queue_of(User.objects.create_user("waiting"), last_seq=1, published_seq=1, state=QueueState.READY)
    request_in(waiting, 1, Status.QUEUED, timezone.now() - timedelta(minutes=3))
    assert wrong()["Queues"] == "work waits for 3 min"
    assert "Blocked" not in wrong()
    for ago, is_wrong in ((5, False), (50, False), (150, True)):  # one other user's request runs for so long
        since = timezone.now() - timedelta(seconds=ago)
        queue_of(runs.user, last_seq=1, published_seq=1, state=QueueState.DRAINING, claimed=1, claimed_at=since)
        assert ("Queues" in wrong()) is is_wrong
    put_off = {"state": QueueState.WAITING, "claimed": 0, "claimed_at": timezone.now(), "wake_at": timezone.now()}
    queue_of(User.objects.create_user("put off"), last_seq=1, published_seq=1, **put_off)
    assert "Queues" in wrong(), "leased and put off for want of a thread, it did not begin"
    queue_of(waiting.user, state=QueueState.WAITING, wake_at="3000-01-01T00:00:00Z")  # held back by its kind
    assert "Queues" not in wrong()
    queue_of(waiting.user, state=QueueState.DRAINING, claimed=1, claimed_at=since, wake_at=None)
    assert "Queues" not in wrong(), "it waits behind its own user's request"
    queue_of(waiting.user, state=QueueState.BLOCKED)
    assert wrong()["Blocked"] == "1 queue"
    assert "Queues" not in wrong()


def test_what_waits_long_while_work_goes_on_and_what_fails_often_is_said_with_a_link(
    operator: Client, clean_pace: None
) -> None:
    queue = queue_of(
        User.objects.create_user("late"), last_seq=2, published_seq=2, state=QueueState.DRAINING, claimed=1
    )
    for seq in (1, 2):
        request_in(queue, seq, Status.QUEUED, timezone.now() - timedelta(minutes=3))
    metrics.count_lost("demo.echo", final=True)
    throughput.tally.flush()
    wrong = {light.name: light for light in operator.get(BOARD).context["board"].wrong}
    assert not wrong["Late"].serious
    assert operator.get(wrong["Late"].link).context["cl"].result_list[0].user.username == "late"
    assert wrong["Failing: demo.echo"].state == "1 of 1 in the last hour"
    assert operator.get(wrong["Failing: demo.echo"].link).status_code == 200


def test_each_alarm_has_a_link_or_says_what_to_type(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "checks", lambda: dict.fromkeys(alarms.SERVERS, "down"))
    queue = queue_of(User.objects.create_user("blocked"), last_seq=1, published_seq=1, state=QueueState.BLOCKED)
    request_in(queue, 1, Status.QUEUED)
    wrong = operator.get(BOARD).context["board"].wrong
    assert {light.name for light in wrong} >= {*alarms.SERVERS.values(), "Dispatchers", "Workers", "Blocked"}
    for light in wrong:
        assert light.link or "manage.py" in light.means, light


def test_a_kind_is_shown_with_its_limits_here_and_by_whom_it_is_paused(operator: Client) -> None:
    deployment.set_limits("demo.steps", max_concurrency=1200, rate=Rate(100, 60))
    deployment.pause("demo.steps", "bob: ticket 4711")
    page = operator.get(BOARD).content.decode()
    assert page.count("1,200 at once, 100/m begin") == 1
    assert page.count("by bob: ticket 4711") == 1


def test_it_tells_what_each_worker_runs(operator: Client) -> None:
    for name, worker_id in (("ada", 7), ("bob", 7), ("eve", 9)):
        user = User.objects.create_user(name)
        queue = queue_of(user, last_seq=1, published_seq=1, state=QueueState.DRAINING, claimed=1, worker_id=worker_id)
        request_in(queue, 1, Status.QUEUED)
    workers = operator.get(BOARD).context["board"].workers
    assert {worker.worker_id: {run.user for run in worker.runs} for worker in workers} == {
        7: {"ada", "bob"},
        9: {"eve"},
    }


def test_a_hostile_kind_or_error_is_text(operator: Client) -> None:
    hostile = '"><script>alert(1)</script>'
    queue = queue_of(User.objects.create_user(hostile), last_seq=2)
    request_in(queue, 1, Status.FAILED, timezone.now(), kind=hostile, error={"type": hostile, "message": "x", "at": ""})
    for path in (BOARD, PAGE):
        page = operator.get(path).content.decode()
        assert "&lt;script&gt;alert" in page
        assert "<script>alert" not in page


def test_a_server_that_hangs_does_not_stall_it(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()

    def hang() -> dict[str, str]:
        hangs.wait(30)
        return dict.fromkeys(alarms.SERVERS, "down")

    monkeypatch.setattr(health, "checks", hang)
    checks = dashboard.Checks()
    monkeypatch.setattr(dashboard, "checks", checks)
    try:
        began = time.monotonic()
        page = operator.get(BOARD).content.decode()
        assert time.monotonic() - began < 10
        assert '<li class="unknown"><b>PostgreSQL</b> <span>not known yet</span></li>' in page
    finally:
        hangs.set()
    assert checks._newest is not None
    checks._newest.result(30)
    assert "Redis: down" in operator.get(BOARD).content.decode()


def test_it_is_shown_to_staff_who_may_see_queues(operator: Client) -> None:
    someone = User.objects.create_user("someone", is_staff=True)
    client = Client()
    client.force_login(someone)
    assert client.get(BOARD).status_code == 403
    page = client.get(PAGE)
    assert page.status_code == 200
    assert 'id="board"' not in page.content.decode()
    assert Client().get(BOARD).status_code == 302


def test_it_costs_the_same_few_questions_however_many_there_are(
    operator: Client, django_assert_max_num_queries: Any
) -> None:
    def more(count: int) -> None:
        for number in range(count):
            user = User.objects.create_user(f"user-{count}-{number}")
            request_in(queue_of(user, last_seq=2, state=QueueState.READY), 1, Status.FAILED, timezone.now())

    more(30)
    with django_assert_max_num_queries(4):  # session, user, standing's count by Django's cursor or not, failures
        assert operator.get(BOARD).status_code == 200


def test_it_works_without_scripts_and_asks_no_other_host(operator: Client) -> None:
    page = operator.get(PAGE).content.decode()
    assert '<noscript><meta http-equiv="refresh" content="10"></noscript>' in page
    assert "style=" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


@pytest.mark.django_db(transaction=True)
def test_a_browser_shows_it_and_renews_it(live_server: Any, browser: Any) -> None:
    operator = User.objects.create_superuser("operator")
    client = Client()
    client.force_login(operator)
    browser.get(f"{live_server.url}/static/operating/operating.css")
    browser.add_cookie({"name": "sessionid", "value": client.cookies["sessionid"].value, "path": "/"})
    browser.get_log("browser")
    browser.get(f"{live_server.url}{PAGE}")

    def body() -> str:
        return str(browser.execute_script("return document.getElementById('board').innerText"))

    assert "Queues that are not at rest" in body()
    assert "blocked-kind" not in body()
    queue = queue_of(User.objects.create_user("bob"), last_seq=1)
    request_in(queue, 1, Status.FAILED, timezone.now(), kind="blocked-kind")
    until(lambda: "blocked-kind" in body(), 60, "the board renewed itself")
    assert Request.objects.count() == 1
    refused = [entry["message"] for entry in browser.get_log("browser") if "Content Security" in entry["message"]]
    assert refused == []
    browser.delete_all_cookies()
