"""Who is signed in on the page, over reloads, in several tabs, and against other origins."""

import pytest

from tests.accounts.people import PASSWORD
from tests.page.eyes import Page
from tests.page.site import Owner, Site

pytestmark = pytest.mark.django_db  # for its tables

API = "import('/static/page/session.js')"
# Every call finds its access token too old, and refreshes: ten in each tab, all at once.
REFRESH = f"""
    performance.now = ((n) => () => n += 1e9)(1e9);
    window.calls = {API}.then(({{ api }}) =>
            Promise.all(Array.from({{ length: 10 }}, () => api("GET", "/api/v1/auth/me"))))
        .then((answers) => answers.map((one) => one.status), (error) => [String(error)]);
"""


def test_a_reload_stays_signed_in_and_nothing_that_scripts_can_read_opens_anything(
    signed_in: Page, owner: Owner
) -> None:
    signed_in.open().live()
    kept = signed_in.js("return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert "eyJ" not in kept
    (cookie,) = signed_in.browser.execute_cdp_cmd("Network.getAllCookies", {})["cookies"]
    assert (cookie["name"], cookie["path"]) == ("refresh", "/api/v1/auth/")
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Strict")
    assert signed_in.errors() == []


def test_tabs_that_refresh_at_once_never_sign_each_other_out(signed_in: Page) -> None:
    other = signed_in.new_tab().open().live()
    for tab in (signed_in, other):
        tab.front().js(REFRESH)
    for tab in (signed_in, other):
        assert tab.front().later("window.calls") == [200] * 10
    assert signed_in.front().open().live().errors() == []


def test_a_refresh_whose_answer_was_lost_is_repeated(signed_in: Page) -> None:
    lost = f"""{API}.then(async ({{ api }}) => {{
        const real = window.fetch;
        performance.now = () => 1e12;
        window.fetch = async (path, ...rest) => {{
            await real(path, ...rest);
            throw new TypeError("lost");
        }};
        const key = await api("GET", "/api/v1/auth/me").catch(() => localStorage.getItem("refresh-key"));
        window.fetch = real;
        const {{ status }} = await api("GET", "/api/v1/auth/me");
        return [Boolean(key), status, localStorage.getItem("refresh-key")];
    }})"""
    assert signed_in.later(lost) == [True, 200, None]


def test_signing_out_in_one_tab_signs_out_the_other(signed_in: Page) -> None:
    other = signed_in.new_tab().open("/#/account").live()
    other.click("main .card .button.quiet")
    other.until("document.querySelector('.way-in')")
    signed_in.front().sees("Your session has ended. Sign in again.")
    signed_in.open().sees("Sign in")


def test_nobody_is_told_that_sessions_have_ended_which_live(signed_in: Page) -> None:
    refused = """window.real = window.fetch;
        window.fetch = (path, ...rest) => path.includes("/logout")
            ? Promise.resolve(new Response('{"detail": "Not now."}', { status: 503 })) : window.real(path, ...rest)"""
    signed_in.go("account")
    signed_in.js(refused)
    for told, css in enumerate(("main .card .button.quiet", "main .button.danger"), 1):
        signed_in.click(css)
        signed_in.until(f"document.querySelectorAll('#said .bad').length === {told}")
        assert signed_in.js("return Boolean(localStorage.getItem('session'))")
    signed_in.js("window.fetch = window.real")
    signed_in.click("main .button.danger")
    signed_in.sees("You are signed out everywhere.")


def test_a_session_that_is_ended_elsewhere_leads_back_to_the_way_in(signed_in: Page, owner: Owner) -> None:
    assert owner.post("auth/logout-all") is None
    signed_in.sees("Your session has ended. Sign in again.")


def test_sessions_are_listed_and_ended_and_the_password_is_changed(signed_in: Page, owner: Owner, site: Site) -> None:
    signed_in.go("account")
    signed_in.until("document.querySelectorAll('main .row').length === 2")
    signed_in.sees("this one")
    signed_in.click("main .row .button")
    signed_in.sees("That session has ended.")
    assert site.call("GET", "/api/v1/auth/me", token=owner.token)[0] == 401
    signed_in.fill("Current password", "not the one")
    signed_in.fill("New password", f"{PASSWORD}-and-more")
    signed_in.click("form [type=submit]")
    signed_in.sees("This is not your password.", "form .error:not([hidden])")
    signed_in.fill("Current password", PASSWORD)
    signed_in.click("form [type=submit]")
    signed_in.sees("Your password is changed.")
    body = {"username": owner.name, "password": f"{PASSWORD}-and-more"}
    assert site.call("POST", "/api/v1/auth/token", body)[0] == 200


def test_a_wrong_password_is_told_and_lets_nobody_in(page: Page, owner: Owner) -> None:
    page.open()
    page.type("[name=username]", owner.name)
    page.type("[name=password]", "wrong-password-here")
    page.click(".way-in [type=submit]")
    page.sees("Wrong username or password.", ".way-in")
    assert page.js("return localStorage.length") == 0


def test_a_script_of_another_origin_gets_neither_the_cookie_nor_a_token(signed_in: Page, site: Site) -> None:
    stranger = signed_in.new_tab(site.origin.replace("127.0.0.1", "localhost")).open("/health/live")
    refresh = f"{site.origin}/api/v1/auth/token/refresh"
    ask = "fetch(arguments[0], { method: 'POST', credentials: 'include', headers: arguments[1] }).then((a) => a.text())"
    asked = {"Accept-Session": "cookie", "X-Requested-With": "x"}
    assert "Failed to fetch" in stranger.later(ask, refresh, asked)
    assert "Failed to fetch" in stranger.later(ask, refresh, {})
    assert stranger.js("return document.cookie + localStorage.length") == "0"
    assert len(stranger.errors()) == 2  # the browser says why: no Access-Control-Allow-Origin
    assert signed_in.front().open().live().errors() == []  # its session was not touched
