"""Operators switch webhooks off and on."""

from django.db import migrations

from project.admin.rights import give

OPERATE = ("operate_webhook", "Can switch webhooks on and off")
GROUPS = {"operator": [("webhook", *OPERATE)], "admin": [("webhook", *OPERATE)]}


def give_rights(apps, _schema_editor):
    give(apps, "webhooks", GROUPS)


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0003_rights")]

    operations = [
        migrations.AlterModelOptions(name="webhook", options={"permissions": [OPERATE]}),
        # Taken back, they stay: people are in the groups.
        migrations.RunPython(give_rights, migrations.RunPython.noop),
    ]
