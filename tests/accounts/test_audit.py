"""The trail says who was let in, who was refused and what became of accounts; nobody can rewrite it."""

from datetime import timedelta
from typing import Any

import pytest
import structlog
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from structlog.testing import capture_logs

from accounts import audit, retention
from accounts.audit import Event, SecurityEvent, record
from accounts.models import Session, Tokens, User
from project.web import rate_limit
from project.web.rate_limit import Limit
from queues.models import Request
from tests.accounts.people import PASSWORD, Api, make_user
from tests.client import Client
from tests.staff import confirm

NEW = "another-four-random-words"


def events_of(user: User | None = None) -> list[str]:
    """The events of a user, or those of nobody we know, the first one first."""
    lines = SecurityEvent.objects.filter(user_id=user and user.id)
    return list(lines.order_by("id").values_list("event", flat=True))


def last() -> SecurityEvent:
    return SecurityEvent.objects.order_by("-id")[0]


@pytest.fixture
def operator(db: None) -> Client:
    boss = make_user(username="boss", is_staff=True, is_superuser=True)
    client = Client(raise_request_exception=False)
    client.force_login(boss)
    return client


@pytest.mark.django_db(transaction=True)
def test_what_is_not_committed_is_neither_in_the_trail_nor_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    user = make_user()
    monkeypatch.setattr(audit, "log", structlog.get_logger())  # one that was used before captures nothing
    with capture_logs() as lines:
        with transaction.atomic():
            record(Event.LOGOUT_ALL, user.id)
            transaction.set_rollback(True)
        assert (events_of(user), lines) == ([], [])
        with transaction.atomic():
            record(Event.LOGOUT_ALL, user.id, detail="by staff")
            assert not lines
    assert events_of(user) == ["logout_all"]
    assert [(line["event"], line["name"], line["detail"]) for line in lines] == [
        ("security_event", "logout_all", "by staff")
    ]


def test_a_life_of_an_account_is_told_in_order(anyone: Api) -> None:
    name = {"username": "ada", "password": PASSWORD}
    assert anyone.post("auth/register", name).status_code == 201
    first = Api(Tokens(**anyone.post("auth/token", name).json()))
    second = Api(Tokens(**anyone.post("auth/token", name).json()))
    third = Api(Tokens(**anyone.post("auth/token", name).json()))
    others = [one["id"] for one in first.get("auth/sessions").json() if not one["current"]]
    assert first.delete(f"auth/sessions/{others[0]}").status_code == 204
    assert third.get("auth/me").status_code == 401
    for _ in range(2):
        assert anyone.post("auth/logout", {"refresh": second.tokens.refresh}).status_code == 204
    assert first.post("auth/password", {"current_password": "wrong", "new_password": NEW}).status_code == 400
    assert first.post("auth/password", {"current_password": PASSWORD, "new_password": NEW}).status_code == 204
    assert first.post("auth/logout-all").status_code == 204
    assert events_of(User.objects.get(username="ada")) == [
        "registered", *["login_succeeded"] * 3, "session_ended", "logout", "password_refused", "password_changed",
        "logout_all",
    ]  # fmt: skip


def test_a_line_says_from_where_with_what_and_in_which_request(user: User, anyone: Api) -> None:
    sent = {"HTTP_USER_AGENT": "Phone\x1b" + "x" * 300, "REMOTE_ADDR": "192.0.2.7", "HTTP_X_REQUEST_ID": "call-7"}
    anyone.post("auth/token", {"username": user.username, "password": PASSWORD}, **sent)
    line = last()
    assert (line.event, line.user_id, line.actor_id) == ("login_succeeded", user.id, None)
    assert (line.address, line.user_agent, line.request_id) == ("192.0.2.7", "Phone" + "x" * 195, "call-7")
    assert abs(line.at - timezone.now()) < timedelta(minutes=5)


def test_failed_logins_are_told_whether_or_not_there_is_such_a_user(user: User, anyone: Api) -> None:
    idle = make_user()
    User.objects.filter(id=idle.id).update(is_active=False)
    for name in (user.username, idle.username, "nobody-of-this-name"):
        assert anyone.post("auth/token", {"username": name, "password": "the-guess"}).status_code == 401
    assert events_of(user) == ["login_failed"]
    assert events_of(idle) == ["login_failed"]
    assert events_of() == ["login_failed"]
    assert "nobody-of-this-name" not in str(SecurityEvent.objects.values())  # people type passwords there


def test_who_knocks_without_end_fills_no_disk(user: User, anyone: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "FAILED_LOGINS", Limit("failed-logins", 1))
    monkeypatch.setattr(rate_limit, "AUDITED_REFUSALS", Limit("audited-refusals", 2, without_redis="local"))
    guess = {"username": user.username, "password": "the-guess"}
    assert [anyone.post("auth/token", guess).status_code for _ in range(6)] == [401] + [429] * 5
    assert events_of(user) == ["login_failed", "login_limited", "login_limited"]
    assert anyone.post("auth/token", guess, REMOTE_ADDR="192.0.2.8").status_code == 401


def test_a_refused_refresh_is_told(user: User, api: Api) -> None:
    def refresh() -> int:
        return int(Api().post("auth/token/refresh", {"refresh": api.tokens.refresh}).status_code)

    assert [refresh() for _ in range(3)] == [200, 401, 401]
    spent, ended = SecurityEvent.objects.filter(user_id=user.id, event=Event.REFRESH_REFUSED).order_by("id")
    assert spent.detail == f"spent; session {Session.objects.get(user=user).id}"
    assert ended.detail == ""
    user_id = user.id
    user.delete()
    assert refresh() == 401
    assert last().user_id is None, "a line about somebody who is gone names nobody"
    assert not SecurityEvent.objects.filter(user_id=user_id, id__gt=ended.id).exists()


def test_what_staff_do_to_an_account_is_told_with_who_did_it(operator: Client) -> None:
    boss, bob = User.objects.get(username="boss"), make_user(username="bob")
    Api.of(bob)
    page = f"/admin/accounts/user/{bob.id}/"
    action = {"action": "end_sessions", "_selected_action": [str(bob.id)]}
    assert confirm(operator, "/admin/accounts/user/", action, "lost", REMOTE_ADDR="192.0.2.9").status_code == 302
    form = {"username": "bob", "email": "", "is_staff": "on"}
    assert operator.post(f"{page}change/", form).status_code == 302  # is_active is off
    assert operator.post(f"{page}change/", {**form, "is_active": "on"}).status_code == 302
    new = {"usable_password": "true", "password1": NEW, "password2": NEW}
    assert operator.post(f"{page}password/", new).status_code == 302
    lines = SecurityEvent.objects.filter(user_id=bob.id).order_by("id")
    assert [line.event for line in lines] == [
        "logout_all", "deactivated", "rights_changed", "staff_action", "activated", "staff_action", "password_set",
        "staff_action",
    ]  # fmt: skip
    assert {line.actor_id for line in lines} == {boss.id}
    assert (lines[0].address, lines[0].detail) == ("192.0.2.9", "lost")
    assert lines[2].detail == "staff"
    assert lines[3].detail.startswith(f"changed accounts.User {bob.id}: Changed")
    assert "bob" not in lines[3].detail


def test_what_staff_do_elsewhere_is_told_too(operator: Client) -> None:
    assert operator.post("/admin/auth/group/add/", {"name": "viewers"}).status_code == 302
    line = last()
    assert (line.event, line.user_id) == ("staff_action", None)
    assert line.actor_id == User.objects.get(username="boss").id
    assert line.detail == f"added auth.Group {Group.objects.get(name='viewers').id}: Added."


def test_logins_to_the_admin_are_told(db: None) -> None:
    boss = make_user(is_staff=True, password=make_password(PASSWORD))
    client = Client(raise_request_exception=False)
    for password in ("guess", PASSWORD):
        client.post("/admin/login/", {"username": boss.username, "password": password})
    client.post("/admin/logout/")
    lines = SecurityEvent.objects.filter(user_id=boss.id).order_by("id").values_list("event", "detail")
    assert list(lines)[1:] == [("login_failed", "admin"), ("login_succeeded", "admin"), ("logout", "admin")]


def test_a_command_that_changes_an_account_is_told(user: User) -> None:
    user.set_password(NEW)
    user.save()
    user.is_active = False
    user.save()
    user.save()
    User.objects.create_superuser("root", "", PASSWORD)
    assert events_of(user) == ["password_set", "deactivated"]
    assert events_of(User.objects.get(username="root")) == ["rights_changed"]


def test_what_is_refused_leaves_no_line_of_success(user: User, api: Api) -> None:
    taken = {"username": user.username, "password": PASSWORD}
    assert Api().post("auth/register", taken).status_code == 400
    assert api.delete(f"auth/sessions/{user.id}").status_code == 404
    assert events_of(user) == []


def test_submitting_and_reading_write_nothing(user: User, api: Api) -> None:
    before = SecurityEvent.objects.count()
    made = api.post("requests", {"kind": "demo.echo", "payload": 1})
    assert made.status_code == 202
    for path in ("requests", f"requests/{made.json()['id']}", "queue", "auth/me", "auth/sessions"):
        assert api.get(path).status_code == 200
    assert Request.objects.count() == 1
    assert SecurityEvent.objects.count() == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE accounts_securityevent SET event = 'logout'",
        "UPDATE accounts_securityevent SET address = NULL",
        "DELETE FROM accounts_securityevent",
    ],
)
def test_lines_cannot_be_changed_not_even_by_the_service_itself(user: User, anyone: Api, statement: str) -> None:
    anyone.post("auth/token", {"username": user.username, "password": PASSWORD})
    with connection.cursor() as cursor, pytest.raises(IntegrityError, match="audit trail"), transaction.atomic():
        cursor.execute(statement)


def test_what_may_be_forgotten_is_the_person_and_not_what_happened(user: User, anyone: Api) -> None:
    anyone.post("auth/token", {"username": user.username, "password": PASSWORD})
    retention.run(retention.MAY_FORGET)
    with pytest.raises(IntegrityError, match="Only address"), transaction.atomic():
        retention.run("UPDATE accounts_securityevent SET address = NULL, user_agent = '', event = 'logout'")


def test_operators_find_lines_and_write_none(operator: Client, user: User, anyone: Api) -> None:
    login = {"username": user.username, "password": PASSWORD}
    anyone.post("auth/token", login, REMOTE_ADDR="192.0.2.44", HTTP_X_REQUEST_ID="find-me")
    anyone.post("auth/token", {"username": "nobody", "password": "x"}, REMOTE_ADDR="192.0.2.45")
    place = "/admin/accounts/securityevent/"
    for term in (user.username, str(user.id), "192.0.2.44", "find-me"):
        page = operator.get(place, {"q": term}).content.decode()
        assert "192.0.2.44" in page, term
        assert "192.0.2.45" not in page, term
    page = operator.get(place, {"event": "login_failed", "within": "hour"}).content.decode()
    assert "192.0.2.45" in page
    assert "192.0.2.44" not in page
    line = last()
    assert operator.get(f"{place}{line.id}/change/").status_code == 200
    for path in ("add/", f"{line.id}/delete/"):
        assert operator.post(f"{place}{path}").status_code == 403
    gone = str(user.id)
    user.delete()
    assert gone in operator.get(place, {"q": gone}).content.decode()


def test_what_is_old_goes_and_what_counts_stays(user: User, anyone: Api) -> None:
    now = timezone.now()
    old = now - timedelta(days=settings.ENV.session_retention_days + 1)
    ended, expired, fresh, living = (Session.open(user) and Session.objects.latest("id") for _ in range(4))
    Session.objects.filter(id=ended.id).update(ended_at=old)
    Session.objects.filter(id=expired.id).update(
        last_used_at=old - timedelta(seconds=settings.ENV.refresh_token_seconds)
    )
    Session.objects.filter(id=fresh.id).update(ended_at=now)
    Session.objects.filter(id=living.id).update(last_used_at=old)
    ancient = SecurityEvent(event=Event.LOGOUT, at=now - timedelta(days=settings.ENV.audit_retention_days + 1))
    recent = SecurityEvent(event=Event.LOGOUT, at=now - timedelta(days=settings.ENV.audit_retention_days - 1))
    ancient.save()
    recent.save()
    assert [retention.prune(1) for _ in range(3)] == [2, 1, 0]
    assert set(Session.objects.values_list("id", flat=True)) == {fresh.id, living.id}
    assert list(SecurityEvent.objects.values_list("id", flat=True)) == [recent.id]


def test_a_trail_can_be_kept_for_ever(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    SecurityEvent(event=Event.LOGOUT, at=timezone.now() - timedelta(days=4000)).save()
    monkeypatch.setattr(settings.ENV, "audit_retention_days", 0.0)
    assert retention.prune(10) == 0


def test_a_trail_of_someone_with_many_lines_is_made_nameless_in_parts(user: User, anyone: Any) -> None:
    for _ in range(3):
        anyone.post("auth/token", {"username": user.username, "password": PASSWORD}, HTTP_USER_AGENT="Phone")
    assert [retention.make_nameless(user.id, 2) for _ in range(3)] == [2, 1, 0]
    assert set(SecurityEvent.objects.values_list("user_id", "address", "user_agent")) == {(user.id, None, "")}
