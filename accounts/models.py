"""Who uses the service: users, and the sessions they are logged in with."""

import hashlib
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple, Self
from uuid import UUID

import uuid_utils.compat
from django.conf import settings
from django.contrib.auth import password_validation
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models, transaction
from django.db.models.functions import Lower, Now
from django.utils import timezone

from accounts.audit import Event, SecurityEvent, printable, record
from accounts.exceptions import RefreshSpent, SessionEnded, WrongCredentials
from accounts.invitations import Invitation
from accounts.mail.outbox import Mail
from accounts.tokens import AccessToken, Claims, RefreshToken

__all__ = ["Invitation", "Mail", "SecurityEvent", "Session", "Tokens", "User"]


MOST_TO_ERASE = 1000
REPEAT_SECONDS = 60  # so long a refresh whose answer was lost can be asked for again


class Tokens(NamedTuple):
    access: str
    refresh: str


class AnyCase(models.Func):
    """What names have in common that differ in case alone, by Unicode's rules, whatever the database's locale."""

    template = 'lower(%(expressions)s COLLATE "und-x-icu")'
    arity = 1
    output_field = models.CharField()


class Users(UserManager["User"]):
    use_in_migrations = False

    def named(self, username: str) -> models.QuerySet["User"]:
        """The user with this name in any case, compared as the constraint does."""
        name = models.Value(User.normalize_username(username))
        return self.alias(name=AnyCase("username")).filter(name=AnyCase(name))

    def to_erase(self) -> list[UUID]:
        """Who asked to be erased, and was not let in again by staff since."""
        asked = self.filter(erase_asked_at__isnull=False, is_active=False).order_by("erase_asked_at")
        return list(asked.values_list("id", flat=True)[:MOST_TO_ERASE])

    def meant_by(self, term: str, most: int) -> list[UUID]:
        """The ids of those whose id, name or e-mail in any case, or beginning of name is `term`: each by its index.

        Of those who share an e-mail or a beginning `most` are found: to sort all takes the longer the less is meant.
        """
        ids = self.order_by().values_list("id", flat=True)
        same_email = ids.filter(email__lower=Lower(models.Value(term)))
        ways = [same_email[:most], ids.filter(username__startswith=term)[:most]]
        with suppress(ValueError):
            ways.append(ids.filter(id=UUID(term)))
        return list(self.named(term).order_by().values_list("id", flat=True).union(*ways))

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.named(username or "").get()

    def with_credentials(self, username: str, password: str) -> "User":
        """The active user with this name and password. Raises WrongCredentials, always after the same time."""
        try:
            user = self.get_by_natural_key(username)
        except User.DoesNotExist:
            make_password(password)
            raise WrongCredentials from None
        if not (user.check_password(password) and user.is_active):
            raise WrongCredentials(user.id)
        return user

    def of_session(self, claims: Claims) -> "User":
        """The active user whose session the token names, in one query. Raises SessionEnded."""
        user = self.filter(
            id=claims.user_id, is_active=True, sessions__id=claims.session_id, sessions__ended_at=None
        ).first()
        if user is None:
            raise SessionEnded
        return user


class User(AbstractUser):
    """A person or program with a queue of their own. The id is a UUID version 7: sortable, not guessable."""

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    verified_email = models.CharField(
        max_length=254, blank=True, default="", db_default="", help_text="The address whose mail they get, once shown."
    )
    erase_asked_at = models.DateTimeField(null=True, blank=True, help_text="When they asked to be erased.")
    # Django's way to leave out what a base class has; its stubs don't know it.
    date_joined = None  # type: ignore[assignment]
    first_name = None  # type: ignore[assignment]
    last_name = None  # type: ignore[assignment]

    objects: ClassVar[Users] = Users()

    class Meta(AbstractUser.Meta):
        indexes = [
            models.Index(Lower("email"), name="user_email_any_case"),
            models.Index("id", name="user_inactive", condition=models.Q(is_active=False)),  # the admin's list of them
            models.Index("id", name="user_erase_asked", condition=models.Q(erase_asked_at__isnull=False)),
        ]
        constraints = [
            models.UniqueConstraint(
                AnyCase("username"),
                name="username_any_case",
                violation_error_message="A user with that username already exists.",
                violation_error_code="unique",
            ),
        ]

    @classmethod
    def fold(cls, username: str) -> str:
        """What all ways to write a name have in common."""
        return cls.normalize_username(username).casefold()

    def save(self, *args: Any, **kwargs: Any) -> None:
        """A new password or a deactivation, from wherever it comes, ends the user's sessions and is in the trail."""
        new_password = not self._state.adding and getattr(self, "_password", None) is not None
        with transaction.atomic():
            before = (True, False, False) if self._state.adding else self.stored_rights()
            super().save(*args, **kwargs)
            if new_password:
                record(Event.PASSWORD_SET, self.id)
            now = self.stored_rights()
            if new_password or (now and not now[0]):
                self.end_sessions()
            if before and now and now != before:
                self.record_rights(before, now)

    def stored_rights(self) -> tuple[bool, ...] | None:
        return User.objects.filter(id=self.id).values_list("is_active", "is_staff", "is_superuser").first()

    def record_rights(self, before: tuple[bool, ...], now: tuple[bool, ...]) -> None:
        if now[0] != before[0]:
            record(Event.ACTIVATED if now[0] else Event.DEACTIVATED, self.id)
        if now[1:] != before[1:]:
            held = [name for name, has in zip(("staff", "superuser"), now[1:], strict=True) if has]
            record(Event.RIGHTS_CHANGED, self.id, detail=", ".join(held) or "none")

    def change_password(self, new: str, session_id: UUID) -> None:
        """Sets the password and ends every other session. Raises WrongCredentials when another change was faster."""
        hashed = make_password(new)
        with transaction.atomic():
            if not User.objects.filter(id=self.id, password=self.password).update(password=hashed):
                raise WrongCredentials(self.id)
            self.end_sessions(except_=session_id)
        self.password = hashed
        password_validation.password_changed(new, self)

    def ask_to_be_erased(self) -> None:
        """Lock the user out for good, at once; the dispatcher does the rest. Raises WrongCredentials when another
        change of password was faster.
        """
        with transaction.atomic():
            verified = User.objects.filter(id=self.id, password=self.password, is_active=True)
            if not verified.select_for_update(no_key=True).exists():
                raise WrongCredentials(self.id)
            self.is_active, self.erase_asked_at = False, timezone.now()
            self.save(update_fields=["is_active", "erase_asked_at"])

    @property
    def email_verified(self) -> bool:
        return bool(self.email) and self.verified_email == self.email

    def end_sessions(self, except_: UUID | None = None) -> int:
        """Ends all sessions but one; how many there were."""
        ending = Session.live.filter(user_id=self.id)
        if except_:
            ending = ending.exclude(id=except_)
        return ending.update(ended_at=Now())


models.CharField.register_lookup(Lower)


class LiveSessions(models.Manager["Session"]):
    """Sessions that have not ended; those whose refresh token has expired are as good as ended."""

    def get_queryset(self) -> models.QuerySet["Session"]:
        return super().get_queryset().filter(ended_at=None)

    def usable(self) -> models.QuerySet["Session"]:
        oldest = timezone.now() - timedelta(seconds=settings.ENV.refresh_token_seconds)
        return self.get_queryset().filter(last_used_at__gt=oldest)


class Session(models.Model):
    """One login: the family of all refresh tokens that descend from it (RFC 9700, section 4.14).

    Every token names its session; a session that has ended takes all of them with it, access tokens included.
    """

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    user = models.ForeignKey(User, models.CASCADE, related_name="sessions")
    refresh_jti = models.CharField(max_length=32, help_text="The one refresh token of the family that is not spent.")
    repeat = models.CharField(
        max_length=64, blank=True, db_default="", help_text="Hash of the token spent last and its Idempotency-Key."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    address = models.GenericIPAddressField(null=True, blank=True)
    user_agent = models.CharField(max_length=200, blank=True)

    class Meta:
        indexes = [  # for accounts/retention.py
            models.Index("ended_at", name="session_ended", condition=models.Q(ended_at__isnull=False)),
            models.Index("last_used_at", name="session_last_used"),
        ]

    objects: ClassVar[models.Manager["Session"]] = models.Manager()
    live: ClassVar[LiveSessions] = LiveSessions()

    @classmethod
    def open(cls, user: User, address: str | None = None, user_agent: str = "") -> Tokens:
        """Logs in a user whose password was just verified. Raises WrongCredentials when that no longer holds."""
        session = cls(user=user, address=address or None, user_agent=printable(user_agent)[:200])
        tokens, session.refresh_jti = session.issue()
        with transaction.atomic():
            # The lock orders this against a change of password: either it finds this session and ends it,
            # or this finds another password.
            verified = User.objects.filter(id=user.id, password=user.password, is_active=True)
            if not verified.select_for_update(no_key=True).exists():
                raise WrongCredentials(user.id)
            session.save(force_insert=True)
        return tokens

    @classmethod
    def rotate(cls, spent: Claims, key: str = "") -> Tokens:
        """Fresh tokens for a refresh token's claims, once. Raises SessionEnded; a spent token ends its family.

        Who lost the answer gets the pair again for REPEAT_SECONDS, if both calls had the same `key`. A thief of the
        token does not know it.
        """
        session = cls(id=spent.session_id, user_id=spent.user_id)
        tokens, refresh_jti = session.issue()
        repeat = hashlib.sha256(f"{spent.jti} {key}".encode()).hexdigest() if key else ""
        active = User.objects.filter(id=models.OuterRef("user_id"), is_active=True)
        # The guard stands on the updated row itself, so that who waited for the row's lock sees it again as it is now.
        own = cls.live.filter(id=session.id, user_id=session.user_id).filter(models.Exists(active))
        if own.filter(refresh_jti=spent.jti).update(refresh_jti=refresh_jti, last_used_at=Now(), repeat=repeat):
            return tokens
        if key:
            since = Now() - timedelta(seconds=REPEAT_SECONDS)
            again = own.filter(repeat=repeat, last_used_at__gt=since).values_list("refresh_jti", flat=True).first()
            if again:
                return session.issue(again)[0]
        raise RefreshSpent if session.end() else SessionEnded

    def issue(self, refresh_jti: str = "") -> tuple[Tokens, str]:
        """A pair of tokens of this session, and the refresh token's jti: a new one, or the one given."""
        pair = AccessToken(), RefreshToken()
        for token in pair:
            token["sub"], token["sid"] = str(self.user_id), str(self.id)
        access, refresh = pair
        if refresh_jti:
            refresh["jti"] = refresh_jti
        return Tokens(str(access), str(refresh)), refresh["jti"]

    def end(self) -> bool:
        """Ends the session; whether it was alive."""
        return bool(Session.live.filter(id=self.id, user_id=self.user_id).update(ended_at=Now()))

    @classmethod
    def of(cls, claims: Claims) -> Self:
        """The session that a token names, whether or not it lives."""
        return cls(id=claims.session_id, user_id=claims.user_id)
