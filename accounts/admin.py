"""Users and their sessions, for operators."""

from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.db import transaction
from django.db.models import OuterRef, Q, Subquery
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.audit import Event, SecurityEvent, record
from accounts.mail import outbox as mail
from accounts.mail.outbox import Purpose
from accounts.models import Invitation, Session, User
from project.admin.base import FastAdmin, ReadOnlyAdmin
from project.admin.confirming import confirmed

MOST_FOUND = 1000  # users of one e-mail address, or with one beginning of their names, that a search may mean


class FoundByUser(FastAdmin):
    """Searched by what `User.objects.meant_by` takes; `search_fields` only shows the field."""

    user_of = "user"  # the path to it
    most_found = 300  # users of one e-mail address, or with one beginning of their names, that a search may mean
    search_help_text = "A user's id, e-mail address, name or its beginning."

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> tuple[Any, bool]:
        term = search_term.strip().replace("\0", "")
        if not term:
            return queryset, False
        return queryset.filter(**{f"{self.user_of}__in": User.objects.meant_by(term, self.most_found)}), False


@admin.register(User)
class UserAdmin(FoundByUser, DjangoUserAdmin):
    user_of, most_found = "id", MOST_FOUND
    list_display = ("username", "email", "email_confirmed", "state", "role", "created_at")
    list_filter = ("is_active", "is_staff", "is_superuser")
    search_fields = ("username",)
    search_help_text = "An id, an e-mail address, a name or its beginning."
    ordering = ("-pk",)
    readonly_fields = ("id", "created_at", "last_login", "email_confirmed", "erase_asked_at")
    fieldsets = (
        (None, {"fields": ("id", "username", "password", "email", "email_confirmed")}),
        (_("Permissions"), {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")}),
        (_("Important dates"), {"fields": ("created_at", "last_login", "erase_asked_at")}),
    )
    actions = ("end_sessions",)

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        """Nobody gets at a superuser, by a new password for example, who is none."""
        return super().has_change_permission(request, obj) and (
            obj is None or not obj.is_superuser or request.user.is_superuser
        )

    def get_readonly_fields(self, request: Any, obj: Any = None) -> Any:
        """Only superusers make superusers, or give rights past the groups."""
        fixed = () if request.user.is_superuser else ("is_superuser", "user_permissions")
        return (*super().get_readonly_fields(request, obj), *fixed)

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """Deactivate them here; all that is theirs goes with `manage.py user erase`, which leaves no work behind."""
        return False

    @admin.display(description="email confirmed")
    def email_confirmed(self, user: User) -> str:
        if not user.email:
            return "-"
        return "yes" if user.email_verified else "no"

    @admin.display(ordering="is_active")
    def state(self, user: User) -> str:
        return "active" if user.is_active else "deactivated"

    @admin.display(ordering="is_staff")
    def role(self, user: User) -> str:
        return "superuser" if user.is_superuser else "staff" if user.is_staff else "-"

    @confirmed(
        "End all sessions of the selected users",
        "They are logged out everywhere, at once, and have to log in again. Their requests go on.",
        "change",
    )
    def end_sessions(self, request: Any, queryset: Any, reason: str) -> None:
        ended = 0
        for user in queryset:
            with transaction.atomic():
                ended += user.end_sessions()
                record(Event.LOGOUT_ALL, user.id, detail=reason)
        self.message_user(request, f"{ended} sessions ended.")


@admin.register(Session)
class SessionAdmin(FoundByUser, ReadOnlyAdmin):
    most_found = MOST_FOUND
    list_display = ("id", "user", "address", "user_agent", "created_at", "last_used_at", "ended_at")
    list_select_related = ("user",)
    list_filter = (("ended_at", admin.EmptyFieldListFilter),)
    search_fields = ("user__username",)
    fields = ("id", "user", "address", "user_agent", "created_at", "last_used_at", "ended_at")


@admin.register(Invitation)
class InvitationAdmin(FastAdmin):
    """The code is seen by who may change invitations: it is as good as an account."""

    list_display = ("id", "email", "note", "created_at", "expires_at", "used_at", "used_by", "created_by")
    list_select_related = ("used_by", "created_by")
    list_filter = (("used_at", admin.EmptyFieldListFilter),)
    search_fields = ("email", "note")
    fields = ("email", "note", "expires_at", "invitation_code", "created_at", "created_by", "used_at", "used_by")
    readonly_fields = ("invitation_code", "created_at", "created_by", "used_at", "used_by")

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        """What was used stays as it was; what was mailed goes to that address."""
        return super().has_change_permission(request, obj) and (obj is None or obj.used_at is None)

    def get_readonly_fields(self, request: Any, obj: Any = None) -> Any:
        return (*self.readonly_fields, "email") if obj else self.readonly_fields

    def get_fields(self, request: Any, obj: Any = None) -> Any:
        """Who may only look at it sees no code."""
        shown = self.fields if obj else ("email", "note", "expires_at")
        return [name for name in shown if name != "invitation_code" or self.has_change_permission(request, obj)]

    def save_model(self, request: Any, obj: Any, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        obj.created_by = request.user
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            if obj.email and settings.MAIL:
                mail.put(Purpose.INVITE, obj.email, invitation_id=obj.id)
        mailed = f" It is mailed to {obj.email}." if obj.email and settings.MAIL else ""
        self.message_user(request, f"The code of this invitation is {obj.code}.{mailed}")

    @admin.display(description="code")
    def invitation_code(self, invitation: Invitation) -> str:
        return invitation.code


class AtFilter(admin.SimpleListFilter):
    title = "time"
    parameter_name = "within"
    SPANS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, f"within the last {name}") for name in self.SPANS]

    def queryset(self, request: Any, queryset: Any) -> Any:
        span = self.SPANS.get(self.value() or "")
        return queryset.filter(at__gte=timezone.now() - span) if span else queryset


@admin.register(SecurityEvent)
class SecurityEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "event", "user", "by", "address", "detail", "request_id")
    list_display_links = ("at", "event")
    list_filter = ("event", AtFilter)
    search_fields = ("request_id",)  # shows the field; `get_search_results` searches
    search_help_text = "A user's id, e-mail address, name or its beginning; an address; a request id."
    fields = ("at", "event", "user", "by", "address", "user_agent", "request_id", "detail")

    def get_queryset(self, request: Any) -> Any:
        named = User.objects.values("username")
        return (
            super()
            .get_queryset(request)
            .annotate(
                user_name=Subquery(named.filter(id=OuterRef("user_id"))),
                actor_name=Subquery(named.filter(id=OuterRef("actor_id"))),
            )
        )

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> tuple[Any, bool]:
        """Each by its index. An erased user is found by the id alone."""
        term = search_term.strip().replace("\0", "")
        if not term:
            return queryset, False
        users = User.objects.meant_by(term, MOST_FOUND)
        with suppress(ValueError):
            users.append(UUID(term))
        found = Q(user_id__in=users) | Q(actor_id__in=users) | Q(request_id=term)
        with suppress(ValueError):
            found |= Q(address=str(ip_address(term)))
        return queryset.filter(found), False

    @admin.display(description="user")
    def user(self, line: Any) -> str | None:
        return line.user_name or line.user_id

    @admin.display(description="by")
    def by(self, line: Any) -> str | None:
        return line.actor_name or line.actor_id
