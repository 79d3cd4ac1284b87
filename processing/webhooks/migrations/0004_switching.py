"""Operators switch webhooks off and on."""

from django.db import migrations

OPERATE = ("operate_webhook", "Can switch webhooks on and off")


def give_rights(apps, _schema_editor):
    # Rights are made here, for Django makes them only after all migrations.
    Group = apps.get_model("auth", "Group")
    ContentType = apps.get_model("contenttypes", "ContentType")
    Permission = apps.get_model("auth", "Permission")
    content_type, _ = ContentType.objects.get_or_create(app_label="webhooks", model="webhook")
    codename, name = OPERATE
    right, _ = Permission.objects.get_or_create(content_type=content_type, codename=codename, defaults={"name": name})
    for called in ("operator", "admin"):
        group, _ = Group.objects.get_or_create(name=called)
        group.permissions.add(right)


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0003_rights")]

    operations = [
        migrations.AlterModelOptions(name="webhook", options={"permissions": [OPERATE]}),
        # Taken back, they stay: people are in the groups.
        migrations.RunPython(give_rights, migrations.RunPython.noop),
    ]
