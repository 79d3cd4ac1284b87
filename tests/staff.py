"""Staff of the groups that the migrations make."""

from importlib import import_module
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Group

from accounts.models import User
from tests.client import Client

MAKING = (
    ("queues.migrations.0008_groups", "make_groups"),
    ("queues.migrations.0018_kind_rights", "give_rights"),
    ("processing.schedules.migrations.0002_rights", "give_rights"),
    ("processing.kafka.migrations.0002_rights", "give_rights"),
    ("processing.webhooks.migrations.0003_rights", "give_rights"),
    ("processing.webhooks.migrations.0004_switching", "give_rights"),
)


def make_groups() -> None:
    """As the migrations make them; a test that empties the database takes them away."""
    for module, name in MAKING:
        getattr(import_module(module), name)(apps, None)


def member_of(group: str) -> Client:
    """Logged in as a new user of the group."""
    user = User.objects.create_user(f"the-{group}", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    client = Client()
    client.force_login(user)
    return client


def confirm(client: Client, path: str, asked: dict[str, Any], reason: str = "ticket 4711", **more: Any) -> Any:
    """Ask for an action and confirm it; the answer. Who may not ask confirms it all the same."""
    page = client.post(path, asked)
    token = page.context["confirmed"] if page.context else "made up"
    return client.post(path, {**asked, "confirmed": token, "reason": reason}, **more)
