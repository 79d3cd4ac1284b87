"""What a link in a mail proves: that its reader gets the mail of a user's address. Nothing of it is stored.

A token is signed over the user as they are: their password and address, and for a verification whether that was done.
So it is worth nothing once it has been used, the password or address has changed, or its time is over.
"""

from uuid import UUID

from django.conf import settings
from django.core import signing
from django.utils.crypto import constant_time_compare, salted_hmac

from accounts.models import User
from project.rest.problems import FieldError, Invalid


class LinkInvalid(Invalid):
    """400: one answer for what was used, has expired, was cut, or is none of ours."""

    def __init__(self) -> None:
        said = "This link is not valid: it was used, has expired, or is not complete. Ask for another one."
        super().__init__(FieldError("token", "invalid", said))


class MailToken:
    """The tokens of one purpose; those of another one do not fit."""

    def __init__(self, purpose: str, setting: str) -> None:
        self.salt = f"accounts.mail_tokens.{purpose}"
        self.setting = setting
        self.once = purpose == "verify"

    @property
    def seconds(self) -> int:
        return int(getattr(settings.ENV, self.setting))

    def make(self, user: User) -> str:
        return signing.dumps([user.id.hex, self.state(user)], salt=self.salt)

    def read(self, token: str) -> User:
        """The active user whom it was made for. Raises LinkInvalid."""
        try:
            user_id, state = signing.loads(token, salt=self.salt, max_age=self.seconds)
        except signing.BadSignature:
            raise LinkInvalid from None
        user = User.objects.filter(id=UUID(user_id), is_active=True).first()
        if user is None or not constant_time_compare(state, self.state(user)):
            raise LinkInvalid
        return user

    def state(self, user: User) -> str:
        """Changes with all that makes the token worthless."""
        told = [user.password, user.email, user.verified_email if self.once else ""]
        return salted_hmac(self.salt, "\0".join(told), algorithm="sha256").hexdigest()[:32]


VERIFY = MailToken("verify", "email_verification_seconds")
RESET = MailToken("reset", "password_reset_seconds")
