"""What the page does when the connection or the server goes away, and comes back."""

import pytest

from tests.page.eyes import Page
from tests.page.site import Owner, Site

pytestmark = pytest.mark.django_db  # for its tables

WATCH = """
    const real = window.fetch;
    window.resumed = [];
    window.fetch = (path, options) => {
        if (path.endsWith("/events")) window.resumed.push(options.headers["Last-Event-ID"]);
        return real(path, options);
    };
"""


def test_a_connection_that_was_lost_goes_on_where_it_was(signed_in: Page, owner: Owner) -> None:
    owner.submit({"steps": 400, "delay_ms": 50}, kind="demo.steps")
    signed_in.sees("of 400", ".running")
    signed_in.js(WATCH)
    signed_in.network(on=False)
    signed_in.sees("You are offline.", "#trouble")
    assert signed_in.found_by_axe() == []
    owner.submit(*range(5))
    signed_in.network(on=True)
    signed_in.live().sees("Waiting (5)")
    assert signed_in.texts("#waiting .what a") == [f"demo.echo #{n}" for n in range(2, 7)]
    assert not signed_in.js("return document.querySelector('#trouble').checkVisibility()")
    assert all(signed_in.js("return window.resumed"))
    owner.post(f"requests/{owner.get('queue')['running']}/cancel")
    signed_in.sees("Idle", "#state")
    assert signed_in.errors() == []


def test_a_server_that_is_restarted_is_found_again(signed_in: Page, owner: Owner, site: Site) -> None:
    site.stop("api")
    signed_in.sees("The connection is lost.", "#trouble")
    signed_in.sees("Reconnecting", "#connection")
    signed_in.choose("Kind", "demo.echo")
    signed_in.fill("Payload", "7")
    signed_in.click(".new [type=submit]")
    signed_in.sees("The service cannot be reached.", ".new [role=alert]")
    assert signed_in.found_by_axe() == []
    site.restart("api")
    site.wait()
    signed_in.click("#trouble .button")
    signed_in.live()
    signed_in.click(".new [type=submit]")  # the same key: it is asked for once, whatever became of the first
    signed_in.sees("succeeded", ".row.over")
    assert len(owner.get("requests")["results"]) == 1
    assert signed_in.errors() == []


def test_a_page_that_cannot_load_says_so_and_tries_again(signed_in: Page) -> None:
    page = signed_in
    page.js("window.real = window.fetch; window.fetch = () => Promise.reject(new TypeError('away'))")
    page.go("history")
    page.sees("This could not be loaded")
    assert page.found_by_axe() == []
    page.js("window.fetch = window.real")
    page.click(".failed .button")
    page.sees("There is nothing here.")
