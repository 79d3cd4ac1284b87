"""A session ends when it should, at once, and for every token of it."""

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from accounts.exceptions import SessionEnded, WrongCredentials
from accounts.models import REPEAT_SECONDS, Session, Tokens, User
from accounts.tokens import read_refresh
from tests.accounts.people import PASSWORD, Api, at_once, make_user

ME = "auth/me"


def refresh(token: str, key: str | None = None) -> Tokens | int:
    more = {} if key is None else {"HTTP_IDEMPOTENCY_KEY": key}
    answer = Api().post("auth/token/refresh", {"refresh": token}, **more)
    return Tokens(**answer.json()) if answer.status_code == 200 else answer.status_code


def test_a_refresh_gives_a_new_pair_that_works(api: Api) -> None:
    fresh = refresh(api.tokens.refresh)
    assert isinstance(fresh, Tokens)
    assert Api(fresh).get(ME).status_code == 200
    assert isinstance(refresh(fresh.refresh), Tokens)


def test_a_spent_refresh_token_ends_its_whole_family(api: Api) -> None:
    fresh = refresh(api.tokens.refresh)
    assert isinstance(fresh, Tokens)
    assert refresh(api.tokens.refresh) == 401
    assert refresh(fresh.refresh) == 401
    assert api.get(ME).status_code == Api(fresh).get(ME).status_code == 401


def test_a_spent_refresh_token_leaves_other_sessions_alone(user: User, api: Api) -> None:
    other = Api.of(user)
    refresh(api.tokens.refresh)
    refresh(api.tokens.refresh)
    assert other.get(ME).status_code == 200


def test_who_lost_the_answer_gets_the_same_refresh_token_again_with_the_same_key(api: Api) -> None:
    first, again = (refresh(api.tokens.refresh, "key-1") for _ in range(2))
    assert isinstance(first, Tokens)
    assert isinstance(again, Tokens)
    assert read_refresh(first.refresh).jti == read_refresh(again.refresh).jti
    assert Api(again).get(ME).status_code == Api(first).get(ME).status_code == 200
    then = refresh(again.refresh, "key-2")
    assert isinstance(then, Tokens)
    assert refresh(first.refresh, "key-1") == 401  # it is spent now, and its key was of another token
    assert Api(then).get(ME).status_code == 401


@pytest.mark.parametrize("key", [None, "key-2"])
def test_a_spent_token_without_its_key_ends_the_session_at_once(api: Api, key: str | None) -> None:
    first = refresh(api.tokens.refresh, "key-1")
    assert refresh(api.tokens.refresh, key) == 401
    assert isinstance(first, Tokens)
    assert Api(first).get(ME).status_code == 401


def test_a_refresh_cannot_be_repeated_for_ever(api: Api) -> None:
    refresh(api.tokens.refresh, "key-1")
    Session.objects.update(last_used_at=timezone.now() - timedelta(seconds=REPEAT_SECONDS + 1))
    assert refresh(api.tokens.refresh, "key-1") == 401


def test_a_repeated_refresh_of_a_session_that_ended_gives_nothing(user: User, api: Api) -> None:
    refresh(api.tokens.refresh, "key-1")
    user.end_sessions()
    assert refresh(api.tokens.refresh, "key-1") == 401


def test_a_key_that_cannot_be_one_is_refused_and_spends_nothing(api: Api) -> None:
    assert refresh(api.tokens.refresh, "two words") == 400
    assert isinstance(refresh(api.tokens.refresh), Tokens)


@pytest.mark.django_db(transaction=True)
def test_of_many_repeats_at_once_all_get_the_same_refresh_token() -> None:
    tokens = Session.open(make_user())
    found = at_once(10, lambda _: refresh(tokens.refresh, "key-1"))
    assert len({read_refresh(pair.refresh).jti for pair in found}) == 1


@pytest.mark.django_db(transaction=True)
def test_of_fifty_refreshes_at_once_exactly_one_succeeds() -> None:
    tokens = Session.open(make_user())

    locked = threading.Event()

    def act(number: int) -> Tokens | int:
        if number == 0:
            hold_the_row_until_waiting(50, locked)
            return 0
        locked.wait(30)
        return refresh(tokens.refresh)

    results = at_once(51, act)[1:]
    assert results.count(401) == 49
    assert sum(isinstance(result, Tokens) for result in results) == 1


def hold_the_row_until_waiting(number: int, locked: threading.Event) -> None:
    """Locks the session first, so that all who want it have looked and wait when it is let go."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT FROM accounts_session FOR UPDATE")
        locked.set()
        until = time.monotonic() + 30
        waiting = 0
        while waiting < number and time.monotonic() < until:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            waiting = cursor.fetchone()[0]
        assert waiting == number


def test_logout_takes_effect_at_the_next_request(api: Api) -> None:
    assert Api().post("auth/logout", {"refresh": api.tokens.refresh}).status_code == 204
    answer = api.get(ME)
    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/session-ended")
    assert refresh(api.tokens.refresh) == 401


def test_a_second_logout_is_no_error(api: Api) -> None:
    for _ in range(2):
        assert Api().post("auth/logout", {"refresh": api.tokens.refresh}).status_code == 204


def test_logout_all_ends_every_session_of_this_user_only(user: User, api: Api) -> None:
    other, stranger = Api.of(user), Api.of(make_user())
    assert api.post("auth/logout-all").status_code == 204
    assert api.get(ME).status_code == other.get(ME).status_code == 401
    assert stranger.get(ME).status_code == 200


def test_a_new_password_ends_every_other_session(user: User, api: Api) -> None:
    other = Api.of(user)
    body = {"current_password": PASSWORD, "new_password": "another-four-random-words"}
    assert api.post("auth/password", body).status_code == 204
    assert other.get(ME).status_code == refresh(other.tokens.refresh) == 401
    assert api.get(ME).status_code == 200
    login = Api().post("auth/token", {"username": user.username, "password": body["new_password"]})
    assert login.status_code == 200


def test_a_password_set_by_an_operator_ends_every_session(user: User, api: Api) -> None:
    user.set_password("set-by-an-operator")
    user.save()
    assert api.get(ME).status_code == 401


@pytest.mark.parametrize("how", ["saved", "updated"])
def test_a_deactivated_user_is_out_at_once(user: User, api: Api, how: str) -> None:
    if how == "saved":
        user.is_active = False
        user.save()
    else:
        User.objects.filter(id=user.id).update(is_active=False)
    assert api.get(ME).status_code == 401
    assert refresh(api.tokens.refresh) == 401


def test_a_session_from_before_a_deactivation_stays_ended(user: User, api: Api) -> None:
    for active in (False, True):
        user.is_active = active
        user.save()
    assert api.get(ME).status_code == 401


def test_a_deleted_user_is_out_at_once(user: User, api: Api) -> None:
    user.delete()
    assert api.get(ME).status_code == 401
    assert refresh(api.tokens.refresh) == 401
    assert Api().post("auth/logout", {"refresh": api.tokens.refresh}).status_code == 204


def test_a_login_that_a_password_change_overtook_opens_no_session(user: User) -> None:
    verified = User.objects.get(id=user.id)
    user.change_password("another-four-random-words", session_id=user.id)
    with pytest.raises(WrongCredentials):
        Session.open(verified)
    assert not Session.live.filter(user_id=user.id).exists()


def test_a_login_of_a_user_deleted_meanwhile_is_no_crash(user: User) -> None:
    verified = User.objects.get(id=user.id)
    user.delete()
    with pytest.raises(WrongCredentials):
        Session.open(verified)


def test_a_refresh_of_a_session_that_ended_meanwhile_changes_nothing(user: User) -> None:
    claims = read_refresh(Session.open(user).refresh)
    user.end_sessions()
    with pytest.raises(SessionEnded):
        Session.rotate(claims)
    assert not Session.live.filter(user_id=user.id).exists()


def test_users_see_their_live_sessions_the_newest_first(user: User, api: Api) -> None:
    Session.open(make_user())
    phone = Api()
    agent = "Phone\x00\x1b[31m" + "x" * 300
    login = {"username": user.username, "password": PASSWORD}
    phone.tokens = Tokens(**phone.post("auth/token", login, HTTP_USER_AGENT=agent, REMOTE_ADDR="192.0.2.7").json())
    old = Session.open(User.objects.get(id=user.id))  # the login may have hashed the password anew
    Session.objects.filter(id=read_refresh(old.refresh).session_id).update(
        last_used_at=timezone.now() - timedelta(seconds=settings.ENV.refresh_token_seconds + 1)
    )
    shown = api.get("auth/sessions").json()
    assert [session["current"] for session in shown] == [False, True]
    assert shown[0]["address"] == "192.0.2.7"
    assert shown[0]["user_agent"] == "Phone[31m" + "x" * 191


def test_users_end_one_of_their_sessions(user: User, api: Api) -> None:
    other = Api.of(user)
    other_id = read_refresh(other.tokens.refresh).session_id
    assert api.delete(f"auth/sessions/{other_id}").status_code == 204
    assert other.get(ME).status_code == 401
    assert api.get(ME).status_code == 200
    assert api.delete(f"auth/sessions/{other_id}").status_code == 404


def test_a_foreign_session_answers_like_one_that_does_not_exist(api: Api) -> None:
    stranger = Api.of(make_user())
    foreign = read_refresh(stranger.tokens.refresh).session_id
    absent = str(foreign)[:-4] + "0000"
    answers = [api.delete(f"auth/sessions/{one}", HTTP_X_REQUEST_ID="same") for one in (foreign, absent, "nonsense")]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert len({answer.content for answer in answers}) == 1
    assert stranger.get(ME).status_code == 200


def test_an_ended_session_costs_one_query(user: User, api: Api, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        assert api.get(ME).status_code == 200
    user.end_sessions()
    with django_assert_num_queries(1):
        assert api.get(ME).status_code == 401
