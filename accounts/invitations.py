"""Invitations: with REGISTRATION=invite nobody registers without the code of one. Operators make them in the admin."""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core import signing
from django.db import models
from django.db.models.functions import Lower, Now
from django.utils import timezone

from project.rest.problems import FieldError, Forbidden, Invalid

LIFETIME = timedelta(days=7)
SIGNER = signing.Signer(sep=".", salt="accounts.invitations")
WRONG = FieldError("invitation", "invalid", "This invitation is not valid: it was used, has expired, or is mistyped.")


class RegistrationClosed(Forbidden):
    name = "registration-closed"
    detail_text = "Nobody can register here by themselves. Ask an operator for an account."


def in_a_week() -> datetime:
    return timezone.now() + LIFETIME


class Invitation(models.Model):
    """Good for one registration. Its code is signed, not stored: who reads the table cannot register with it."""

    email = models.EmailField(
        blank=True, default="", db_default="", help_text="It is mailed there and good for this address alone."
    )
    note = models.CharField(max_length=200, blank=True, default="", db_default="", help_text="For whom, for operators.")
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, editable=False, related_name="+", db_index=False
    )
    expires_at = models.DateTimeField(default=in_a_week)
    used_at = models.DateTimeField(null=True, editable=False)
    used_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, editable=False, related_name="invitations"
    )

    def __str__(self) -> str:
        return f"invitation {self.pk}"

    @property
    def code(self) -> str:
        return SIGNER.sign(str(self.pk))


def check(code: str, email: str) -> models.QuerySet[Invitation]:
    """The invitation that the code is of, to be spent by `spend`. Raises RegistrationClosed, and Invalid.

    None where anybody may register: then the code is not looked at.
    """
    if settings.ENV.registration == "closed":
        raise RegistrationClosed
    if settings.ENV.registration == "open":
        return Invitation.objects.none()
    if not code:
        raise Invalid(FieldError("invitation", "required", "Registration needs the code of an invitation."))
    try:
        number = int(SIGNER.unsign(code))
    except signing.BadSignature:
        raise Invalid(WRONG) from None
    fits = models.Q(email="") | models.Q(lower=email.lower())
    found = Invitation.objects.alias(lower=Lower("email")).filter(fits, id=number, used_at=None, expires_at__gt=Now())
    if not found.exists():
        raise Invalid(WRONG)
    return found


def spend(invitation: models.QuerySet[Invitation], user: Any) -> None:
    """In the transaction that makes the user. Raises Invalid when somebody else was faster."""
    if settings.ENV.registration == "invite" and not invitation.update(used_at=Now(), used_by=user):
        raise Invalid(WRONG)
