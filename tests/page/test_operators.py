"""The operators' pages for everybody: screen readers, light and wide, dark and on a phone."""

import uuid

import pytest

from accounts.models import User
from queues.bulk_action import BulkAction
from tests.accounts.people import at_once
from tests.client import Client
from tests.page.eyes import PHONE, WIDE, Page
from tests.page.site import Owner
from tests.waiting import until

pytestmark = pytest.mark.django_db  # for its tables

USERS = "/admin/accounts/user/"
DJANGOS = [".breadcrumbs", "#changelist-search"]  # parts of its own templates, which axe has something to say about
CHOOSE = """document.querySelector('.action-select').click();
document.querySelector('select[name=action]').value = arguments[0];
document.querySelector('button[name=index]').click()"""


def login() -> tuple[str, int]:
    """The session of a new operator, and a bulk action of theirs that is under way."""
    root = User.objects.create_superuser(f"root-{uuid.uuid4()}")
    client = Client()
    client.force_login(root)
    action = BulkAction.objects.create(
        user=root, confirmation=uuid.uuid4(), page="request", name="retry", reason="ticket 4711", given={}, total=3,
        targets=["a", "b", "c"], later=[], position=2, done=1, skipped={"It is over.": 1}, failed={},
        next_at="2100-01-01T00:00:00Z",
    )  # fmt: skip
    return client.cookies["sessionid"].value, action.pk


def test_axe_finds_nothing_on_any_page_of_operators_in_either_theme(page: Page, owner: Owner) -> None:
    [(session, action)] = at_once(1, lambda _: login())
    owner.submit({"method": "GET", "url": "http://10.0.0.1/"}, kind="http.call")
    (stuck,) = owner.submit("x", kind="page.stuck")
    owner.submit("behind")
    until(lambda: owner.get("queue")["state"] == "blocked", why="its queue is blocked")
    page.open("/favicon.svg").browser.add_cookie({"name": "sessionid", "value": session, "path": "/"})
    queues, requests = "/admin/queues/userqueue/", "/admin/queues/request/"
    page.open(f"{queues}?state=blocked").until("document.querySelector('#result_list tbody a')")
    queue = page.js("return document.querySelector('#result_list tbody th a').pathname")
    paths = ["/admin/", queues, queue, requests, f"{requests}{stuck}/change/", "/admin/queues/kindlimit/"]
    paths += ["/admin/queues/kindlimit/page.stuck/change/", f"/admin/queues/bulkaction/{action}/change/"]
    paths += ["/admin/queues/bulkaction/", "/admin/webhooks/webhook/", "/admin/schedules/schedule/"]
    asks = {f"{queues}?state=blocked": "skip", "/admin/queues/kindlimit/": "pause", USERS: "end_sessions"}
    wrong = {}
    for path, action_asked in [*((path, "") for path in [*paths, USERS]), *asks.items()]:
        for size, dark in ((WIDE, False), (PHONE, True)):
            page.emulate(size, dark=dark)  # before the page: Django's links change their colour slowly
            page.open(path)
            if action_asked:
                page.js(CHOOSE, action_asked)
                page.until("document.querySelector('[name=confirmed]')")
            wrong[f"{path} {action_asked} {size}"] = page.found_by_axe(but=DJANGOS)
    owner.post(f"requests/{stuck}/skip")
    assert {path: found for path, found in wrong.items() if found} == {}
