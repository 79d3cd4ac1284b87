"""The dispatcher sends the mails that were put down, one at a time, until one try succeeds.

Killed between sending and deleting the row, it sends a mail twice.
"""

import re
import smtplib
from datetime import timedelta

import structlog
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import models
from django.db.models.functions import Collate, Lower
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.http import urlencode
from prometheus_client import Counter

from accounts.audit import Event, record
from accounts.invitations import Invitation
from accounts.mail.links import RESET, VERIFY
from accounts.mail.outbox import Mail, Purpose
from accounts.models import User

MOST_ACCOUNTS = 10  # of one address, in one mail
GIVEN_UP_AFTER = timedelta(days=1)
# The next try's moment is written before this one begins: who is killed has not lost the mail.
TAKE = """
    UPDATE accounts_mail SET attempts = attempts + 1,
        due_at = statement_timestamp() + least(3600, 30 * 2 ^ attempts) * interval '1 second'
    WHERE id = (SELECT id FROM accounts_mail WHERE due_at <= statement_timestamp()
                ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING *
"""

MAILS = Counter("ordered_work_mails", "Mails, by what became of them; failed ones are tried again.", ["outcome"])
for _outcome in ("sent", "failed", "given_up"):
    MAILS.labels(_outcome)

log = structlog.get_logger(__name__)

SENT = {Purpose.VERIFY: Event.VERIFICATION_MAILED, Purpose.RESET: Event.RESET_MAILED}


def send_next() -> bool:
    """Try one mail that is due; whether there was one. What fails has its next try later."""
    for mail in Mail.objects.raw(TAKE):
        try:
            send(mail)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            failed(mail, error)
        else:
            Mail.objects.filter(id=mail.id).delete()
        return True
    return False


def send(mail: Mail) -> None:
    """Send it, if there is somebody to get it. Raises OSError, SMTPException, and ValueError where none can be made."""
    users = users_of(mail)
    text = invitation(mail) if mail.purpose == Purpose.INVITE else links_for(mail, users)
    if not text:
        return
    subject, _, text = text.partition("\n")
    with get_connection() as connection:
        to = users[0].email if users else mail.address
        EmailMessage(subject, text.lstrip("\n"), to=[to], connection=connection).send()
    MAILS.labels("sent").inc()
    for user in users:
        record(SENT[Purpose(mail.purpose)], user.id, address=mail.asked_from, request_id=mail.request_id)
    log.info("mail_sent", purpose=mail.purpose, mail=mail.id, attempts=mail.attempts)


def users_of(mail: Mail) -> list[User]:
    """Who has this address, and what the mail is for still to do.

    Theirs may be written with other ASCII capitals, and with nothing else that differs: in lower case a Kelvin sign is
    a k, and still another mailbox.
    """
    spelled = mail.address.encode().lower().decode()  # ASCII alone, as the collation C
    users = User.objects.filter(email__lower=Lower(models.Value(mail.address)), is_active=True).order_by("id")
    users = users.alias(spelled=Lower(Collate("email", "C"))).filter(spelled=spelled)
    if mail.user_id:
        users = users.filter(id=mail.user_id)
    if mail.purpose == Purpose.VERIFY:
        return list(users.exclude(verified_email=models.F("email"))[:MOST_ACCOUNTS])
    if mail.purpose == Purpose.RESET:
        return [user for user in users[:MOST_ACCOUNTS] if user.has_usable_password()]
    return []


def links_for(mail: Mail, users: list[User]) -> str:
    """The text with a link for each of them, the subject first; empty where there is nobody."""
    if not users:
        return ""
    token, page = {"verify": (VERIFY, "verify-email"), "reset": (RESET, "password-reset/confirm")}[mail.purpose]
    to = f"{settings.ENV.public_url}/account/{page}?"
    context = {
        "links": [(user.username, to + urlencode({"token": token.make(user)})) for user in users],
        "lifetime": lifetime(token.seconds),
        "site": settings.ENV.public_url,
    }
    return render_to_string(f"accounts/mail/{mail.purpose}.txt", context)


def invitation(mail: Mail) -> str:
    """The text with the code of one that can still be used; empty if it cannot."""
    usable = Invitation.objects.filter(used_at=None, expires_at__gt=timezone.now())
    found = usable.filter(id=mail.invitation_id).first() if mail.invitation_id else None
    return (
        render_to_string("accounts/mail/invite.txt", {"invitation": found, "site": settings.ENV.public_url})
        if found
        else ""
    )


def failed(mail: Mail, error: Exception) -> None:
    said = re.sub(re.escape(mail.address), "(the address)", str(error).strip(), flags=re.IGNORECASE)  # logs name nobody
    told = {"purpose": mail.purpose, "mail": mail.id, "attempts": mail.attempts, "error": said[:500]}
    if timezone.now() - mail.created_at < GIVEN_UP_AFTER:
        MAILS.labels("failed").inc()
        log.warning("mail_failed", **told)
        return
    MAILS.labels("given_up").inc()
    log.error("mail_given_up", **told, request_id=mail.request_id)
    Mail.objects.filter(id=mail.id).delete()


def lifetime(seconds: int) -> str:
    """As a person would say it."""
    for name, unit in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= unit and seconds % unit == 0:
            count = seconds // unit
            return f"{count} {name}{'s' if count > 1 else ''}"
    return f"{seconds} seconds"
