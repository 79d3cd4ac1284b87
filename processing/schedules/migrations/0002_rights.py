"""Viewers see schedules; operators pause, resume and run them."""

from django.db import migrations

SEE = [("view_schedule", "Can view schedule")]
OPERATE = [("operate_schedule", "Can pause, resume and run schedules")]
GROUPS = {"viewer": SEE, "operator": SEE + OPERATE, "admin": SEE + OPERATE}


def give_rights(apps, _schema_editor):
    # Rights are made here, for Django makes them only after all migrations.
    Group = apps.get_model("auth", "Group")
    ContentType = apps.get_model("contenttypes", "ContentType")
    Permission = apps.get_model("auth", "Permission")
    content_type, _ = ContentType.objects.get_or_create(app_label="schedules", model="schedule")
    for called, rights in GROUPS.items():
        group, _ = Group.objects.get_or_create(name=called)
        for codename, name in rights:
            right, _ = Permission.objects.get_or_create(
                content_type=content_type, codename=codename, defaults={"name": name}
            )
            group.permissions.add(right)


class Migration(migrations.Migration):
    dependencies = [("schedules", "0001_initial"), ("queues", "0008_groups")]

    # Taken back, they stay: people are in the groups.
    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
