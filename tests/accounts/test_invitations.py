"""Who may register: anybody, nobody, or who was invited."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.invitations import Invitation
from accounts.models import Mail, User
from tests.accounts.mails import delivered
from tests.accounts.people import PASSWORD, Api, at_once, make_user, named
from tests.client import Client


def register(username: str = "ada", **more: Any) -> Any:
    return Api().post("auth/register", {"username": username, "password": PASSWORD, **more})


@pytest.fixture
def invited_only(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(settings.ENV, "registration", "invite")


@pytest.fixture
def operator(db: None) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(make_user(username="boss", is_staff=True, is_superuser=True))
    return client


def test_nobody_registers_where_it_is_closed(db: None, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(settings.ENV, "registration", "closed")
    make_user(username="ada")
    for answer in (register(), register("bob"), register(invitation=Invitation.objects.create().code)):
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/registration-closed")


def test_an_invitation_is_good_for_one(db: None, invited_only: None) -> None:
    code = Invitation.objects.create().code
    assert register(invitation=code).status_code == 201
    again = register("bob", invitation=code)
    assert (again.status_code, named(again)) == (400, [("invitation", "invalid")])
    assert Invitation.objects.get().used_by == User.objects.get(username="ada")


@pytest.mark.django_db(transaction=True)
def test_of_many_with_one_invitation_one_registers(invited_only: None) -> None:
    code = Invitation.objects.create().code
    answers = at_once(3, lambda n: register(f"user-of-{n}", invitation=code))
    assert sorted(answer.status_code for answer in answers) == [201, 400, 400]
    assert User.objects.count() == 1


@pytest.mark.parametrize("code", ["", "1", "1.", "x" * 100, "1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "é"])
def test_a_wrong_code_is_named_and_tells_nothing_of_names(db: None, invited_only: None, code: str) -> None:
    Invitation.objects.create()
    make_user(username="ada")
    for name in ("ada", "bob"):
        answer = register(name, invitation=code)
        assert (answer.status_code, named(answer)) == (400, [("invitation", "invalid" if code else "required")])


def test_a_name_that_is_taken_spends_no_invitation(db: None, invited_only: None) -> None:
    code = Invitation.objects.create().code
    make_user(username="ada")
    assert named(register(invitation=code)) == [("username", "unique")]
    assert register("bob", invitation=code).status_code == 201


def test_an_invitation_expires(db: None, invited_only: None) -> None:
    late = Invitation.objects.create(expires_at=timezone.now() - timedelta(seconds=1))
    assert named(register(invitation=late.code)) == [("invitation", "invalid")]


def test_an_invitation_of_an_address_is_for_that_address(db: None, invited_only: None) -> None:
    code = Invitation.objects.create(email="ada@example.com").code
    assert named(register(invitation=code, email="eve@example.com")) == [("invitation", "invalid")]
    assert named(register(invitation=code)) == [("invitation", "invalid")]
    assert register(invitation=code, email="ADA@example.com").status_code == 201


def test_a_code_is_not_looked_at_where_anybody_may_register(db: None) -> None:
    assert register(invitation="anything").status_code == 201


def test_an_operator_makes_an_invitation_and_it_is_mailed(operator: Client, invited_only: None) -> None:
    form = {"email": "ada@example.com", "note": "Ada", "expires_at_0": "2099-01-01", "expires_at_1": "00:00"}
    page = operator.post("/admin/accounts/invitation/add/", form, follow=True).content.decode()
    made = Invitation.objects.get()
    assert made.code in page
    assert made.created_by == User.objects.get(username="boss")
    (message,) = delivered()
    assert message.to == ["ada@example.com"]
    assert made.code in message.body
    assert register(invitation=made.code, email="ada@example.com").status_code == 201
    page = operator.get(f"/admin/accounts/invitation/{made.id}/change/").content.decode()
    assert made.code not in page
    assert 'name="note"' not in page, "what was used stays as it was"


def test_an_invitation_without_an_address_is_mailed_to_nobody(operator: Client) -> None:
    form = {"email": "", "note": "", "expires_at_0": "2099-01-01", "expires_at_1": "00:00"}
    assert operator.post("/admin/accounts/invitation/add/", form).status_code == 302
    assert (Invitation.objects.count(), Mail.objects.count()) == (1, 0)


def test_who_may_only_look_at_invitations_sees_no_code(db: None) -> None:
    from django.contrib.auth.models import Permission

    viewer = make_user(is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_invitation"))
    client = Client()
    client.force_login(viewer)
    made = Invitation.objects.create(note="for Ada")
    for path in ("", f"{made.id}/change/"):
        page = client.get(f"/admin/accounts/invitation/{path}").content.decode()
        assert "for Ada" in page
        assert made.code not in page


def test_the_code_does_not_lie_in_the_database(db: None) -> None:
    made = Invitation.objects.create()
    assert made.code not in str(Invitation.objects.values())
