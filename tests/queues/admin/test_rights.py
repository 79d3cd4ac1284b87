"""Viewers look, operators act, and the log says who it was."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission
from django.core import signing

from accounts.models import User
from queues.models import Request, UserQueue
from tests.client import Client
from tests.queues.admin.conftest import QUEUES, REQUESTS, act, ask, chosen
from tests.queues.rows import a_long_story, queue_of
from tests.staff import member_of

pytestmark = pytest.mark.django_db


def test_a_viewers_forged_post_does_nothing(viewer: Client, bob: User) -> None:
    queue = a_long_story(bob)
    waiting = queue.requests.get(seq=9)
    for path in ("/admin/", "/admin/board", QUEUES, REQUESTS, f"{QUEUES}{queue.id}/change/"):
        assert viewer.get(path).status_code == 200
    page = viewer.get(f"{REQUESTS}{waiting.id}/change/")
    assert page.status_code == 200
    assert 'name="action"' not in page.content.decode()
    token = signing.dumps({"asked": 4e9, "once": "0" * 32}, salt=f"cancel queues.Request {page.wsgi_request.user.pk}")
    before = list(UserQueue.objects.values()), list(Request.objects.order_by("id").values())
    for path, actions in ((QUEUES, names_of(QUEUES)), (REQUESTS, names_of(REQUESTS))):
        for action in actions:
            for more in ({}, {"confirmed": token, "reason": "x"}):
                row = queue if path == QUEUES else waiting
                assert viewer.post(path, chosen(action, row, **more)).status_code == 403, action
    assert (list(UserQueue.objects.values()), list(Request.objects.order_by("id").values())) == before
    assert not LogEntry.objects.exists()


def names_of(path: str) -> list[str]:
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
    token = ask(operator, QUEUES, "pause", queue).context["confirmed"]
    Group.objects.get(name="operator").permissions.clear()
    assert operator.post(QUEUES, chosen("pause", queue, confirmed=token, reason="x")).status_code == 403
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
