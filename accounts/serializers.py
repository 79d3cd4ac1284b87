"""What the routes of users and sessions take and show."""

import unicodedata
from typing import Any

from django.contrib.auth import password_validation
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError as DjangoValidationError
from rest_framework import serializers

from accounts.models import Session, User
from accounts.tokens import LONGEST
from project.rest.serializers import StrictSerializer, Text

PASSWORD_LENGTH = 1024


class Username(Text):
    """Normalised with NFKC, so that what looks the same is the same."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=150, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        return unicodedata.normalize("NFKC", super().to_internal_value(data))


class Email(Text, serializers.EmailField):
    def to_internal_value(self, data: Any) -> str:
        return User.objects.normalize_email(super().to_internal_value(data))


class RegisterBody(StrictSerializer):
    username = Username(validators=[UnicodeUsernameValidator()])
    password = Text(max_length=PASSWORD_LENGTH)
    email = Email(required=False, allow_blank=True, max_length=254, default="")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        check_new_password(attrs["password"], User(username=attrs["username"], email=attrs["email"]), "password")
        return attrs


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


class TokensShown(serializers.Serializer[Any]):
    access = serializers.CharField(help_text="For `Authorization: Bearer`; lives minutes.")
    refresh = serializers.CharField(help_text="Good for one refresh; lives days.")


class SessionShown(serializers.ModelSerializer[Session]):
    current = serializers.SerializerMethodField(help_text="The session of the token that asks.")

    class Meta:
        model = Session
        fields = ("id", "created_at", "last_used_at", "address", "user_agent", "current")
        read_only_fields = fields

    def get_current(self, session: Session) -> bool:
        return bool(session.id == self.context["session_id"])
