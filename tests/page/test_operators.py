"""The operators' pages for everybody: screen readers, light and wide, dark and on a phone."""

import uuid

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group
from django.urls import reverse

from accounts.models import Invitation, User
from processing.kafka.models import RejectedMessage
from processing.schedules import writing
from processing.webhooks import owning
from queues.bulk_action import BulkAction
from queues.models import OperatorAction
from tests.accounts.people import at_once
from tests.client import Client
from tests.page.eyes import PHONE, WIDE, Page
from tests.page.site import Owner
from tests.waiting import until

pytestmark = pytest.mark.django_db  # for its tables

DJANGOS = [".help-tooltip"]  # made by a script of its own, with a label that no role goes with
FORMS = ["accounts_user", "auth_group", "accounts_invitation"]
ASKS = {
    "queues_userqueue": "skip", "queues_kindlimit": "pause", "accounts_user": "end_sessions",
    "schedules_schedule": "run", "webhooks_webhook": "switch_off", "kafka_rejectedmessage": "replay",
}  # fmt: skip
CHOOSE = """document.querySelector('.action-select').click();
document.querySelector('select[name=action]').value = arguments[0];
document.querySelector('button[name=index]').click()"""


def login(owner: Owner) -> str:
    """The session of a new operator, who finds something in every list; a bulk action of theirs is under way."""
    root = User.objects.create_superuser(f"root-{uuid.uuid4()}")
    client = Client()
    client.force_login(root)
    BulkAction.objects.create(
        user=root, confirmation=uuid.uuid4(), page="request", name="retry", reason="ticket 4711", given={}, total=3,
        targets=["a", "b", "c"], later=[], position=2, done=1, skipped={"It is over.": 1}, failed={},
        next_at="2100-01-01T00:00:00Z",
    )  # fmt: skip
    LogEntry.objects.log_actions(root.pk, [root], CHANGE, "x", single_object=True)
    OperatorAction.objects.create(by="root@machine", command="purge ada", reason="ticket 4711")
    Invitation.objects.create(email="ada@example.com")
    Group.objects.get_or_create(name="viewer")
    RejectedMessage.objects.create(topic="t", partition=0, offset=1, digest=uuid.uuid4(), reason="invalid", detail="x")
    writing.add(uuid.UUID(owner.id), "1", {"name": "nightly", "kind": "demo.echo", "every_seconds": 86400})
    owning.test(owning.create(uuid.UUID(owner.id), "https://example.com/hook", ["request.failed"], enabled=True))
    return client.cookies["sessionid"].value


def looked_at(page: Page, path: str, action: str = "") -> dict[str, list[str]]:
    """What axe finds on the page, or on the one that asks before this action is done to the first row."""
    found = {}
    for size, dark in ((WIDE, False), (PHONE, True)):
        page.emulate(size, dark=dark)  # before the page: Django's links change their colour slowly
        page.open(path)
        if action:
            page.js(CHOOSE, action)
            page.until("document.querySelector('[name=confirmed]')")
        found[f"{path} {action} {size}"] = page.found_by_axe(but=DJANGOS)
    return found


@pytest.mark.timeout(600)  # some eighty pages; beside others each takes seconds
def test_axe_finds_nothing_on_any_page_of_operators_in_either_theme(page: Page, owner: Owner) -> None:
    owner.submit({"method": "GET", "url": "http://10.0.0.1/"}, kind="http.call")
    (stuck,) = owner.submit("x", kind="page.stuck")
    owner.submit("behind")
    until(lambda: owner.get("queue")["state"] == "blocked", why="its queue is blocked")
    [session] = at_once(1, lambda _: login(owner))
    page.open("/favicon.svg").browser.add_cookie({"name": "sessionid", "value": session, "path": "/"})
    wrong = looked_at(page, "/admin/") | looked_at(page, "/admin/queues/") | looked_at(page, "/admin/password_change/")
    for model in filter(admin.site.is_registered, apps.get_models()):
        name = f"{model._meta.app_label}_{model._meta.model_name}"
        rows = reverse(f"admin:{name}_changelist") + ("?state=blocked" if name == "queues_userqueue" else "")
        wrong |= looked_at(page, rows)
        row = page.js("return document.querySelector('#result_list tbody th a').pathname")
        wrong |= looked_at(page, row)
        if name in FORMS:
            wrong |= looked_at(page, reverse(f"admin:{name}_add"))
        if name in ASKS:
            wrong |= looked_at(page, rows, ASKS[name])
    wrong |= looked_at(page, row.replace("/change/", "/history/"))
    owner.post(f"requests/{stuck}/skip")
    assert {path: found for path, found in wrong.items() if found} == {}
