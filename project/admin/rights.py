"""Rights of the groups of staff, as migrations give them."""

from collections.abc import Iterable, Mapping
from typing import Any

Right = tuple[str, str, str]  # model, codename, name


def give(apps: Any, app: str, groups: Mapping[str, Iterable[Right]]) -> None:
    """Have each group, by its name, hold these rights of an app. `apps` are a migration's, or Django's own.

    Rights that are missing are made, for Django makes them only after all migrations.
    """
    group_model, right_model = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    type_model = apps.get_model("contenttypes", "ContentType")
    for called, rights in groups.items():
        group, _ = group_model.objects.get_or_create(name=called)
        for model, codename, name in rights:
            content_type, _ = type_model.objects.get_or_create(app_label=app, model=model)
            right, _ = right_model.objects.get_or_create(
                content_type=content_type, codename=codename, defaults={"name": name}
            )
            group.permissions.add(right)
