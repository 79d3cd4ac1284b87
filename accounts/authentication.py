"""Who is calling: DRF's two ways from a Bearer token to `request.user` and `request.auth`.

`SessionTokenAuthentication`, the default: `request.user` is the User, loaded with the session's state in one query.

`SignedTokenAuthentication`: the signature and the clock alone, no query; `request.user` is a `Caller`. For routes whose
own statement asks whether the session lives; where it does not, they `raise SessionEnded()`. The condition:

    accounts_session.id = <request.auth.session_id> AND accounts_session.user_id = <request.user.id>
    AND accounts_session.ended_at IS NULL AND accounts_user.is_active

In both `request.auth` is the token's verified `Claims`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts.exceptions import SessionEnded
from accounts.models import User
from accounts.tokens import Claims, InvalidToken, read_access
from project.rest.problems import BEARER

__all__ = [
    "VERIFIED",
    "Caller",
    "CallerRequest",
    "SessionEnded",
    "SessionTokenAuthentication",
    "SignedTokenAuthentication",
    "UserRequest",
    "bearer",
]


VERIFIED = "ordered_work.verified"  # where META has the claims of who was asked to wait; no header has such a name


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a token says is calling. Whether the session still lives is for the route's statement to check."""

    id: UUID
    session_id: UUID
    is_authenticated: bool = True

    @property
    def pk(self) -> UUID:
        return self.id


if TYPE_CHECKING:

    class UserRequest(Request):
        """A request after SessionTokenAuthentication."""

        user: User
        auth: Claims

    class CallerRequest(Request):
        """A request after SignedTokenAuthentication."""

        user: Caller  # type: ignore[assignment]  # narrower than what DRF declares
        auth: Claims

else:
    UserRequest = CallerRequest = Request


class SignedTokenAuthentication(BaseAuthentication):
    def authenticate(self, request: Any) -> tuple[Any, Claims] | None:
        claims = bearer(request.META)
        return None if claims is None else (self.user(claims), claims)

    def user(self, claims: Claims) -> Any:
        return Caller(claims.user_id, claims.session_id)

    def authenticate_header(self, request: Any) -> str:
        return BEARER


class SessionTokenAuthentication(SignedTokenAuthentication):
    def user(self, claims: Claims) -> User:
        return User.objects.of_session(claims)


def bearer(meta: dict[str, Any]) -> Claims | None:
    """The claims of the access token in `Authorization`; None when there is no Bearer token. Raises InvalidToken.

    Whoever has waited was verified when they came: the token may have expired since.
    """
    if VERIFIED in meta:
        return cast(Claims, meta[VERIFIED])
    header = meta.get("HTTP_AUTHORIZATION", "")
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        return None
    if not token.isascii():
        raise InvalidToken
    return read_access(token.strip(" "))
