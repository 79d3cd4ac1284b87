"""The pages that mailed links lead to: they work without scripts, and opening one changes nothing."""

import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from accounts.mail.links import RESET, VERIFY
from accounts.models import User
from project.web import rate_limit
from project.web.rate_limit import Limit
from tests.accounts.mails import delivered, mailed_tokens
from tests.accounts.people import PASSWORD, Api, make_user
from tests.client import Client

NEW = "another-four-random-words"


@pytest.fixture
def ada(db: None) -> User:
    return make_user(username="ada", email="ada@example.com")


def post(page: str, **form: str) -> Any:
    answer = Client(enforce_csrf_checks=True).post(f"/account/{page}", form)
    assert answer.status_code == 200
    return answer.content.decode()


def hidden(page: str) -> str:
    return re.findall(r'name="token" value="([^"]*)"', page)[0]


@pytest.mark.parametrize("page", ["verify-email", "password-reset", "password-reset/confirm"])
def test_a_page_runs_no_script_and_passes_its_address_to_nobody(ada: User, page: str) -> None:
    answer = Client().get(f"/account/{page}?token={RESET.make(ada)}")
    assert answer.status_code == 200
    assert "default-src 'none'" in answer["Content-Security-Policy"]
    assert "form-action 'self'" in answer["Content-Security-Policy"]
    assert (answer["Referrer-Policy"], answer["Cache-Control"]) == ("no-referrer", "no-store")
    assert not re.search(r"<script|\son\w+=|style=", answer.content.decode())
    assert len(answer.cookies) == 0


def test_an_address_is_confirmed_by_the_button(ada: User) -> None:
    page = Client().get(f"/account/verify-email?token={VERIFY.make(ada)}").content.decode()
    assert not User.objects.get(id=ada.id).email_verified
    assert "is confirmed" in post("verify-email", token=hidden(page))
    assert User.objects.get(id=ada.id).email_verified
    assert "was used, has expired" in post("verify-email", token=hidden(page))


def test_another_link_is_mailed_until_the_address_is_confirmed(ada: User) -> None:
    assert 'href="/account/verify-email"' in post("verify-email", token="spent")
    assert 'name="email"' in Client().get("/account/verify-email").content.decode()
    assert 'name="email"' in post("verify-email", email="no address")
    assert "on its way" in post("verify-email", email="ada@example.com")
    (token,) = mailed_tokens()
    assert "is confirmed" in post("verify-email", token=token)
    assert "on its way" in post("verify-email", email="ada@example.com")
    assert delivered() == []


def test_a_password_is_asked_for_and_set(ada: User) -> None:
    assert "If an account has this address" in post("password-reset", email="ada@example.com")
    assert len(delivered()) == 1
    page = Client().get(f"/account/password-reset/confirm?token={RESET.make(ada)}").content.decode()
    weak = post("password-reset/confirm", token=hidden(page), new_password="12345678")
    assert "too common" in weak
    assert "has a new password" in post("password-reset/confirm", token=hidden(weak), new_password=NEW)
    assert Api().post("auth/token", {"username": "ada", "password": NEW}).status_code == 200
    assert "Ask for another link" in post("password-reset/confirm", token=hidden(weak), new_password=PASSWORD)


def test_the_page_says_the_same_of_who_is_not_there(ada: User) -> None:
    assert post("password-reset", email="ada@example.com") == post("password-reset", email="eve@example.com")


@pytest.mark.parametrize(
    ("page", "form"),
    [
        ("verify-email", {}),
        ("verify-email", {"token": "<script>"}),
        ("verify-email", {"token": "a\0b"}),
        ("password-reset", {"email": "no address"}),
        ("password-reset", {}),
        ("password-reset/confirm", {"token": "x"}),
        ("password-reset/confirm", {"token": "x" * 5000, "new_password": NEW}),
    ],
)
def test_what_does_not_fit_is_said_on_the_page(db: None, page: str, form: dict[str, str]) -> None:
    shown = post(page, **form)
    assert 'role="alert"' in shown
    assert "<script" not in shown


def test_a_page_is_limited_as_the_api(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "ACCOUNT_CALLS", Limit("account-calls", 1))
    assert "on its way" in post("password-reset", email="ada@example.com")
    assert "Too many requests" in post("password-reset", email="eve@example.com")


@pytest.mark.parametrize("page", ["verify-email", "password-reset", "password-reset/confirm"])
def test_a_form_that_is_too_large_is_not_read(db: None, page: str, settings: Any) -> None:
    files = {"email": "ada@example.com", "file": SimpleUploadedFile("f", b"x" * settings.BODY_LIMIT)}
    for large in (files, {"email": "x" * settings.BODY_LIMIT}):
        answer = Client().post(f"/account/{page}", large)
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/body-too-large")


def test_other_methods_are_refused(db: None) -> None:
    answer = Client().delete("/account/verify-email")
    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD, POST")
