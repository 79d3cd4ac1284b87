"""Operators act only after they saw how many and whose, say why, and find it in the log; viewers cannot."""

import importlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.db import connection
from django.test import Client

from accounts.audit import Event, SecurityEvent
from accounts.models import User
from queues.admin import alarms, bulk_actions, dashboard
from queues.admin.bulk_actions import Steering
from queues.lifecycle import control
from queues.models import Request, UserQueue
from queues.operations import selectors
from queues.states import QueueState, Status
from tests.queues.api import Caller
from tests.queues.rows import a_long_story, queue_of, request_in

pytestmark = pytest.mark.django_db
QUEUES, REQUESTS = "/admin/queues/userqueue/", "/admin/queues/request/"
GROUPS = importlib.import_module("queues.migrations.0008_groups")
HELD = importlib.import_module("queues.migrations.0009_held")
PAUSERS = ("", "its owner", "ada: ticket 4711")


@pytest.fixture(autouse=True)
def servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The board asks no server: the threads that do keep connections, and the database could not be dropped."""
    monkeypatch.setattr(dashboard, "checks", lambda: dict.fromkeys(alarms.SERVERS, "ok"))


@pytest.fixture
def groups(db: None) -> None:
    """As the migration makes them; a test that empties the database takes them away."""
    GROUPS.make_groups(apps, None)


def member_of(group: str) -> Client:
    user = User.objects.create_user(f"the-{group}", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    client = Client(raise_request_exception=True)
    client.force_login(user)
    return client


@pytest.fixture
def operator(groups: None) -> Client:
    return member_of("operator")


@pytest.fixture
def viewer(groups: None) -> Client:
    return member_of("viewer")


@pytest.fixture
def bob() -> User:
    return User.objects.create_user("bob-the-builder")


def chosen(action: str, *rows: Any, **more: Any) -> dict[str, Any]:
    return {"action": action, "_selected_action": [str(row.pk) for row in rows], **more}


def ask(client: Client, path: str, action: str, *rows: Any, **more: Any) -> Any:
    """The confirmation page."""
    page = client.post(path, chosen(action, *rows, **more))
    assert page.status_code == 200, page
    return page


def act(client: Client, path: str, action: str, *rows: Any, **more: Any) -> str:
    """Ask, confirm and go on until it is done; the page that is seen then."""
    answer = ask(client, path, action, *rows, **more)
    data = {**chosen(action, *rows, **more), "reason": "ticket 4711", **more}
    for _ in range(100):
        token = re.search(r'name="progress" value="([^"]+)"', answer.content.decode())
        if token is None:
            break
        answer = client.post(path, {**data, "progress": token[1]}, follow=True)
    return str(answer.content.decode())


def test_nothing_is_done_before_it_is_confirmed_with_a_reason(operator: Client, bob: User) -> None:
    queue = a_long_story(bob)
    page = ask(operator, QUEUES, "pause", queue)
    assert (page.context["total"], page.context["whose"]) == (1, [("bob-the-builder", 1, 5)])
    again = operator.post(QUEUES, chosen("pause", queue, progress=page.context["progress"], reason="  "))
    assert again.context["form"].errors == {"reason": ["This field is required."]}
    assert operator.post(QUEUES, chosen("pause", queue, reason="x", progress="made up")).status_code == 302
    assert not UserQueue.objects.get().paused
    assert not LogEntry.objects.exists()


def test_what_was_confirmed_for_one_action_does_another_nothing(operator: Client, bob: User) -> None:
    queue = a_long_story(bob)
    token = ask(operator, QUEUES, "pause", queue).context["progress"]
    operator.post(QUEUES, chosen("purge", queue, reason="x", progress=token))
    assert queue.requests.filter(status=Status.QUEUED).count() == 4


def test_operators_steer_with_the_verbs_of_the_api(operator: Client, bob: User) -> None:
    queue = a_long_story(bob)
    final, waiting = queue.requests.get(seq=1), queue.requests.get(seq=9)
    page = act(operator, REQUESTS, "cancel", final, waiting)
    assert "1 refused: The request is succeeded already." in page
    assert "1 cancelled, or asked to stop" in page
    waiting.refresh_from_db()
    assert waiting.status == "cancelled"
    act(operator, REQUESTS, "retry", waiting)
    assert "It was tried again already." in act(operator, REQUESTS, "retry", waiting)
    assert Request.objects.filter(retry_of=waiting).count() == 1
    assert "A worker has the queue" in act(operator, QUEUES, "republish", queue)
    act(operator, QUEUES, "pause", queue)
    assert UserQueue.objects.get().paused_by == "the-operator: ticket 4711"
    act(operator, QUEUES, "resume", queue)
    act(operator, QUEUES, "purge", queue)
    assert not UserQueue.objects.get().paused
    assert not queue.requests.filter(finished_at=None).exclude(seq=8).exists()
    assert {(entry.user.username, entry.change_message.partition(": ")[2]) for entry in LogEntry.objects.all()} == {
        ("the-operator", "ticket 4711")
    }
    assert LogEntry.objects.count() == 5


def test_a_blocked_queue_is_skipped_by_its_head(operator: Client, bob: User) -> None:
    queue = queue_of(bob, last_seq=2, published_seq=2, state=QueueState.BLOCKED)
    error = {"type": "PaperJam", "message": "The <printer> is jammed.", "at": "2026-11-28T12:00:00+00:00"}
    head = request_in(queue, 1, Status.RETRYING, attempt=3, error=error)
    request_in(queue, 2, Status.QUEUED)
    page = ask(operator, QUEUES, "skip", queue)
    assert page.context["whose"] == [("bob-the-builder", 1, 1)], "the head alone, whatever waits behind it"
    for told in (str(head.pk), "demo.echo", "PaperJam: The &lt;printer&gt; is jammed."):
        assert told in page.content.decode()
    assert str(head.pk) in ask(operator, REQUESTS, "skip", head).content.decode()
    assert "1 skipped" in act(operator, QUEUES, "skip", queue)
    head.refresh_from_db()
    assert head.status == "failed"


def test_all_that_failed_is_tried_again_in_order_at_the_tail_and_once(operator: Client, bob: User) -> None:
    alice = User.objects.create_user("alice")
    for user in (bob, alice):
        queue = queue_of(user, last_seq=4, published_seq=4, done_seq=4)
        for seq in (3, 1, 2):  # ids in another order than the places
            request_in(queue, seq, Status.FAILED, payload={"n": seq})
        request_in(queue, 4, Status.SUCCEEDED)
    queues = list(UserQueue.objects.all())
    page = ask(operator, QUEUES, "retry_failed", *queues)
    assert sorted(page.context["whose"]) == [("alice", 3, 3), ("bob-the-builder", 3, 3)]
    assert "6 tried again" in act(operator, QUEUES, "retry_failed", *queues)
    for queue in queues:
        again = Request.objects.filter(queue=queue, seq__gt=4).order_by("seq")
        assert [(one.seq, one.payload["n"]) for one in again] == [(5, 1), (6, 2), (7, 3)]
    everything = {"select_across": "1", "_selected_action": ["1"]}
    refused = act(operator, f"{REQUESTS}?status=failed&kind=demo.echo", "retry", **everything)
    assert "6 refused: It was tried again already." in refused


def test_a_selection_of_all_is_done_in_bounded_steps(
    operator: Client, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_actions, "STEP", 3)
    monkeypatch.setattr(bulk_actions, "USERS_NAMED", 2)
    for number in range(8):
        queue_of(User.objects.create_user(f"user-{number}"))
    calls: list[int] = []
    monkeypatch.setattr(control, "pause", lambda queue, _by: calls.append(queue))
    everything = {"select_across": "1", "_selected_action": ["1"]}
    page = ask(operator, QUEUES, "pause", **everything)
    assert (page.context["total"], page.context["users"], page.context["left_out"]) == (8, 8, 6)
    first = operator.post(QUEUES, chosen("pause", progress=page.context["progress"], reason="x", **everything))
    assert (len(calls), first.context["state"].handled) == (3, 3)
    assert "8 paused" in act(operator, QUEUES, "pause", **everything)
    assert sorted(calls[3:]) == sorted(UserQueue.objects.values_list("id", flat=True))
    (told,) = {entry.object_repr for entry in LogEntry.objects.filter(object_id=None)} - {"2 user queues"}
    assert told == "3 user queues"
    staff = SecurityEvent.objects.filter(event=Event.STAFF_ACTION)
    assert staff.filter(detail__contains="8 of 8, 0 refused").count() == 1


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
    assert 'name="progress"' not in page.content.decode()


def test_what_came_after_the_confirmation_is_not_meant(operator: Client, bob: User, until: Callable[..., None]) -> None:
    queue = queue_of(bob, last_seq=2)
    request_in(queue, 1, Status.QUEUED)
    everything = {"select_across": "1", "_selected_action": ["1"]}
    token = ask(operator, REQUESTS, "cancel", **everything).context["progress"]
    before = Request.objects.get().id.int >> 80
    until(lambda: Request(queue=queue).id.int >> 80 > before + 5, "the clock moved on")
    late = request_in(queue, 2, Status.QUEUED)
    operator.post(REQUESTS, chosen("cancel", progress=token, reason="x", **everything))
    assert list(Request.objects.filter(finished_at=None)) == [late]


def test_retries_keep_to_their_pace(operator: Client, bob: User) -> None:
    queue = queue_of(bob, last_seq=5, published_seq=5, done_seq=5)
    for seq in range(1, 6):
        request_in(queue, seq, Status.FAILED)
    page = ask(operator, QUEUES, "retry_failed", queue)
    data = chosen("retry_failed", queue, reason="x", most="2", per="60")
    for _ in range(3):
        page = operator.post(
            QUEUES,
            {
                **data,
                "progress": page.context["progress"]
                if "progress" in page.context
                else page.context["kept"]["progress"],
            },
        )
    assert Request.objects.exclude(retry_of=None).count() == 1
    assert page.context["wait"] == 5000
    assert "at once" not in page.content.decode()


def test_limits_are_for_admins(operator: Client, groups: None, bob: User) -> None:
    queue = a_long_story(bob)
    admin = member_of("admin")
    act(admin, QUEUES, "limit", queue, waiting_limit="7")
    assert UserQueue.objects.get().waiting_limit == 7
    page = ask(admin, QUEUES, "limit", queue)
    wrong = admin.post(
        QUEUES, chosen("limit", queue, progress=page.context["progress"], reason="x", waiting_limit="-1")
    )
    assert "waiting_limit" in wrong.context["form"].errors
    assert operator.post(QUEUES, chosen("limit", queue)).status_code == 403
    change = {"waiting_limit": "5", "reason": "x"}
    assert operator.post(f"{QUEUES}{queue.id}/change/", change).status_code == 403
    assert admin.post(f"{QUEUES}{queue.id}/change/", change).status_code == 302
    assert UserQueue.objects.get().waiting_limit == 5


def test_a_viewers_forged_post_does_nothing(viewer: Client, bob: User) -> None:
    queue = a_long_story(bob)
    waiting = queue.requests.get(seq=9)
    for path in ("/admin/", "/admin/board", QUEUES, REQUESTS, f"{QUEUES}{queue.id}/change/"):
        assert viewer.get(path).status_code == 200
    page = viewer.get(f"{REQUESTS}{waiting.id}/change/")
    assert page.status_code == 200
    assert 'name="action"' not in page.content.decode()
    token = bulk_actions.signing.dumps(
        {"total": 1, "asked": 4e9}, salt=f"cancel queues.Request {page.wsgi_request.user.pk}"
    )
    before = list(UserQueue.objects.values()), list(Request.objects.order_by("id").values())
    for path, actions in ((QUEUES, steered(QUEUES)), (REQUESTS, steered(REQUESTS))):
        for action in actions:
            for more in ({}, {"progress": token, "reason": "x"}):
                row = queue if path == QUEUES else waiting
                assert viewer.post(path, chosen(action, row, **more)).status_code == 403, action
    assert (list(UserQueue.objects.values()), list(Request.objects.order_by("id").values())) == before
    assert not LogEntry.objects.exists()


def steered(path: str) -> list[str]:
    from queues.admin.actions import OF_QUEUES, OF_REQUESTS

    return [what.name for what in (OF_QUEUES if path == QUEUES else OF_REQUESTS)]


def test_the_log_tells_who_did_what_and_why(operator: Client, viewer: Client, bob: User) -> None:
    act(operator, QUEUES, "pause", queue_of(bob))
    for term in ("", "the-operator"):
        page = viewer.get("/admin/admin/logentry/", {"q": term}).content.decode()
        assert "paused: ticket 4711" in page
    assert "ticket 4711" not in viewer.get("/admin/admin/logentry/", {"q": "the-viewer"}).content.decode()
    entry = LogEntry.objects.get()
    assert "ticket 4711" in viewer.get(f"/admin/admin/logentry/{entry.pk}/change/").content.decode()
    assert operator.post(f"/admin/admin/logentry/{entry.pk}/change/", {}).status_code == 403


def test_rights_are_asked_for_again_at_every_step(operator: Client, bob: User) -> None:
    queue = a_long_story(bob)
    token = ask(operator, QUEUES, "pause", queue).context["progress"]
    Group.objects.get(name="operator").permissions.clear()
    assert operator.post(QUEUES, chosen("pause", queue, progress=token, reason="x")).status_code == 403
    assert not UserQueue.objects.get().paused


SEEN = {"queues/userqueue/", "queues/request/", "queues/operatoraction/", "admin/logentry/"}
PEOPLE = {"accounts/user/", "accounts/user/add/", "accounts/session/", "accounts/securityevent/", "auth/group/"}


@pytest.mark.parametrize(("group", "may"), [("viewer", SEEN), ("operator", SEEN), ("admin", SEEN | PEOPLE)])
def test_each_group_opens_its_pages(groups: None, group: str, may: set[str]) -> None:
    client = member_of(group)
    every = {*SEEN, *PEOPLE, "queues/request/add/"}
    assert {path for path in every if client.get(f"/admin/{path}").status_code == 200} == may


def test_an_admin_makes_nobody_a_superuser(groups: None) -> None:
    client = member_of("admin")
    root = User.objects.create_superuser("root")
    me = User.objects.get(username="the-admin")
    form = {"username": "the-admin", "email": "", "is_active": "on", "is_staff": "on", "is_superuser": "on"}
    right = Permission.objects.get(codename="delete_user")
    assert client.post(
        f"/admin/accounts/user/{me.pk}/change/", form | {"user_permissions": [right.pk]}
    ).status_code in (200, 302)
    me = User.objects.get(username="the-admin")
    assert (me.is_superuser, me.user_permissions.count()) == (False, 0)
    assert client.post(f"/admin/accounts/user/{root.pk}/change/", form).status_code == 403
    new = {"usable_password": "true", "password1": "four-random-words", "password2": "four-random-words"}
    assert client.post(f"/admin/accounts/user/{root.pk}/password/", new).status_code == 403
    assert User.objects.get(username="root").is_superuser


def test_the_queues_page_says_what_runs_what_waits_and_who_paused_it(viewer: Client, bob: User) -> None:
    queue = a_long_story(bob)
    control.pause(queue.id, "ada: ticket 4711")
    page = viewer.get(f"{QUEUES}{queue.id}/change/")
    shown = page.context["page"]
    assert [one.seq for one in shown.runs] == [8]
    assert [one.seq for one in shown.waiting] == [9, 10, 12]
    assert [one.seq for one in shown.history] == [7, 6, 5, 4, 3, 2, 1]
    said = page.context["page"].said[0]
    assert said.endswith(
        "by ada: ticket 4711. Nothing further starts until an operator resumes it: its owner cannot; accepting goes on."
    )
    assert said in page.content.decode()
    control.resume(queue.id, operator=True)
    assert UserQueue.objects.get().paused_by == ""
    control.pause(queue.id)
    (said, _) = viewer.get(f"{QUEUES}{queue.id}/change/").context["page"].said[:2]
    assert said.endswith("by its owner. Nothing further starts until it is resumed; accepting goes on.")


def test_what_an_operator_pauses_here_only_an_operator_resumes(operator: Client, bob: User) -> None:
    queue = queue_of(bob)
    owner = Caller(bob)
    act(operator, QUEUES, "pause", queue)
    assert owner.post("queue/resume").status == 409
    assert "1 resumed" in act(operator, QUEUES, "resume", queue)
    assert owner.get("queue").json["paused"] is False


def test_the_queues_page_shows_a_hundred_and_leads_to_the_next(viewer: Client, bob: User) -> None:
    queue = queue_of(bob, last_seq=150)
    for seq in range(1, 151):
        request_in(queue, seq, Status.QUEUED)
    path = f"{QUEUES}{queue.id}/change/"
    first = viewer.get(path)
    assert [one.seq for one in first.context["page"].waiting] == list(range(1, 101))
    assert "?after=100" in first.content.decode()
    assert [one.seq for one in viewer.get(f"{path}?after=100").context["page"].waiting] == list(range(101, 151))
    for after in ("x", "-1", "9" * 30, "\u0661"):
        assert viewer.get(path, {"after": after}).status_code == 200
    for missing in ("0", "x", "9" * 30):
        assert viewer.get(f"{QUEUES}{missing}/change/").status_code == 302


def test_a_command_says_who_paused_it_too(bob: User) -> None:
    queue_of(bob)
    call_command("queue", "pause", "bob-the-builder", "--yes", "--reason", "ticket 4711")
    paused = UserQueue.objects.get()
    assert re.fullmatch(r".+@.+: ticket 4711", paused.paused_by)
    assert paused.held


def test_a_pause_of_an_operator_from_before_the_column_is_theirs() -> None:
    paused = {who: queue_of(User.objects.create_user(f"of {who}"), paused=True, paused_by=who) for who in PAUSERS}
    queue_of(User.objects.create_user("resumed"), paused_by="ada: ticket 4711")
    with connection.cursor() as cursor:
        cursor.execute(HELD.HOLD)
    held = set(UserQueue.objects.filter(held=True).values_list("id", flat=True))
    assert held == {paused["ada: ticket 4711"].id}


def test_a_row_is_steered_from_its_own_page(operator: Client, bob: User) -> None:
    queue = queue_of(bob)
    page = operator.get(f"{QUEUES}{queue.id}/change/").content.decode()
    assert 'value="pause"' in page
    assert 'value="limit"' not in page
    token = ask(operator, QUEUES, "pause", queue, back="1").context["progress"]
    done = operator.post(QUEUES, chosen("pause", queue, back="1", progress=token, reason="x"))
    assert done["Location"] == f"{QUEUES}{queue.id}/change/"


def buttons(client: Client, path: str) -> set[str]:
    return {name for name, _, _ in client.get(path).context["steers"]}


def test_a_page_offers_only_what_can_be_done_now(operator: Client, bob: User) -> None:
    queue = queue_of(bob)
    page = f"{QUEUES}{queue.id}/change/"
    assert buttons(operator, page) == {"pause"}
    head = request_in(queue, 1, Status.QUEUED, attempt=1)
    failed = request_in(queue_of(bob, last_seq=1, published_seq=1, state="blocked"), None, Status.FAILED)
    assert buttons(operator, page) == {"pause", "purge", "republish", "skip", "retry_failed"}
    assert buttons(operator, f"{REQUESTS}{head.pk}/change/") == {"cancel", "retry", "skip"}
    assert buttons(operator, f"{REQUESTS}{failed.pk}/change/") == {"retry"}
    control.pause(queue.id, "root: ticket 4711")
    assert buttons(operator, page) == {"resume", "purge", "republish", "skip", "retry_failed"}


def test_the_confirmation_names_the_request_and_its_error(operator: Client, bob: User) -> None:
    error = {"type": "RuntimeError", "message": "no template", "at": "2026-11-20T20:00:00+00:00"}
    queue = queue_of(bob, last_seq=136, done_seq=135, published_seq=136, state="blocked")
    head = request_in(queue, 136, Status.RETRYING, kind="report.build", attempt=2, error=error)
    page = " ".join(ask(operator, REQUESTS, "retry", head).content.decode().split())
    assert "report.build #136</a> of bob-the-builder" in page
    assert "2 attempts, RuntimeError: no template" in page


@pytest.mark.parametrize("state", QueueState.values)
def test_every_state_is_told_in_words(viewer: Client, bob: User, state: str) -> None:
    wake = {"wake_at": "2026-11-21T00:00:00Z"} if state == "waiting" else {}
    queue = queue_of(bob, last_seq=1, published_seq=state != "idle", state=state, **wake)
    request_in(queue, 1, Status.QUEUED, attempt=1)
    assert len(viewer.get(f"{QUEUES}{queue.id}/change/").context["page"].said) >= 1


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


@pytest.mark.django_db(transaction=True)
def test_a_browser_confirms_and_goes_on_by_itself(
    live_server: Any, browser: Any, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_actions, "STEP", 2)
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    queue = queue_of(User.objects.create_user("bob"), last_seq=5)
    for seq in range(1, 6):
        request_in(queue, seq, Status.QUEUED)
    browser.get(f"{live_server.url}/static/operating/operating.css")
    browser.add_cookie({"name": "sessionid", "value": root.cookies["sessionid"].value, "path": "/"})
    browser.get_log("browser")
    browser.get(f"{live_server.url}{REQUESTS}?status=queued")
    browser.find_element("id", "action-toggle").click()
    browser.find_element("css selector", "select[name=action] option[value=cancel]").click()
    browser.find_element("css selector", "button[name=index]").click()

    def shows(text: str) -> bool:
        return text in str(browser.execute_script("return document.body.innerText"))

    until(lambda: shows("5 requests of 1 user:"), "it asks")
    browser.find_element("name", "reason").send_keys("ticket 4711")
    browser.find_element("css selector", "input[type=submit]").click()
    until(lambda: shows("5 cancelled, or asked to stop."), "it went on by itself")
    assert Request.objects.filter(status="cancelled").count() == 5
    refused = [entry["message"] for entry in browser.get_log("browser") if "Content Security" in entry["message"]]
    assert refused == []
    browser.delete_all_cookies()


def test_of_nothing_nobody_has_anything() -> None:
    page = admin.site.get_model_admin(Request)
    assert isinstance(page, Steering)
    assert page._whose(Request.objects.none()) == {}
