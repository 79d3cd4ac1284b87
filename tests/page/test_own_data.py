"""Webhooks, a copy of one's data and the end of one's account, on the page."""

import json
from pathlib import Path

import pytest

from processing.webhooks.models import Delivery
from tests.accounts.people import PASSWORD, at_once
from tests.page.eyes import PHONE, WIDE, Page
from tests.page.site import Owner, Site
from tests.waiting import until

pytestmark = pytest.mark.django_db  # for its tables

ADDRESS = "https://receiver.example.org/hook"


def to_webhooks(page: Page) -> None:
    page.go("account")
    page.click("main a[href='#/webhooks']")
    page.sees("Add a webhook")


def said_by_receiver(owner: Owner, attempt: dict[str, object]) -> None:
    """What `deliver_webhooks` writes when the receiver has answered."""
    mine = Delivery.objects.filter(webhook__queue__user=owner.id)
    at_once(1, lambda _: mine.update(state="delivered", attempts=[attempt]))


def test_a_webhook_is_added_tested_switched_off_and_deleted(signed_in: Page, owner: Owner) -> None:
    assert not [one for one in signed_in.addresses() if "webhooks_view" in one or "own_data" in one]
    to_webhooks(signed_in)
    signed_in.sees("No webhooks yet")
    signed_in.fill("Address", "ftp://receiver.example.org/")
    signed_in.click("form [type=submit]")
    signed_in.until("document.activeElement.getAttribute('aria-invalid') === 'true'")
    signed_in.fill("Address", ADDRESS)
    signed_in.click("form [type=submit]")
    assert signed_in.until("document.querySelector('#secret')?.value").startswith("whsec_")
    assert signed_in.found_by_axe() == []
    signed_in.click(".banner .button:not(.quiet)")
    signed_in.until("!document.querySelector('#secret')")
    signed_in.click("main li [aria-label^='Send a test']")
    signed_in.sees("webhook.test", "main .rows")
    signed_in.sees("pending", "main .rows")
    said_by_receiver(owner, {"at": "2026-01-01T00:00:00Z", "status": 204, "duration_ms": 12.0, "error": None})
    signed_in.sees("1 attempt: answer 204 in 12 ms", "main .rows")
    signed_in.click("main [aria-label^='Send again']")
    signed_in.sees("pending", "main .rows")
    signed_in.click("main a[href='#/webhooks']")
    signed_in.click("main [aria-label^='Switch off']")
    signed_in.until("document.querySelector('main li .badge').textContent === 'off'")
    signed_in.click("main .danger")
    signed_in.click("dialog [value=yes]")
    signed_in.sees("No webhooks yet")
    assert owner.get("webhooks")["results"] == []
    assert signed_in.errors() == []


def test_what_a_receiver_answers_is_shown_as_text(signed_in: Page, owner: Owner, site: Site) -> None:
    made = site.call("POST", "/api/v1/webhooks", {"url": ADDRESS}, owner.token)[1]
    site.call("POST", f"/api/v1/webhooks/{made['id']}/test", None, owner.token)
    said_by_receiver(owner, {"at": "", "status": None, "duration_ms": 1.0, "error": "<img src=x onerror=alert(1)>"})
    signed_in.js("location.hash = arguments[0]", f"#/webhooks/{made['id']}")
    signed_in.sees("<img src=x", "main .rows")
    assert signed_in.js("return document.querySelectorAll('main img').length") == 0


def test_somebody_elses_webhook_is_not_there(signed_in: Page, site: Site) -> None:
    other = site.owner("webhook-owner")
    made = site.call("POST", "/api/v1/webhooks", {"url": ADDRESS}, other.token)[1]
    signed_in.js("location.hash = arguments[0]", f"#/webhooks/{made['id']}")
    signed_in.sees("This could not be loaded", "main")


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing_on_webhooks_and_their_deliveries(
    signed_in: Page, owner: Owner, site: Site, size: tuple[int, int]
) -> None:
    made = site.call("POST", "/api/v1/webhooks", {"url": f"{ADDRESS}/{'long-' * 40}"}, owner.token)[1]
    site.call("POST", f"/api/v1/webhooks/{made['id']}/test", None, owner.token)
    wrong = {}
    for place, sees in (("account", "Delete my account"), ("webhooks", ADDRESS), (f"webhooks/{made['id']}", "pending")):
        signed_in.js("location.hash = arguments[0]", f"#/{place}")
        signed_in.sees(sees, "main")
        for dark in (False, True):
            signed_in.emulate(size, dark=dark)
            wrong[f"{place} {dark}"] = signed_in.found_by_axe()
            assert signed_in.js("return document.documentElement.scrollWidth <= innerWidth"), f"{place} is too wide"
    assert {place: found for place, found in wrong.items() if found} == {}


def test_the_export_is_a_whole_file(signed_in: Page, owner: Owner, tmp_path: Path) -> None:
    owner.submit("mine")
    where = {"behavior": "allow", "downloadPath": str(tmp_path)}
    signed_in.browser.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    signed_in.go("account")
    signed_in.until("[...document.querySelectorAll('main button')].find((one) => one.textContent === 'Export my data')")
    signed_in.js(
        "[...document.querySelectorAll('main button')].find((one) => one.textContent.startsWith('Exp')).click()"
    )
    signed_in.sees("Your data is exported.")
    until((tmp_path / "export.jsonl").exists, 20, lambda: list(tmp_path.iterdir()))
    lines = [json.loads(line) for line in (tmp_path / "export.jsonl").read_text().splitlines()]
    assert lines[-1] == {"record": "end", "records": len(lines) - 1}
    assert "mine" in [line.get("payload") for line in lines]


def test_an_account_is_deleted_by_its_password_alone(signed_in: Page, owner: Owner, site: Site) -> None:
    signed_in.go("account")
    for password in ("not-the-one", PASSWORD):
        signed_in.until("[...document.querySelectorAll('label')].some((one) => one.textContent === 'Your password')")
        signed_in.fill("Your password", password)
        signed_in.click("form .danger")
        signed_in.click("dialog [value=yes]")
        if password != PASSWORD:
            signed_in.sees("This is not your password.", "form .error:not([hidden])")
    signed_in.sees("Your account is deleted.")
    signed_in.until("document.querySelector('.way-in')")
    signed_in.until("localStorage.getItem('session') === null")
    assert site.call("GET", "/api/v1/auth/me", token=owner.token)[0] == 401
    signed_in.open().until("document.querySelector('.way-in')")
    assert signed_in.errors() == []
