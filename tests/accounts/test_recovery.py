"""By mail a user confirms an address or gets back in; who asks learns nothing about who exists."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
from django.core import signing
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.audit import SecurityEvent
from accounts.mail import links as mail_tokens
from accounts.mail.links import RESET, VERIFY
from accounts.mail.outbox import Mail
from accounts.models import Session, User
from project.web import rate_limit
from project.web.rate_limit import Limit
from tests.accounts.mails import delivered, links_in, mailed_tokens, token_of
from tests.accounts.people import PASSWORD, Api, at_once, make_user, named

NEW = "another-four-random-words"
INVALID = [("token", "invalid")]


@pytest.fixture
def ada(db: None) -> User:
    return make_user(username="ada", email="ada@example.com")


def confirm(token: str, password: str = NEW) -> Any:
    return Api().post("auth/password-reset/confirm", {"token": token, "new_password": password})


def reset_token(api: Api, address: str = "ada@example.com") -> str:
    assert api.post("auth/password-reset", {"email": address}).status_code == 202
    (token,) = mailed_tokens()
    return token


def test_who_registers_with_an_address_confirms_it_by_the_link(anyone: Api) -> None:
    body = {"username": "ada", "password": PASSWORD, "email": "ada@example.com"}
    assert anyone.post("auth/register", body).status_code == 201
    (message,) = delivered()
    assert message.to == ["ada@example.com"]
    (link,) = links_in(message.body)
    assert link.startswith("http://127.0.0.1:8000/account/verify-email?token=")
    page = anyone.get(link.removeprefix("http://127.0.0.1:8000"))
    assert page.status_code == 200
    mine = Api.of(ada := User.objects.get())
    told = {"email": "ada@example.com", "confirmed": False}
    assert mine.get("auth/me/email").json() == told, "a scanner of mail that opens the link spends nothing"
    token = link.partition("token=")[2].replace("%3A", ":")
    assert anyone.post("auth/verify-email", {"token": token}).status_code == 204
    assert mine.get("auth/me/email").json() == told | {"confirmed": True}
    assert set(mine.get("auth/me").json()) == {"id", "username", "email", "created_at"}
    User.objects.filter(id=ada.id).update(email="other@example.com")
    assert mine.get("auth/me/email").json()["confirmed"] is False, "another address is another mailbox"
    again = anyone.post("auth/verify-email", {"token": token})
    assert (again.status_code, named(again)) == (400, INVALID)
    assert list(SecurityEvent.objects.order_by("id").values_list("event", flat=True)) == [
        "registered", "verification_mailed", "email_verified",
    ]  # fmt: skip


def test_another_link_is_mailed_until_the_address_is_confirmed(ada: User, anyone: Api) -> None:
    ask = {"email": "ADA@example.com"}
    assert anyone.post("auth/verify-email", ask).status_code == 202
    (token,) = mailed_tokens()
    assert anyone.post("auth/verify-email", {"token": token}).status_code == 204
    assert anyone.post("auth/verify-email", ask).status_code == 202
    assert delivered() == []


def test_a_changed_address_is_not_a_confirmed_one(ada: User, anyone: Api) -> None:
    token = VERIFY.make(ada)
    anyone.post("auth/verify-email", {"token": token})
    User.objects.filter(id=ada.id).update(email="eve@example.com")
    assert not User.objects.get(id=ada.id).email_verified


def test_a_new_password_is_set_by_the_link_and_ends_every_session(ada: User, anyone: Api) -> None:
    sessions = [Api.of(ada), Api.of(ada)]
    token = reset_token(anyone)
    assert confirm(token).status_code == 204
    assert [api.get("auth/me").status_code for api in sessions] == [401, 401]
    assert anyone.post("auth/token", {"username": "ada", "password": PASSWORD}).status_code == 401
    assert anyone.post("auth/token", {"username": "ada", "password": NEW}).status_code == 200
    assert User.objects.get(id=ada.id).email_verified, "who opened the mail has the address"
    trail = list(SecurityEvent.objects.filter(user_id=ada.id).order_by("id").values_list("event", flat=True))
    assert trail[:2] == ["reset_mailed", "password_reset"]


def test_a_link_is_good_for_one_password(ada: User, anyone: Api) -> None:
    token = reset_token(anyone)
    assert confirm(token).status_code == 204
    again = confirm(token, PASSWORD)
    assert (again.status_code, named(again)) == (400, INVALID)


@pytest.mark.django_db(transaction=True)
def test_of_many_who_use_a_link_at_once_one_sets_the_password() -> None:
    token = RESET.make(make_user(email="ada@example.com"))
    answers = at_once(3, lambda n: confirm(token, f"{NEW}-{n}"))
    assert sorted(answer.status_code for answer in answers) == [204, 400, 400]


def test_a_weak_password_is_named_and_spends_nothing(ada: User, anyone: Api) -> None:
    token = reset_token(anyone)
    weak = confirm(token, "ada@example")
    assert (weak.status_code, named(weak)) == (400, [("new_password", "password_too_similar")])
    assert confirm(token).status_code == 204


def changes_password(user: User) -> None:
    api = Api.of(user)
    assert api.post("auth/password", {"current_password": PASSWORD, "new_password": NEW}).status_code == 204


def is_deactivated(user: User) -> None:
    User.objects.filter(id=user.id).update(is_active=False)


def changes_address(user: User) -> None:
    User.objects.filter(id=user.id).update(email="new@example.com")


def is_gone(user: User) -> None:
    user.delete()


@pytest.mark.parametrize("what", [changes_password, is_deactivated, changes_address, is_gone])
@pytest.mark.parametrize("purpose", ["reset", "verify"])
def test_a_link_is_worth_nothing_after(ada: User, anyone: Api, what: Callable[[User], None], purpose: str) -> None:
    token = (RESET if purpose == "reset" else VERIFY).make(ada)
    what(User.objects.get(id=ada.id))
    answer = confirm(token, PASSWORD) if purpose == "reset" else anyone.post("auth/verify-email", {"token": token})
    assert (answer.status_code, named(answer)) == (400, INVALID)


def test_a_link_expires(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token = RESET.make(ada)
    now = time.time()
    monkeypatch.setattr(signing.time, "time", lambda: now + RESET.seconds + 1)
    assert named(confirm(token)) == INVALID
    monkeypatch.setattr(signing.time, "time", lambda: now + RESET.seconds - 1)
    assert confirm(token).status_code == 204


def test_a_forged_or_borrowed_token_is_refused(ada: User, anyone: Api) -> None:
    mine, signed = RESET.make(ada), signing.dumps([ada.id.hex, "0" * 32], salt=RESET.salt)
    for token in (mine[:-1], "x" + mine, VERIFY.make(ada), signed, Session.open(ada).access, "é", "::", mine[:500]):
        if token != mine:
            assert named(confirm(token)) == INVALID, token
    assert named(anyone.post("auth/verify-email", {"token": mine})) == INVALID


@pytest.mark.parametrize("body", [{}, {"token": "x", "email": "ada@example.com"}])
def test_a_verification_takes_one_of_both(anyone: Api, body: Any) -> None:
    assert named(anyone.post("auth/verify-email", body)) == [("", "one_of")]


@pytest.mark.parametrize("route", ["auth/password-reset", "auth/verify-email"])
def test_the_known_and_the_unknown_get_the_same_answer_for_the_same_statements(ada: User, route: str) -> None:
    seen = []
    for number, address in enumerate(("ada@example.com", "nobody@example.com")):
        environ = {"HTTP_X_REQUEST_ID": "same", "REMOTE_ADDR": f"192.0.2.{number}"}
        with CaptureQueriesContext(connection) as queries:
            answer = Api().post(route, {"email": address}, **environ)
        statements = [query["sql"].replace(address, "address") for query in queries]
        seen.append((answer.status_code, dict(answer.items()), answer.content, [s[:60] for s in statements]))
    assert seen[0] == seen[1]
    assert seen[0][0] == 202


def test_the_known_and_the_unknown_take_the_same_time(ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAILS", Limit("mails", 10**6, window=3600))
    monkeypatch.setattr(rate_limit, "ACCOUNT_CALLS", Limit("account-calls", 10**6))
    api = Api()

    def apart() -> float:
        took: dict[str, list[float]] = {"ada@example.com": [], "eve@example.com": []}
        for number in range(60):
            for address in sorted(took, reverse=bool(number % 2)):
                began = time.perf_counter()
                api.post("auth/password-reset", {"email": address})
                took[address].append(time.perf_counter() - began)
        known, unknown = map(median, took.values())
        return abs(known - unknown) / min(known, unknown)

    assert any(apart() < 0.25 for _ in range(4))


def test_nobody_is_written_to_who_has_no_account_or_none_to_open(ada: User, anyone: Api) -> None:
    make_user(email="idle@example.com", is_active=False)
    make_user(email="keyless@example.com", password="!")
    for address in ("nobody@example.com", "idle@example.com", "keyless@example.com"):
        assert anyone.post("auth/password-reset", {"email": address}).status_code == 202
    assert delivered() == []
    assert Mail.objects.count() == 0


def test_accounts_that_share_an_address_each_get_a_link_in_one_mail(ada: User, anyone: Api) -> None:
    make_user(username="ada-too", email="Ada@Example.com")
    anyone.post("auth/password-reset", {"email": "ada@example.com"})
    (message,) = delivered()
    assert len(links_in(message.body)) == 2


@pytest.mark.parametrize("route", ["auth/password-reset", "auth/verify-email"])
@pytest.mark.parametrize("asked", ["mi\u212ae@example.com", "mike@example.com"])
def test_a_link_goes_to_the_stored_address_alone(route: str, asked: str, anyone: Api) -> None:
    """In lower case, the Kelvin sign is a k: the one address looks like the other, and is somebody else's."""
    for email in ("mi\u212ae@example.com", "mike@example.com"):
        make_user(email=email)
    anyone.post(route, {"email": asked.replace("mi", "MI")})
    (message,) = delivered()
    assert message.to == [asked]
    (link,) = links_in(message.body)
    purpose = RESET if route.endswith("reset") else VERIFY
    assert purpose.read(token_of(link)).email == asked


@pytest.mark.django_db(transaction=True)
def test_of_many_who_ask_at_once_no_more_than_the_limit_are_mailed(monkeypatch: pytest.MonkeyPatch) -> None:
    make_user(email="ada@example.com")
    monkeypatch.setattr(rate_limit, "MAILS", Limit("mails", 3, window=3600))
    ask = {"email": "ada@example.com"}
    answers = at_once(12, lambda n: Api().post("auth/password-reset", ask, REMOTE_ADDR=f"192.0.2.{n}"))
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [429] * 9
    assert all("Retry-After" in answer for answer in answers if answer.status_code == 429)
    assert len(delivered()) == 3


def test_registering_with_somebodys_address_fills_no_mailbox(anyone: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAILS", Limit("mails", 2, window=3600))
    for number in range(4):
        body = {"username": f"ada-{number}", "password": PASSWORD, "email": "ada@example.com"}
        assert anyone.post("auth/register", body).status_code == 201
    assert len(delivered()) == 2


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("auth/verify-email", {"token": "x"}),
        ("auth/verify-email", {"email": "{n}@example.com"}),
        ("auth/password-reset", {"email": "{n}@example.com"}),
        ("auth/password-reset/confirm", {"token": "x", "new_password": NEW}),
    ],
)
def test_calls_from_one_address_are_limited(
    anyone: Api, monkeypatch: pytest.MonkeyPatch, route: str, body: dict[str, str]
) -> None:
    monkeypatch.setattr(rate_limit, "ACCOUNT_CALLS", Limit("account-calls", 2))
    answers = [
        anyone.post(route, {name: value.format(n=number) for name, value in body.items()}) for number in range(3)
    ]
    assert [answer.status_code == 429 for answer in answers] == [False, False, True]


def test_without_a_mail_server_it_says_so_to_everybody(ada: User, anyone: Api, settings: Any) -> None:
    settings.MAIL = {}
    for address in ("ada@example.com", "nobody@example.com"):
        answer = anyone.post("auth/password-reset", {"email": address})
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/mail-off")
    body = {"username": "bob", "password": PASSWORD, "email": "bob@example.com"}
    assert anyone.post("auth/register", body).status_code == 201
    assert Mail.objects.count() == 0


def test_no_token_lies_in_the_database(ada: User, anyone: Api) -> None:
    anyone.post("auth/password-reset", {"email": "ada@example.com"})
    row = str(Mail.objects.values().get())
    assert "token" not in row
    assert mail_tokens.RESET.state(ada) not in row
