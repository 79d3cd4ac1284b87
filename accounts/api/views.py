"""The routes below /api/v1/auth/."""

import re
from typing import Any
from uuid import UUID

from django.contrib.auth.hashers import make_password
from django.db import IntegrityError, transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import hashers, invitations
from accounts.api import cookie
from accounts.api.serializers import (
    EmailShown,
    EraseBody,
    LoginBody,
    MeShown,
    PasswordBody,
    RefreshBody,
    RegisterBody,
    ResetBody,
    ResetConfirmBody,
    SessionShown,
    TokensShown,
    UserShown,
    VerifyBody,
    check_new_password,
)
from accounts.audit import Event, record, record_refusal
from accounts.authentication import UserRequest
from accounts.exceptions import RefreshSpent, SessionEnded, WrongCredentials
from accounts.login_throttle import failed_logins_limited
from accounts.mail import recovery
from accounts.mail.outbox import Purpose
from accounts.models import Session, User
from accounts.tokens import Claims, keyring, read_refresh
from project.rest.problems import FieldError, Invalid, NotFound
from project.rest.views import StrictView
from project.web import client_ip, rate_limit

LISTED = 200
VISIBLE = re.compile(r"[!-~]{1,255}")
REFRESH_ONCE = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]{1,255}$"},
    OpenApiParameter.HEADER,
    description="A random one for each refresh. Who lost the answer and sends the same token and key again within a"
    " minute gets the same refresh token again, with an access token; without a key that would end the session.",
)


class PublicView(StrictView):
    """For who has no access token yet, or no more."""

    authentication_classes: Any = ()
    permission_classes: Any = ()


class RegisterView(PublicView):
    limited = True
    problems = {"post": (403,)}

    @extend_schema(operation_id="register", request=RegisterBody, responses={201: UserShown})
    def post(self, request: Request) -> Response:
        """Creates a user."""
        hashers.refuse_if_full()
        rate_limit.take(request, rate_limit.REGISTRATIONS.claim(client_ip.address_key(request)))
        asked = self.body(request, RegisterBody)
        invited = invitations.check(asked["invitation"], asked["email"])
        taken = FieldError("username", "unique", "A user with that username already exists.")
        if User.objects.named(asked["username"]).exists():
            raise Invalid(taken)
        user = User(username=asked["username"], email=asked["email"], password=make_password(asked["password"]))
        try:
            with transaction.atomic():  # not around the hash: who waits for that holds no transaction open
                user.save(force_insert=True)
                invitations.spend(invited, user)
                record(Event.REGISTERED, user.id, request=request)
                recovery.verify_on_registration(request, user)
        except IntegrityError:
            # Somebody registered the name while this password was being hashed.
            raise Invalid(taken) from None
        return Response(UserShown(user).data, 201)


class TokenView(PublicView):
    limited = True

    problems = {"post": (403,)}

    @extend_schema(operation_id="login", request=LoginBody, responses={200: TokensShown}, parameters=cookie.PARAMETERS)
    def post(self, request: Request) -> Response:
        """Opens a session: an access token and the first refresh token of its family."""
        in_cookie = cookie.wanted(request)
        asked = self.body(request, LoginBody)
        with failed_logins_limited(request, asked["username"], rate_limit.LOGINS.claim(client_ip.address_key(request))):
            user = User.objects.with_credentials(**asked)
            agent = request.META.get("HTTP_USER_AGENT", "")
            with transaction.atomic():
                tokens = Session.open(user, client_ip.client_address(request), agent)
                record(Event.LOGIN_SUCCEEDED, user.id, request=request)
        return cookie.answer(tokens) if in_cookie else Response(tokens._asdict())


class RefreshView(PublicView):
    body_optional = True
    problems = {"post": (403,)}

    @extend_schema(
        operation_id="refresh",
        request=RefreshBody,
        responses={200: TokensShown},
        parameters=[REFRESH_ONCE, *cookie.PARAMETERS],
    )
    def post(self, request: Request) -> Response:
        """Spends a refresh token for a new pair. A token that was spent before ends its whole session.

        With `Accept-Session: cookie` there is no body: the cookie carries the token.
        """
        in_cookie = cookie.wanted(request)
        claims = read_refresh(cookie.read(request) if in_cookie else self.body(request, RefreshBody)["refresh"])
        key = request.META.get("HTTP_IDEMPOTENCY_KEY")
        if key is not None and not VISIBLE.fullmatch(key):
            raise Invalid(FieldError("Idempotency-Key", "format", "Send 1 to 255 visible ASCII characters."))
        try:
            tokens = Session.rotate(claims, key or "")
        except SessionEnded as refused:
            self.tell(request, claims, spent=isinstance(refused, RefreshSpent))
            raise
        return cookie.answer(tokens) if in_cookie else Response(tokens._asdict())

    def tell(self, request: Request, claims: Claims, *, spent: bool) -> None:
        """A spent token ends its session, so that line comes once; the others could be sent for ever."""
        whose = User.objects.filter(id=claims.user_id).values_list("id", flat=True).first()  # none of an erased one
        if spent:
            record(Event.REFRESH_REFUSED, whose, request=request, detail=f"spent; session {claims.session_id}")
        else:
            record_refusal(Event.REFRESH_REFUSED, whose, request=request)


class LogoutView(PublicView):
    body_optional = True
    problems = {"post": (403,)}

    @extend_schema(operation_id="logout", request=RefreshBody, responses={204: None}, parameters=cookie.PARAMETERS)
    def post(self, request: Request) -> Response:
        """Ends the session of a refresh token, at once for its access tokens too. Repeating it changes nothing.

        With `Accept-Session: cookie` there is no body: the cookie carries the token.
        """
        in_cookie = cookie.wanted(request)
        claims = read_refresh(cookie.read(request) if in_cookie else self.body(request, RefreshBody)["refresh"])
        with transaction.atomic():
            if Session.of(claims).end():
                record(Event.LOGOUT, claims.user_id, request=request)
        return cookie.drop(Response(status=204)) if in_cookie else Response(status=204)


class LogoutAllView(StrictView):
    @extend_schema(operation_id="logout_all", request=None, responses={204: None})
    def post(self, request: UserRequest) -> Response:
        """Ends every session of the user."""
        with transaction.atomic():
            request.user.end_sessions()
            record(Event.LOGOUT_ALL, request.user.id, request=request)
        return Response(status=204)


class PasswordView(StrictView):
    limited = True

    @extend_schema(operation_id="change_password", request=PasswordBody, responses={204: None})
    def post(self, request: UserRequest) -> Response:
        """Changes the password and ends every other session."""
        asked = self.body(request, PasswordBody)
        try:
            with failed_logins_limited(request, request.user.username, event=Event.PASSWORD_REFUSED):
                if not request.user.check_password(asked["current_password"]):
                    raise WrongCredentials(request.user.id)
                with transaction.atomic():
                    request.user.change_password(asked["new_password"], request.auth.session_id)
                    record(Event.PASSWORD_CHANGED, request.user.id, request=request)
        except WrongCredentials:
            raise Invalid(FieldError("current_password", "wrong", "This is not your password.")) from None
        return Response(status=204)


class MeView(StrictView):
    problems = {"delete": (429,)}
    delete_body = EraseBody

    @extend_schema(operation_id="me", responses={200: MeShown})
    def get(self, request: UserRequest) -> Response:
        """Who the token belongs to."""
        return Response(MeShown(request.user).data)

    @extend_schema(operation_id="erase_me", responses={202: None})
    def delete(self, request: UserRequest) -> Response:
        """Erases your account and all that is kept of you.

        At once you are logged out everywhere and can never log in again; what waits is cancelled, what runs is asked to
        end. The rest goes within seconds, and cannot be brought back.
        """
        asked = self.body(request, EraseBody)
        try:
            with failed_logins_limited(request, request.user.username, event=Event.PASSWORD_REFUSED):
                if not request.user.check_password(asked["password"]):
                    raise WrongCredentials(request.user.id)
                with transaction.atomic():
                    record(Event.ERASE_ASKED, request.user.id, request=request)
                    request.user.ask_to_be_erased()
        except WrongCredentials:
            raise Invalid(FieldError("password", "wrong", "This is not your password.")) from None
        return Response(status=202)


class EmailView(StrictView):
    @extend_schema(operation_id="my_email", responses={200: EmailShown})
    def get(self, request: UserRequest) -> Response:
        """Your e-mail address, and whether it is confirmed."""
        return Response(EmailShown(request.user).data)


class VerifyEmailView(PublicView):
    limited = True

    @extend_schema(operation_id="verify_email", request=VerifyBody, responses={202: None, 204: None})
    def post(self, request: Request) -> Response:
        """Confirms an e-mail address, or mails another link for it.

        With `token`: the address is confirmed, 204. With `email`: 202, whether or not an account has that address.
        """
        asked = self.body(request, VerifyBody)
        if "token" in asked:
            recovery.verify_email(request, asked["token"])
            return Response(status=204)
        recovery.ask(request, Purpose.VERIFY, asked["email"])
        return Response(status=202)


class PasswordResetView(PublicView):
    limited = True

    @extend_schema(operation_id="password_reset", request=ResetBody, responses={202: None})
    def post(self, request: Request) -> Response:
        """Mails a link that sets a new password.

        The answer is the same, and comes as fast, whether or not an account has that address.
        """
        recovery.ask(request, Purpose.RESET, self.body(request, ResetBody)["email"])
        return Response(status=202)


class PasswordResetConfirmView(PublicView):
    limited = True

    @extend_schema(operation_id="password_reset_confirm", request=ResetConfirmBody, responses={204: None})
    def post(self, request: Request) -> Response:
        """Sets a new password with the token of the link, once, and ends every session."""
        hashers.refuse_if_full()
        asked = self.body(request, ResetConfirmBody)
        user = recovery.user_to_reset(request, asked["token"])
        check_new_password(asked["new_password"], user, "new_password")
        recovery.reset_password(request, user, asked["new_password"])
        return Response(status=204)


class SessionsView(StrictView):
    @extend_schema(operation_id="sessions", responses={200: SessionShown(many=True)})
    def get(self, request: UserRequest) -> Response:
        """The user's live sessions, at most the 200 newest, the newest first."""
        sessions = Session.live.usable().filter(user_id=request.user.id).order_by("-id")[:LISTED]
        return Response(SessionShown(sessions, many=True, context={"session_id": request.auth.session_id}).data)


class SessionView(StrictView):
    @extend_schema(operation_id="end_session", responses={204: None})
    def delete(self, request: UserRequest, session_id: UUID) -> Response:
        """Ends one session of the user."""
        with transaction.atomic():
            if not Session(id=session_id, user_id=request.user.id).end():
                raise NotFound
            record(Event.SESSION_ENDED, request.user.id, request=request, detail=f"session {session_id}")
        return Response(status=204)


@require_safe
def jwks(request: HttpRequest) -> JsonResponse:
    """The public keys that verify our tokens (RFC 7517); nothing while the key is a shared secret."""
    keys = keyring().jwks()
    if not keys["keys"]:
        raise NotFound
    return JsonResponse(keys, headers={"Cache-Control": "public, max-age=300"})
