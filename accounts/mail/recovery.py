"""What users do by mail: confirm their address, and get back in with a new password.

Who asks learns nothing about who exists. Asking stores what was asked, the same row for every address; the dispatcher
looks whose address it is (accounts/mail/outbox.py). So the answer and its time are the same for all.
"""

import hashlib
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import transaction

from accounts.audit import Event, record
from accounts.mail import outbox as mail
from accounts.mail.links import RESET, VERIFY, LinkInvalid
from accounts.mail.outbox import Purpose
from accounts.models import User
from project.rest.problems import ServiceUnavailable
from project.web import client_ip, rate_limit


class MailOff(ServiceUnavailable):
    """503: this deployment has no EMAIL_URL."""

    name = "mail-off"
    detail_text = "This service sends no mail. Ask an operator."

    def __init__(self) -> None:
        super().__init__(retry_after=3600)


def ask(request: Any, purpose: Purpose, address: str) -> None:
    """Have a mail sent to whoever has this address. Raises MailOff and TooManyRequests, whoever that is."""
    if not settings.MAIL:
        raise MailOff
    rate_limit.take(request, call_of(request), mails_to(address))
    mail.put(purpose, address, request=request)


def verify_on_registration(request: Any, user: User) -> None:
    """Have a new user's address verified; not if it has had its mails of this hour. To be called in the transaction."""
    if settings.MAIL and user.email and rate_limit.fits(mails_to(user.email)):
        mail.put(Purpose.VERIFY, user.email, request=request, user_id=user.id)


def verify_email(request: Any, token: str) -> User:
    """The address of the token's user is theirs from now on. Raises LinkInvalid and TooManyRequests."""
    rate_limit.take(request, call_of(request))
    user = VERIFY.read(token)
    with transaction.atomic():
        as_read = User.objects.filter(id=user.id, email=user.email, is_active=True)
        if not as_read.exclude(verified_email=user.email).update(verified_email=user.email):
            raise LinkInvalid  # another call with this token was faster
        record(Event.EMAIL_VERIFIED, user.id, request=request)
    return user


def user_to_reset(request: Any, token: str) -> User:
    """Whose password the token may set; it stays unspent. Raises LinkInvalid and TooManyRequests."""
    rate_limit.take(request, call_of(request))
    return RESET.read(token)


def reset_password(request: Any, user: User, new: str) -> None:
    """Set a password for the user of a token, as it was read. Ends all sessions. Raises LinkInvalid."""
    hashed = make_password(new)
    with transaction.atomic():
        as_read = User.objects.filter(id=user.id, password=user.password, email=user.email, is_active=True)
        if not as_read.update(password=hashed, verified_email=user.email):
            raise LinkInvalid  # another call with this token, or another change of password, was faster
        user.end_sessions()
        record(Event.PASSWORD_RESET, user.id, request=request)


def call_of(request: Any) -> rate_limit.Claim:
    return rate_limit.ACCOUNT_CALLS.claim(client_ip.address_key(request))


def mails_to(address: str) -> rate_limit.Claim:
    """Counted by the address written to, whoever asks: nobody's mailbox is filled by others."""
    return rate_limit.MAILS.claim(hashlib.sha256(address.lower().encode()).hexdigest()[:32])
