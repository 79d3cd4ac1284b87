"""Viewers see webhooks and deliveries; operators have deliveries sent once more."""

from django.db import migrations

from project.admin.rights import give

SEE = [
    ("webhook", "view_webhook", "Can view webhook"),
    ("delivery", "view_delivery", "Can view delivery"),
]
OPERATE = [("delivery", "operate_delivery", "Can have deliveries sent once more")]
GROUPS = {"viewer": SEE, "operator": SEE + OPERATE, "admin": SEE + OPERATE}


def give_rights(apps, _schema_editor):
    give(apps, "webhooks", GROUPS)


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0002_outbox"), ("queues", "0008_groups")]

    # Taken back, they stay: people are in the groups.
    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
