"""Operators find and manage users, on a million rows as on ten, under the same limits as everyone."""

from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from django.core.management import call_command
from django.test.utils import CaptureQueriesContext

from accounts import admin as accounts_admin
from accounts.models import User
from project.admin import base as project_admin
from project.web import rate_limit
from project.web.rate_limit import Limit
from tests.accounts.people import PASSWORD, Api, make_user
from tests.client import Client
from tests.staff import confirm


@pytest.fixture
def operator(db: None) -> Client:
    user = make_user(username="operator", is_staff=True, is_superuser=True)
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


@pytest.mark.parametrize("by", ["name", "NAME", "beginning", "id", "email"])
def test_users_are_found_by_name_beginning_id_and_address(operator: Client, by: str) -> None:
    bob = make_user(username="bob-the-builder", email="bob@example.com")
    term = {
        "name": "bob-the-builder",
        "NAME": "BOB-THE-BUILDER",
        "beginning": "bob-the",
        "id": str(bob.id),
        "email": "BOB@example.com",
    }[by]
    page = operator.get("/admin/accounts/user/", {"q": term}).content.decode()
    assert "bob-the-builder" in page
    assert ">operator</a>" not in page


def test_a_name_is_found_among_however_many_that_begin_with_it(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts_admin.UserAdmin, "most_found", 2)
    for name in ("bob-1", "bob-2", "bob-3", "bob-4"):
        make_user(username=name)
    meant = make_user(username="bob")
    found = set(operator.get("/admin/accounts/user/", {"q": "bob"}).context["cl"].result_list)
    assert meant in found
    assert len(found) <= 3


def test_no_list_counts_a_whole_table(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import connection

    monkeypatch.setattr(project_admin, "COUNTED", 2)
    for _ in range(5):
        Api.of(make_user())
    for page in ("user", "session"):
        with CaptureQueriesContext(connection) as queries:
            assert operator.get(f"/admin/accounts/{page}/").status_code == 200
        counts = [query["sql"] for query in queries if "COUNT(" in query["sql"]]
        assert counts
        assert all("LIMIT 3" in sql for sql in counts), counts


def test_an_operator_ends_sessions_and_changes_users(operator: Client) -> None:
    api = Api.of(bob := make_user())
    data = {"action": "end_sessions", "_selected_action": [str(bob.id)]}
    for unconfirmed in (data, {**data, "confirmed": "yes", "reason": " "}):
        assert "They are logged out everywhere" in operator.post("/admin/accounts/user/", unconfirmed).content.decode()
        assert api.get("auth/me").status_code == 200
    assert confirm(operator, "/admin/accounts/user/", data, "lost").status_code == 302
    assert api.get("auth/me").status_code == 401
    for path in ("add/", f"{bob.id}/change/", f"{bob.id}/password/"):
        assert operator.get(f"/admin/accounts/user/{path}").status_code == 200
    form = {"username": "carol", "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
    assert operator.post("/admin/accounts/user/add/", form).status_code == 302
    form["username"] = "CAROL"
    again = operator.post("/admin/accounts/user/add/", form)
    assert b"already exists" in again.content


@pytest.mark.parametrize(
    ("email", "verified", "said"), [("a@b.c", "a@b.c", "yes"), ("a@b.c", "x@b.c", "no"), ("", "", "-")]
)
def test_it_is_said_whether_an_address_is_confirmed(operator: Client, email: str, verified: str, said: str) -> None:
    bob = make_user(email=email, verified_email=verified)
    page = operator.get(f"/admin/accounts/user/{bob.id}/change/").content.decode()
    assert f'<div class="readonly">{said}</div>' in page
    found = operator.get("/admin/accounts/user/", {"q": bob.username}).content.decode()
    assert f'<td class="field-email_confirmed">{said}</td>' in found


def test_users_are_not_deleted_by_hand(operator: Client) -> None:
    bob = make_user()
    assert operator.post(f"/admin/accounts/user/{bob.id}/delete/", {"post": "yes"}).status_code == 403
    operator.post("/admin/accounts/user/", {"action": "delete_selected", "_selected_action": [bob.id], "post": "yes"})
    assert User.objects.filter(id=bob.id).exists()


def test_sessions_are_not_written_by_hand(operator: Client) -> None:
    Api.of(bob := make_user())
    session = bob.sessions.get()
    assert operator.get(f"/admin/accounts/session/{session.id}/change/").status_code == 200
    for path in ("add/", f"{session.id}/delete/"):
        assert operator.get(f"/admin/accounts/session/{path}").status_code == 403
    assert operator.get("/admin/accounts/session/", {"q": bob.username}).status_code == 200


def admin_login(password: str, **environ: Any) -> Any:
    client = Client(raise_request_exception=False)
    return client.post("/admin/login/", {"username": "operator", "password": password}, **environ)


def test_the_login_form_is_limited_like_the_api(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    make_user(username="operator", is_staff=True, password=make_password(PASSWORD))
    monkeypatch.setattr(rate_limit, "FAILED_LOGINS", Limit("failed-logins", 2))
    for guess in ("guess", "guess"):
        assert b"Please enter the correct" in admin_login(guess).content
    assert admin_login(PASSWORD).status_code == 200
    assert admin_login(PASSWORD, REMOTE_ADDR="198.51.100.9").status_code == 302


def test_the_admin_keeps_its_csrf_check_and_its_html(db: None) -> None:
    client = Client(enforce_csrf_checks=True)
    answer = client.post("/admin/login/", {"username": "x", "password": "y"})
    assert (answer.status_code, answer["Content-Type"]) == (403, "text/html; charset=utf-8")


def test_admin_pages_run_no_inline_script(operator: Client) -> None:
    page = operator.get("/admin/accounts/user/")
    assert "default-src 'self'" in page["Content-Security-Policy"]
    assert b"<script>" not in page.content
    assert page["X-Frame-Options"] == "DENY"


def test_createsuperuser_makes_an_operator(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    call_command("createsuperuser", interactive=False, username="root", email="", verbosity=0)
    assert User.objects.get(username="root").is_superuser
