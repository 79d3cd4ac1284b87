"""The trail of security events: who logged in, who was refused, what became of accounts, what staff did.

Lines are added and never changed: PostgreSQL itself refuses it (migration 0005). Only accounts/retention.py takes
something away: lines that are old, and from an erased user's lines what names a person.
Nothing is written on the way of a submission or a read.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import structlog
from django.db import models, transaction
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponseBase

from project.web import client_ip, rate_limit

AGENT, DETAIL = 200, 500

log = structlog.get_logger(__name__)


class Event(models.TextChoices):
    """What happened; in `detail` stands more, where something is written here in brackets."""

    REGISTERED = "registered"  # somebody made an account
    LOGIN_SUCCEEDED = "login_succeeded"  # a session began (or the admin's)
    LOGIN_FAILED = "login_failed"  # wrong password, unknown name, or an account that may not log in (or the admin's)
    LOGIN_LIMITED = "login_limited"  # too many failures; a few a minute from each address are written down
    REFRESH_REFUSED = "refresh_refused"  # a refresh token of an ended session (or spent: its session ended with that)
    LOGOUT = "logout"  # one session (or the admin's)
    LOGOUT_ALL = "logout_all"  # every session of the user, by themselves or staff (why)
    SESSION_ENDED = "session_ended"  # the user ended one of their sessions (its id)
    PASSWORD_CHANGED = "password_changed"  # noqa: S105  (by the user; every other session ended)
    PASSWORD_REFUSED = "password_refused"  # noqa: S105  (the user's token came with a wrong current password)
    PASSWORD_RESET = "password_reset"  # noqa: S105  (by a link in a mail; every session ended)
    RESET_MAILED = "reset_mailed"  # the link for it left; the address is of who asked for it
    VERIFICATION_MAILED = "verification_mailed"  # so did the link that confirms an e-mail address
    EMAIL_VERIFIED = "email_verified"  # by that link
    PASSWORD_SET = "password_set"  # noqa: S105  (by staff or a command; every session ended)
    DEACTIVATED = "deactivated"  # by staff or a command; every session ended
    ACTIVATED = "activated"  # by staff or a command
    RIGHTS_CHANGED = "rights_changed"  # what the user is from now on (staff, superuser)
    EXPORTED = "exported"  # all that is known of the user was written out
    WEBHOOK_CREATED = "webhook_created"  # what becomes of the user's requests is sent to an address (its id)
    WEBHOOK_CHANGED = "webhook_changed"  # by the user (its id, which fields)
    WEBHOOK_DELETED = "webhook_deleted"  # by the user (its id)
    ERASE_ASKED = "erase_asked"  # the user wants all of it removed; it is, within seconds
    ERASED = "erased"  # all that is known of the user was removed
    STAFF_ACTION = "staff_action"  # what the admin logged (what was done to which row)


class SecurityEvent(models.Model):
    """One line. Users are ids without a foreign key: a line outlives its user, and then names nobody."""

    at = models.DateTimeField(db_default=Now(), editable=False)
    event = models.CharField(max_length=20, choices=Event)
    user_id = models.UUIDField("user", null=True, help_text="Whom it concerns; empty: nobody we know.")
    actor_id = models.UUIDField("by", null=True, help_text="Who did it, where that is not the user: staff.")
    address = models.GenericIPAddressField(null=True)
    user_agent = models.CharField(max_length=AGENT)
    request_id = models.CharField(max_length=64, help_text="As in the answer's X-Request-ID and in the log.")
    detail = models.CharField(max_length=DETAIL)

    class Meta:
        indexes = [
            models.Index("user_id", "id", name="event_user"),
            models.Index("actor_id", "id", name="event_actor", condition=models.Q(actor_id__isnull=False)),
            models.Index("event", "id", name="event_event"),
            models.Index("address", "id", name="event_address"),
            models.Index("request_id", name="event_request"),
            models.Index("at", name="event_at"),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.user_id or ''}".strip()


def record(
    event: Event,
    user_id: UUID | None = None,
    *,
    request: Any = None,
    actor_id: UUID | None = None,
    detail: str = "",
    address: str | None = None,
    request_id: str = "",
) -> None:
    """Adds a line, in the caller's transaction if there is one. `request` is Django's or DRF's.

    `address` and `request_id` stand in for a request that was over before.
    Without `request` it is that of the admin's page that is being served, and then its staff is who did it.
    """
    if request is None:
        request = _served.get()
        actor_id = actor_id or getattr(getattr(request, "user", None), "id", None)
    line = SecurityEvent(event=event, user_id=user_id, detail=printable(detail)[:DETAIL])
    line.address, line.request_id = address, request_id
    line.actor_id = None if actor_id == user_id else actor_id
    if request is not None:
        line.address = client_ip.client_address(request) or None
        line.user_agent = printable(request.META.get("HTTP_USER_AGENT", ""))[:AGENT]
        line.request_id = getattr(request, "request_id", "")
    line.save(force_insert=True)
    told = {"name": event.value, "user": user_id and str(user_id), "detail": line.detail}
    transaction.on_commit(lambda: log.info("security_event", **told))  # like the line itself: or it did not happen


def record_refusal(event: Event, user_id: UUID | None, *, request: Any, detail: str = "") -> None:
    """The same for what anybody can bring about without end: a few a minute for each address, and no more."""
    if rate_limit.fits(rate_limit.AUDITED_REFUSALS.claim(f"{event}:{client_ip.address_key(request)}")):
        record(event, user_id, request=request, detail=detail)


def printable(text: str) -> str:
    """`text` without what PostgreSQL refuses or a terminal obeys."""
    return "".join(letter for letter in text if letter.isprintable())


_served: ContextVar[HttpRequest | None] = ContextVar("the page of the admin that is being served", default=None)


class StaffTrail:
    """Middleware of the admin: what is recorded while a page is served was done by its user, from their address."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        before = _served.set(request)
        try:
            return self.get_response(request)
        finally:
            _served.reset(before)
