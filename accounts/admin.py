"""Users and their sessions, for operators."""

from contextlib import suppress
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.db.models import Q, Value
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

from accounts.models import AnyCase, Session, User
from project.admin import FastAdmin, ReadOnlyAdmin


def matching(users: Any, term: str) -> Any:
    """Users whose id, name in any case, e-mail in any case, or beginning of name is `term`: each by an index."""
    found = Q(name=AnyCase(Value(term))) | Q(username__startswith=term) | Q(email__lower=Lower(Value(term)))
    with suppress(ValueError):
        found |= Q(id=UUID(term))
    return users.alias(name=AnyCase("username")).filter(found)


@admin.register(User)
class UserAdmin(FastAdmin, DjangoUserAdmin):
    list_display = ("username", "email", "is_active", "is_staff", "created_at")
    list_filter = ("is_active", "is_staff", "is_superuser")
    search_fields = ("username",)  # shows the field; `get_search_results` searches
    search_help_text = "An id, an e-mail address, a name or its beginning."
    ordering = ("-pk",)
    readonly_fields = ("id", "created_at", "last_login")
    fieldsets = (
        (None, {"fields": ("id", "username", "password", "email")}),
        (_("Permissions"), {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")}),
        (_("Important dates"), {"fields": ("created_at", "last_login")}),
    )
    actions = ("end_sessions",)

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> tuple[Any, bool]:
        term = search_term.strip().replace("\0", "")
        return (matching(queryset, term) if term else queryset), False

    @admin.action(description="End all sessions of the selected users", permissions=["change"])
    def end_sessions(self, request: Any, queryset: Any) -> None:
        ended = sum(user.end_sessions() for user in queryset)
        self.message_user(request, f"{ended} sessions ended.")


@admin.register(Session)
class SessionAdmin(ReadOnlyAdmin):
    list_display = ("id", "user", "address", "user_agent", "created_at", "last_used_at", "ended_at")
    list_select_related = ("user",)
    list_filter = (("ended_at", admin.EmptyFieldListFilter),)
    search_fields = ("user__username",)
    search_help_text = "A user's id, e-mail address, name or its beginning."
    fields = ("id", "user", "address", "user_agent", "created_at", "last_used_at", "ended_at")

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> tuple[Any, bool]:
        term = search_term.strip().replace("\0", "")
        if not term:
            return queryset, False
        return queryset.filter(user__in=matching(User.objects.all(), term)), False
