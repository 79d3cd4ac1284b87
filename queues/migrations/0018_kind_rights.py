"""Viewers see kinds and their limits; operators pause and resume them; admins limit them."""

from django.db import migrations

SEE = [("view_kindlimit", "Can view kind")]
OPERATE = [("operate_kindlimit", "Can pause and resume kinds")]
LIMIT = [("change_kindlimit", "Can change kind")]
GROUPS = {"viewer": SEE, "operator": SEE + OPERATE, "admin": SEE + OPERATE + LIMIT}


def give_rights(apps, _schema_editor):
    # Rights are made here, for Django makes them only after all migrations.
    Group = apps.get_model("auth", "Group")
    ContentType = apps.get_model("contenttypes", "ContentType")
    Permission = apps.get_model("auth", "Permission")
    content_type, _ = ContentType.objects.get_or_create(app_label="queues", model="kindlimit")
    for called, rights in GROUPS.items():
        group, _ = Group.objects.get_or_create(name=called)
        for codename, name in rights:
            right, _ = Permission.objects.get_or_create(
                content_type=content_type, codename=codename, defaults={"name": name}
            )
            group.permissions.add(right)


class Migration(migrations.Migration):
    dependencies = [("queues", "0017_traceparent")]

    # Taken back, they stay: people are in the groups.
    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
