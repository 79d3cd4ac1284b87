"""Viewers see schedules; operators pause, resume and run them."""

from django.db import migrations

from project.admin.rights import give

SEE = [("schedule", "view_schedule", "Can view schedule")]
OPERATE = [("schedule", "operate_schedule", "Can pause, resume and run schedules")]
GROUPS = {"viewer": SEE, "operator": SEE + OPERATE, "admin": SEE + OPERATE}


def give_rights(apps, _schema_editor):
    give(apps, "schedules", GROUPS)


class Migration(migrations.Migration):
    dependencies = [("schedules", "0001_initial"), ("queues", "0008_groups")]

    # Taken back, they stay: people are in the groups.
    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
