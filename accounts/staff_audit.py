"""What staff do in the admin, whichever app's page it is, as lines of the audit trail."""

from typing import Any
from uuid import UUID

from django.contrib.admin.models import ADDITION, CHANGE, DELETION
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db.models.signals import post_save
from django.dispatch import receiver

from accounts.audit import Event, record
from accounts.models import User

DONE = {ADDITION: "added", CHANGE: "changed", DELETION: "deleted"}


@receiver(user_logged_in)
def logged_in(request: Any, user: User, **_: Any) -> None:
    record(Event.LOGIN_SUCCEEDED, user.id, request=request, detail="admin")


@receiver(user_logged_out)
def logged_out(request: Any, user: User | None, **_: Any) -> None:
    if user is not None:
        record(Event.LOGOUT, user.id, request=request, detail="admin")


@receiver(post_save, sender="admin.LogEntry")
def acted(instance: Any, created: bool, **_: Any) -> None:
    """The row by its id: what it is called, a user's name perhaps, stands in the admin's log alone."""
    if not created:
        return
    model = instance.content_type and instance.content_type.model_class()
    name = model._meta.label if model else "something"
    concerned = UUID(str(instance.object_id)) if model is User else None
    done = f"{DONE.get(instance.action_flag, 'did')} {name} {instance.object_id}: {instance.get_change_message()}"
    record(Event.STAFF_ACTION, concerned, actor_id=instance.user_id, detail=done)
