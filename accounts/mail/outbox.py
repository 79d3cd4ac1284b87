"""Mails put down in PostgreSQL by who asks, for the dispatcher to send (accounts/mail/delivery.py).

A row says what was asked, not what is sent: whose address it is, and which link they get, is found out when it leaves.
"""

from typing import Any
from uuid import UUID

from django.db import models
from django.db.models.functions import Now

from project.web import client_ip


class Purpose(models.TextChoices):
    VERIFY = "verify"  # confirm the address
    RESET = "reset"  # set a new password
    INVITE = "invite"  # an invitation's code


class Mail(models.Model):
    """One that is to be sent. The dispatcher deletes it when it has left, or was tried for a day."""

    purpose = models.CharField(max_length=10, choices=Purpose)
    address = models.CharField(max_length=254, help_text="Where to; whether somebody has it is not known yet.")
    user_id = models.UUIDField(null=True, help_text="Only for this one of the users with the address.")
    invitation = models.ForeignKey("accounts.Invitation", models.CASCADE, null=True, db_index=False)
    asked_from = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=64, db_default="")
    created_at = models.DateTimeField(db_default=Now())
    due_at = models.DateTimeField(db_default=Now(), help_text="When it is tried, or tried again.")
    attempts = models.IntegerField(default=0, db_default=0)

    class Meta:
        indexes = [models.Index("due_at", name="mail_due")]

    def __str__(self) -> str:
        return f"{self.purpose} {self.pk}"


def put(
    purpose: Purpose,
    address: str,
    *,
    request: Any = None,
    user_id: UUID | None = None,
    invitation_id: int | None = None,
) -> None:
    """Have it sent, in the caller's transaction if there is one."""
    mail = Mail(purpose=purpose, address=address, user_id=user_id, invitation_id=invitation_id)
    if request is not None:
        mail.asked_from = client_ip.client_address(request) or None
        mail.request_id = getattr(request, "request_id", "")
    mail.save(force_insert=True)
