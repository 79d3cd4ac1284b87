"""Viewers see kinds and their limits; operators pause and resume them; admins limit them."""

from django.db import migrations

from project.admin.rights import give

SEE = [("kindlimit", "view_kindlimit", "Can view kind")]
OPERATE = [("kindlimit", "operate_kindlimit", "Can pause and resume kinds")]
LIMIT = [("kindlimit", "change_kindlimit", "Can change kind")]
GROUPS = {"viewer": SEE, "operator": SEE + OPERATE, "admin": SEE + OPERATE + LIMIT}


def give_rights(apps, _schema_editor):
    give(apps, "queues", GROUPS)


class Migration(migrations.Migration):
    dependencies = [("queues", "0017_traceparent")]

    # Taken back, they stay: people are in the groups.
    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
