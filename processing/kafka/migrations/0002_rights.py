"""Viewers see rejected messages; operators replay them."""

from django.db import migrations

from project.admin.rights import give

SEE = [("rejectedmessage", "view_rejectedmessage", "Can view rejected message")]
REPLAY = [("rejectedmessage", "replay_rejectedmessage", "Can replay rejected messages")]
GROUPS = {"viewer": SEE, "operator": SEE + REPLAY, "admin": SEE + REPLAY}


def give_rights(apps, _schema_editor):
    give(apps, "kafka", GROUPS)


class Migration(migrations.Migration):
    dependencies = [("kafka", "0001_initial"), ("queues", "0008_groups")]

    # Taken back, they stay: people are in the groups.
    operations = [migrations.RunPython(give_rights, migrations.RunPython.noop)]
