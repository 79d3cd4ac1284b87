"""One service for all tests of the page, and a browser that starts each test signed out."""

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

import pytest
from django.core.management import call_command

from tests.page.eyes import Page
from tests.page.site import Owner, Site

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

_numbers = count(1)


@pytest.fixture(scope="package")
def site(django_db_setup: None, django_db_blocker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with (tmp_path_factory.mktemp("page") / "log").open("wb") as log:
        site = Site(log)
        try:
            site.wait()
            yield site
        finally:
            site.stop()
    with django_db_blocker.unblock():  # type: ignore[attr-defined]
        call_command("flush", verbosity=0, interactive=False)  # and make the content types again


@pytest.fixture
def owner(site: Site, db: None) -> Owner:
    return site.owner(f"reader-{next(_numbers)}")


@pytest.fixture
def page(browser: "WebDriver", site: Site) -> Iterator[Page]:
    """The first tab; the others are closed afterwards, and what the browser kept is forgotten."""
    page = Page(browser, site.origin)
    page.emulate()
    browser.set_script_timeout(30)
    browser.get_log("browser")  # what earlier tests left there
    yield page
    for tab in browser.window_handles:
        if tab != page.tab:
            browser.switch_to.window(tab)
            browser.close()
    page.front().network(on=True)
    for origin in (site.origin, site.origin.replace("127.0.0.1", "localhost")):
        browser.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
    browser.get("about:blank")


@pytest.fixture
def signed_in(page: Page, owner: Owner) -> Page:
    """Signed in an instant ago: no password is hashed for it."""
    return page.enter(owner)
