"""Guessing passwords, made slow: the limit that stands before every look at one, the admin's form included."""

import hashlib
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import PermissionDenied

from accounts import hashers
from accounts.audit import Event, record, record_refusal
from accounts.exceptions import WrongCredentials
from accounts.models import User
from project.rest.problems import TooManyRequests
from project.web import client_ip, rate_limit


class failed_logins_limited:  # noqa: N801  (reads as the block it opens)
    """Counts a failed login of (address, name) before the password is looked at; takes it back unless it was wrong.

    Counted first, so that of 200 guesses at once no more than the limit are answered. Keyed with the address, so that
    nobody locks a user out elsewhere. What fails is in the audit trail as `event`. Raises TooManyRequests, and
    ServiceUnavailable where no password can be looked at now.
    """

    def __init__(
        self,
        request: Any,
        username: str,
        *others: rate_limit.Claim,
        event: Event = Event.LOGIN_FAILED,
        detail: str = "",
    ) -> None:
        name = hashlib.sha256(User.fold(username).encode()).hexdigest()[:32]
        self.request, self.username = request, username
        self.event, self.detail = event, detail
        self.claims = (rate_limit.FAILED_LOGINS.claim(f"{client_ip.address_key(request)}:{name}"), *others)

    def __enter__(self) -> None:
        hashers.refuse_if_full()
        try:
            self.taken = rate_limit.take(self.request, *self.claims)
        except TooManyRequests:
            whose = User.objects.named(self.username).values_list("id", flat=True).first()
            record_refusal(Event.LOGIN_LIMITED, whose, request=self.request, detail=self.detail)
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, WrongCredentials):
            record(self.event, error.user_id, request=self.request, detail=self.detail)
        else:
            rate_limit.give_back([one for one in self.taken if one.claim.limit is rate_limit.FAILED_LOGINS])


class LimitedBackend(ModelBackend):
    """Django's own, for the admin, under the same limits as POST /auth/token."""

    def authenticate(
        self, request: Any, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if request is None:  # a test or a shell, not a client
            return super().authenticate(request, username, password, **kwargs)
        try:
            every = rate_limit.LOGINS.claim(client_ip.address_key(request))
            with failed_logins_limited(request, username or "", every, detail="admin"):
                return User.objects.with_credentials(username or "", password or "")
        except WrongCredentials:
            return None
        except TooManyRequests:
            raise PermissionDenied from None  # the form says the same as for a wrong password
