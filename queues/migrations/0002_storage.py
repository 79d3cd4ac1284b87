"""Room on each page for HOT updates, and vacuum in time: these rows are updated far more often than they are added."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("queues", "0001_initial")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE queues_userqueue SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02,"
            " autovacuum_vacuum_threshold = 1000)",
            "ALTER TABLE queues_userqueue RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold)",
        ),
        migrations.RunSQL(
            "ALTER TABLE queues_request SET (fillfactor = 50)", "ALTER TABLE queues_request RESET (fillfactor)"
        ),
    ]
