"""The refresh token in a cookie: no script reads it, no other site uses it, and it is spent like any other."""

from typing import Any

import pytest
from django.test import override_settings

from accounts.models import User
from accounts.tokens import read_refresh
from tests.accounts.people import PASSWORD, Api

BROWSER = {"HTTP_ACCEPT_SESSION": "cookie", "HTTP_X_REQUESTED_WITH": "tests"}
CALLS = [
    ("auth/token", {"username": "ada", "password": PASSWORD}),
    ("auth/token/refresh", None),
    ("auth/logout", None),
]


def log_in(user: User) -> tuple[Api, Any]:
    """A browser that has logged in, and the answer."""
    browser = Api()
    return browser, browser.post("auth/token", {"username": user.username, "password": PASSWORD}, **BROWSER)


def test_the_refresh_token_goes_into_a_cookie_that_no_script_and_no_other_site_gets(user: User) -> None:
    _, answer = log_in(user)
    assert set(answer.json()) == {"access"}
    cookie = answer.cookies["refresh"]
    assert (cookie["httponly"], cookie["secure"], cookie["samesite"]) == (True, True, "Strict")
    assert cookie["path"] == "/api/v1/auth/"
    assert cookie["max-age"] > 86400
    assert read_refresh(cookie.value).user_id == user.id


def test_a_refresh_takes_the_cookie_and_gives_the_next_one(user: User) -> None:
    browser, first = log_in(user)
    second = browser.post("auth/token/refresh", **BROWSER)
    assert set(second.json()) == {"access"}
    assert second.cookies["refresh"].value != first.cookies["refresh"].value
    assert browser.get("auth/me", HTTP_AUTHORIZATION=f"Bearer {second.json()['access']}").status_code == 200
    assert browser.post("auth/token/refresh", **BROWSER).status_code == 200


def test_a_spent_cookie_ends_its_session_unless_the_same_refresh_is_repeated(user: User) -> None:
    browser, first = log_in(user)
    spent = first.cookies["refresh"].value
    again = []
    for _ in range(2):  # the answer to the first was lost: the browser still has the old cookie
        browser.client.cookies["refresh"] = spent
        again.append(browser.post("auth/token/refresh", HTTP_IDEMPOTENCY_KEY="one", **BROWSER))
    assert [answer.status_code for answer in again] == [200, 200]
    browser.client.cookies["refresh"] = spent
    assert browser.post("auth/token/refresh", HTTP_IDEMPOTENCY_KEY="other", **BROWSER).status_code == 401
    assert Api().get("auth/me", HTTP_AUTHORIZATION=f"Bearer {again[1].json()['access']}").status_code == 401


def test_logout_ends_the_session_of_the_cookie_and_takes_it_away(user: User) -> None:
    browser, first = log_in(user)
    left = browser.post("auth/logout", **BROWSER)
    assert (left.status_code, left.cookies["refresh"].value, left.cookies["refresh"]["max-age"]) == (204, "", 0)
    assert Api().get("auth/me", HTTP_AUTHORIZATION=f"Bearer {first.json()['access']}").status_code == 401


@pytest.mark.parametrize(("path", "body"), CALLS)
@pytest.mark.parametrize(
    ("missing", "found"),
    [({"HTTP_X_REQUESTED_WITH": ""}, {}), ({}, {"HTTP_SEC_FETCH_SITE": "same-site"})],
    ids=["no X-Requested-With", "a neighbour's page"],
)
def test_what_another_site_can_make_a_browser_send_is_refused(
    user: User, path: str, body: Any, missing: dict[str, str], found: dict[str, str]
) -> None:
    browser, _ = log_in(user)
    refused = browser.post(path, body, **(BROWSER | missing | found))
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/forbidden")
    assert "refresh" not in refused.cookies
    assert browser.post("auth/token/refresh", **BROWSER).status_code == 200  # nothing was spent or ended


def test_the_cookie_alone_is_never_looked_at(user: User) -> None:
    browser, _ = log_in(user)
    assert browser.post("auth/token/refresh", {}).status_code == 400
    assert browser.get("auth/me").status_code == 401
    assert browser.get("auth/sessions", **BROWSER).status_code == 401


@override_settings(CORS_ALLOWED_ORIGINS=["https://friend.example"])
def test_a_script_of_an_allowed_origin_may_not_ask_for_the_cookie(db: None) -> None:
    allowed = Api().send(
        "OPTIONS",
        "auth/token/refresh",
        None,
        HTTP_ORIGIN="https://friend.example",
        HTTP_ACCESS_CONTROL_REQUEST_METHOD="POST",
        HTTP_ACCESS_CONTROL_REQUEST_HEADERS="accept-session,x-requested-with",
    )
    names = allowed["Access-Control-Allow-Headers"].lower()
    assert "x-requested-with" not in names
    assert "accept-session" not in names
    assert "Access-Control-Allow-Credentials" not in allowed


def test_without_a_cookie_there_is_no_session(anyone: Api) -> None:
    for path in ("auth/token/refresh", "auth/logout"):
        refused = anyone.post(path, **BROWSER)
        assert (refused.status_code, refused.json()["type"]) == (401, "/problems/not-authenticated")


def test_an_accept_session_that_is_not_known_is_named(anyone: Api) -> None:
    refused = anyone.post("auth/token", {"username": "a", "password": "b"}, HTTP_ACCEPT_SESSION="header")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "Accept-Session")
