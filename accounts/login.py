"""Guessing passwords, made slow: the limit that stands before every look at one, the admin's form included."""

import hashlib
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import PermissionDenied

from accounts.models import User, WrongCredentials
from project import limits
from project.problems import TooManyRequests


class failed_logins_limited:  # noqa: N801  (reads as the block it opens)
    """Counts a failed login of (address, name) before the password is looked at; takes it back unless it was wrong.

    Counted first, so that of 200 guesses at once no more than the limit are answered. Keyed with the address, so that
    nobody locks a user out elsewhere. Raises TooManyRequests.
    """

    def __init__(self, request: Any, username: str, *others: limits.Claim) -> None:
        name = hashlib.sha256(User.fold(username).encode()).hexdigest()[:32]
        self.request = request
        self.claims = (limits.FAILED_LOGINS.claim(f"{limits.address_key(request)}:{name}"), *others)

    def __enter__(self) -> None:
        self.taken = limits.take(self.request, *self.claims)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None or not issubclass(kind, WrongCredentials):
            limits.give_back([one for one in self.taken if one.claim.limit is limits.FAILED_LOGINS])


class LimitedBackend(ModelBackend):
    """Django's own, for the admin, under the same limits as POST /auth/token."""

    def authenticate(
        self, request: Any, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if request is None:  # a test or a shell, not a client
            return super().authenticate(request, username, password, **kwargs)
        try:
            with failed_logins_limited(request, username or "", limits.LOGINS.claim(limits.address_key(request))):
                return User.objects.with_credentials(username or "", password or "")
        except WrongCredentials:
            return None
        except TooManyRequests:
            raise PermissionDenied from None  # the form says the same as for a wrong password
