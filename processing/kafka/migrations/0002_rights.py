"""Viewers see rejected messages; operators replay them."""

from django.db import migrations

SEE = [("view_rejectedmessage", "Can view rejected message")]
REPLAY = [("replay_rejectedmessage", "Can replay rejected messages")]
GROUPS = {"viewer": SEE, "operator": SEE + REPLAY, "admin": SEE + REPLAY}


def give_rights(apps, _schema_editor):
    # Rights are made here, for Django makes them only after all migrations.
    Group = apps.get_model("auth", "Group")
    ContentType = apps.get_model("contenttypes", "ContentType")
    Permission = apps.get_model("auth", "Permission")
    content_type, _ = ContentType.objects.get_or_create(app_label="kafka", model="rejectedmessage")
    for called, rights in GROUPS.items():
        group, _ = Group.objects.get_or_create(name=called)
        for codename, name in rights:
            right, _ = Permission.objects.get_or_create(
                content_type=content_type, codename=codename, defaults={"name": name}
            )
            group.permissions.add(right)


class Migration(migrations.Migration):
    dependencies = [("kafka", "0001_initial"), ("queues", "0008_groups")]

    # Taken back, they stay: people are in the groups.
    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
