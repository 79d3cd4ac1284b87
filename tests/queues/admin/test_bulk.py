"""Bulk actions are done by the dispatcher: each target once, whoever is killed, and nobody waits for what is locked."""

import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group
from django.db.models.functions import Now
from structlog.contextvars import get_contextvars

from accounts.models import User
from processing.dispatch.chores import chores
from queues import event_log
from queues.admin import bulk_actions, bulk_steps
from queues.lifecycle import control
from queues.models import BulkAction, Request, UserQueue
from queues.states import Status
from tests.client import Client
from tests.processing.frozen import QUEUE, frozen
from tests.queues.admin.conftest import QUEUES, REQUESTS, act, ask, chosen
from tests.queues.rows import queue_of, request_in
from tests.source import ROOT
from tests.waiting import until

pytestmark = pytest.mark.django_db
EVERYTHING = {"select_across": "1", "_selected_action": ["1"]}
KILLED = """
import os, signal, django
django.setup()
from queues.admin import bulk_steps
from queues.lifecycle import control
real, calls = control.cancel, []
def cancel(request_id):
    calls.append(request_id)
    if len(calls) == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    real(request_id)
control.cancel, bulk_steps.GROUP_SECONDS = cancel, 60.0
bulk_steps.step()
"""


@pytest.fixture
def undone(dispatcher: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No dispatcher takes it while the page waits."""
    monkeypatch.setattr(bulk_actions, "ended_soon", lambda _: False)
    monkeypatch.setattr(bulk_steps, "GROUP_SECONDS", 60.0)


def waiting(user: User, count: int, status: Status = Status.QUEUED) -> UserQueue:
    done = count if status == Status.FAILED else 0
    queue = queue_of(user, last_seq=count, published_seq=count, done_seq=done, state="idle" if done else "ready")
    for seq in range(1, count + 1):
        request_in(queue, seq, status)
    return queue


def confirmed(client: Client, path: str, name: str) -> BulkAction:
    act(client, path, name, **EVERYTHING)
    return BulkAction.objects.latest("pk")


def page_of(client: Client, action: BulkAction) -> str:
    return " ".join(client.get(f"/admin/queues/bulkaction/{action.pk}/change/").content.decode().split())


def finish() -> None:
    while bulk_steps.step():
        pass


@pytest.mark.django_db(transaction=True)
def test_who_is_killed_in_a_group_has_done_nothing_of_it(operator: Client, bob: User, undone: None) -> None:
    waiting(bob, 30)
    action = confirmed(operator, REQUESTS, "cancel")
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, env=dict(os.environ), check=False)
    assert killed.returncode == -9
    action.refresh_from_db()
    assert (action.position, LogEntry.objects.count()) == (0, 0)
    assert not Request.objects.exclude(finished_at=None).exists()
    finish()
    action.refresh_from_db()
    assert (action.done, action.skipped, action.finished_at is None) == (30, {}, False)
    assert LogEntry.objects.exclude(object_id=None).count() == 30


def test_a_cancelled_one_stops_behind_its_group(
    operator: Client, viewer: Client, bob: User, undone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_steps, "GROUP", 2)
    waiting(bob, 5)
    action = confirmed(operator, REQUESTS, "cancel")
    assert bulk_steps.step()
    assert "<strong>2 of 5</strong>" in page_of(viewer, action)
    address = f"/admin/queues/bulkaction/{action.pk}/cancel/"
    assert operator.get(address).status_code == 405
    assert viewer.post(address).status_code == 403
    assert operator.post(address).status_code == 302
    assert not bulk_steps.step()
    assert Request.objects.filter(finished_at=None).count() == 3
    assert "Cancelled by the-operator. What is done stays done." in page_of(viewer, action)
    assert "It was over already." in operator.post(address, follow=True).content.decode()
    assert "2 of 5, 0 skipped, 0 failed. Cancelled by" in LogEntry.objects.get(object_id=None).change_message
    assert "2 of 5" in viewer.get("/admin/queues/bulkaction/").content.decode()


@pytest.mark.django_db(transaction=True)
def test_what_is_locked_has_its_turn_later_in_its_users_order(
    operator: Client, bob: User, undone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_steps, "GROUP", 2)
    locked = waiting(bob, 5, Status.FAILED)
    bystander = waiting(User.objects.create_user("alice"), 5, Status.FAILED)
    action = confirmed(operator, REQUESTS, "retry")
    with frozen(QUEUE, locked.pk):
        began = time.monotonic()
        for _ in range(5):
            bulk_steps.step()
        assert time.monotonic() - began < 5
        assert again(bystander) == [1, 2, 3, 4, 5]
        assert "5 locked by somebody; tried again." in page_of(operator, action)
        assert again(locked) == []
        until(lambda: bulk_steps.step(), 60, "they are tried again")
        assert "5 locked by somebody; tried again." in page_of(operator, action)
    until(lambda: bulk_steps.step() or BulkAction.objects.get().finished_at, 60, "the rest is done")
    finish()
    assert again(locked) == [1, 2, 3, 4, 5]
    assert BulkAction.objects.get().done == 10


def again(queue: UserQueue) -> list[int]:
    return [one.payload["n"] for one in queue.requests.filter(seq__gt=5).order_by("seq")]


def test_what_is_locked_for_ever_is_given_up(
    operator: Client, bob: User, undone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(bob, 2)
    action = confirmed(operator, REQUESTS, "cancel")
    monkeypatch.setattr(bulk_steps, "LOCKED_SECONDS", -60.0)
    monkeypatch.setattr(bulk_steps, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(bulk_steps._Group, "_one", lambda *_: False)
    finish()
    action.refresh_from_db()
    assert (action.finished_at is not None, list(action.failed.values())) == (True, [2])


def test_a_defect_is_counted_and_the_others_go_on(operator: Client, bob: User, monkeypatch: pytest.MonkeyPatch) -> None:
    second, real = waiting(bob, 3).requests.get(seq=2).pk, control.cancel

    def broken(request_id: UUID) -> None:
        real(request_id)
        if request_id == second:
            raise ZeroDivisionError

    monkeypatch.setattr(control, "cancel", broken)
    page = act(operator, REQUESTS, "cancel", **EVERYTHING)
    assert "2 cancelled, or asked to stop" in page
    assert "1 failed: ZeroDivisionError" in page
    assert Request.objects.get(finished_at=None).pk == second


def test_one_whose_group_goes_wrong_keeps_no_other_from_its_turn(
    operator: Client, bob: User, undone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(bob, 1)
    wrong = confirmed(operator, REQUESTS, "cancel")
    fine = confirmed(operator, QUEUES, "pause")
    real = bulk_steps._Group.do

    def do(group: bulk_steps._Group, following: list[str]) -> None:
        if group.action.pk == wrong.pk:
            raise ZeroDivisionError
        real(group, following)

    monkeypatch.setattr(bulk_steps._Group, "do", do)
    with pytest.raises(ZeroDivisionError):
        bulk_steps.step()
    finish()
    fine.refresh_from_db()
    assert fine.done == 1
    monkeypatch.undo()
    BulkAction.objects.filter(pk=wrong.pk).update(next_at=Now())
    finish()
    wrong.refresh_from_db()
    assert wrong.done == 1


def test_an_action_of_a_newer_release_is_left_to_its_dispatchers_for_a_day(
    operator: Client, bob: User, undone: None
) -> None:
    waiting(bob, 1)
    action = confirmed(operator, REQUESTS, "cancel")
    BulkAction.objects.filter(pk=action.pk).update(name="not_yet_known")
    finish()
    action.refresh_from_db()
    assert action.finished_at is None
    BulkAction.objects.filter(pk=action.pk).update(name="cancel", next_at=Now())
    finish()
    action.refresh_from_db()
    assert (action.done, action.stopped) == (1, "")


def test_an_action_that_nobody_knows_ends_after_a_day(operator: Client, bob: User, undone: None) -> None:
    waiting(bob, 1)
    action = confirmed(operator, REQUESTS, "cancel")
    before = Now() - timedelta(days=1, seconds=1)
    BulkAction.objects.filter(pk=action.pk).update(name="not_yet_known", created_at=before)
    finish()
    action.refresh_from_db()
    assert (action.done, action.stopped) == (0, "This release does not know the action.")


@pytest.mark.django_db(transaction=True)
def test_each_line_of_the_log_says_who_did_it_and_why(
    operator: Client, bob: User, undone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(event_log, "_line", lambda event, *_: lines.append((event, get_contextvars())))
    waiting(bob, 2)
    confirmed(operator, REQUESTS, "cancel")
    finish()
    told = [said for event, said in lines if event == "cancelled"]
    assert [one["command"] for one in told] == ["admin cancel"] * 2
    assert all(one["by"] == f"the-operator: {one['reason']}" for one in told)


def test_rights_are_asked_for_again_for_each_group(
    operator: Client, bob: User, undone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_steps, "GROUP", 2)
    waiting(bob, 5)
    action = confirmed(operator, REQUESTS, "cancel")
    assert bulk_steps.step()
    Group.objects.get(name="operator").permissions.clear()
    assert bulk_steps.step()
    assert not bulk_steps.step()
    action.refresh_from_db()
    assert (action.done, action.stopped) == (2, "the-operator may not do this any more.")


def test_a_confirmation_that_is_sent_twice_is_one_action(operator: Client, bob: User, undone: None) -> None:
    queue = waiting(bob, 1)
    token = ask(operator, QUEUES, "pause", queue).context["confirmed"]
    pages = {operator.post(QUEUES, chosen("pause", queue, confirmed=token, reason="x"))["Location"] for _ in range(2)}
    assert pages == {f"/admin/queues/bulkaction/{BulkAction.objects.get().pk}/change/"}


@pytest.mark.django_db(transaction=True)
def test_a_browser_confirms_and_follows_it(
    live_server: Any, browser: Any, undone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_steps, "GROUP", 2)
    stop = threading.Event()
    (chore,) = [chore for chore in chores() if chore.name == "bulk actions"]
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    waiting(User.objects.create_user("bob"), 5)
    browser.get(f"{live_server.url}/static/operating/operating.css")
    browser.add_cookie({"name": "sessionid", "value": root.cookies["sessionid"].value, "path": "/"})
    browser.get_log("browser")
    browser.get(f"{live_server.url}{REQUESTS}?status=queued")
    browser.find_element("id", "action-toggle").click()
    browser.find_element("css selector", "select[name=action] option[value=cancel]").click()
    browser.find_element("css selector", "button[name=index]").click()

    def shows(text: str) -> bool:
        return text in str(browser.execute_script("return document.body.innerText"))

    until(lambda: shows("5 requests of 1 user:"), 60, "it asks")
    browser.find_element("name", "reason").send_keys("ticket 4711")
    browser.find_element("css selector", "input[type=submit]").click()
    until(lambda: shows("You can close this page"), 60, "it shows the progress")
    doing = threading.Thread(target=chore.run, args=(stop,))
    doing.start()
    try:
        until(lambda: shows("5 cancelled, or asked to stop.") and shows("It is over."), 60, "the page follows")
    finally:
        stop.set()
        doing.join(20)
    assert Request.objects.filter(status="cancelled").count() == 5
    refused = [entry["message"] for entry in browser.get_log("browser") if "Content Security" in entry["message"]]
    assert refused == []
    browser.delete_all_cookies()
