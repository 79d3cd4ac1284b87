"""What the routes of users and sessions take and show."""

import unicodedata
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.contrib.auth import password_validation
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError as DjangoValidationError
from rest_framework import serializers

from accounts.models import Session, User
from accounts.tokens import LONGEST
from project.rest.serializers import StrictSerializer, Text

PASSWORD_LENGTH = 1024
LONGEST_MAILED = 512  # characters of a token in a mail; ours have about 130


class Username(Text):
    """Normalised with NFKC, so that what looks the same is the same."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=150, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        return unicodedata.normalize("NFKC", super().to_internal_value(data))


def refuse_id(username: str) -> None:
    """Nobody is named as another's id is written: where either is taken, the name would stand for two."""
    with suppress(ValueError):
        UUID(username)
        raise serializers.ValidationError("Choose a name that is not written as an id.", code="invalid")


class Email(Text, serializers.EmailField):
    def to_internal_value(self, data: Any) -> str:
        return User.objects.normalize_email(super().to_internal_value(data))


class RegisterBody(StrictSerializer):
    username = Username(validators=[UnicodeUsernameValidator(), refuse_id])
    password = Text(max_length=PASSWORD_LENGTH)
    email = Email(
        required=False, allow_blank=True, max_length=254, default="", help_text="Where a link to confirm it is mailed."
    )
    invitation = Text(
        required=False, allow_blank=True, max_length=100, default="", help_text="Its code, where one is needed."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        check_new_password(attrs["password"], User(username=attrs["username"], email=attrs["email"]), "password")
        return attrs


class VerifyBody(StrictSerializer):
    """One of both: the token confirms, the address asks for a mail with another token."""

    token = Text(required=False, max_length=LONGEST_MAILED, help_text="From the link in the mail.")
    email = Email(required=False, max_length=254, help_text="Whose link got lost or has expired.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            said = "Send either token or email."
            raise serializers.ValidationError(said, code="one_of")
        return attrs


class ResetBody(StrictSerializer):
    email = Email(max_length=254, help_text="Of the account.")


class ResetConfirmBody(StrictSerializer):
    token = Text(max_length=LONGEST_MAILED, help_text="From the link in the mail.")
    new_password = Text(max_length=PASSWORD_LENGTH)


class EraseBody(StrictSerializer):
    password = Text(max_length=PASSWORD_LENGTH)


class LoginBody(StrictSerializer):
    username = Username()
    password = Text(max_length=PASSWORD_LENGTH)


class RefreshBody(StrictSerializer):
    refresh = Text(max_length=LONGEST)


class PasswordBody(StrictSerializer):
    current_password = Text(max_length=PASSWORD_LENGTH)
    new_password = Text(max_length=PASSWORD_LENGTH)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        check_new_password(attrs["new_password"], self.context["request"].user, "new_password")
        return attrs


def check_new_password(password: str, user: User, field: str) -> None:
    try:
        password_validation.validate_password(password, user)
    except DjangoValidationError as weak:
        details = [serializers.ErrorDetail(e.messages[0], e.code or "invalid") for e in weak.error_list]
        raise serializers.ValidationError({field: details}) from None


class UserShown(serializers.ModelSerializer[User]):
    email = serializers.CharField(read_only=True, help_text="Empty where none was given.")

    class Meta:
        model = User
        fields: Any = ("id", "username", "email")
        read_only_fields: Any = fields


class MeShown(UserShown):
    class Meta(UserShown.Meta):
        fields = ("id", "username", "email", "created_at")
        read_only_fields: Any = fields


class EmailShown(serializers.Serializer[User]):
    email = serializers.CharField(help_text="Empty where none was given.")
    confirmed = serializers.BooleanField(source="email_verified", help_text="Whether you get the mail that goes there.")


class TokensShown(serializers.Serializer[Any]):
    access = serializers.CharField(help_text="For `Authorization: Bearer`; lives minutes.")
    refresh = serializers.CharField(
        required=False, help_text="Good for one refresh; lives days. Absent with `Accept-Session: cookie`."
    )


class SessionShown(serializers.ModelSerializer[Session]):
    current = serializers.SerializerMethodField(help_text="The session of the token that asks.")

    class Meta:
        model = Session
        fields = ("id", "created_at", "last_used_at", "address", "user_agent", "current")
        read_only_fields = fields

    def get_current(self, session: Session) -> bool:
        return bool(session.id == self.context["session_id"])
