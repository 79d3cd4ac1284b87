"""Viewers see webhooks and deliveries; operators have deliveries sent once more."""

from django.db import migrations

SEE = [
    ("webhook", "view_webhook", "Can view webhook"),
    ("delivery", "view_delivery", "Can view delivery"),
]
OPERATE = [("delivery", "operate_delivery", "Can have deliveries sent once more")]
GROUPS = {"viewer": SEE, "operator": SEE + OPERATE, "admin": SEE + OPERATE}


def give_rights(apps, _schema_editor):
    # Rights are made here, for Django makes them only after all migrations.
    Group = apps.get_model("auth", "Group")
    ContentType = apps.get_model("contenttypes", "ContentType")
    Permission = apps.get_model("auth", "Permission")
    for called, rights in GROUPS.items():
        group, _ = Group.objects.get_or_create(name=called)
        for model, codename, name in rights:
            content_type, _ = ContentType.objects.get_or_create(app_label="webhooks", model=model)
            right, _ = Permission.objects.get_or_create(
                content_type=content_type, codename=codename, defaults={"name": name}
            )
            group.permissions.add(right)


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0002_outbox"), ("queues", "0008_groups")]

    # Taken back, they stay: people are in the groups.
    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
