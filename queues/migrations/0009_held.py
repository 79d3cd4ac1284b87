"""Who paused a queue decides who may resume it. The new column rewrites no table: its default is a constant."""

from django.db import migrations, models

# Those that are paused as it is introduced, found by the index of paused queues.
HOLD = "UPDATE queues_userqueue SET held = true WHERE paused AND paused_by NOT IN ('', 'its owner')"


class Migration(migrations.Migration):
    dependencies = [("queues", "0008_groups")]

    operations = [
        migrations.AddField(
            model_name="userqueue",
            name="held",
            field=models.BooleanField(
                db_default=False, default=False, help_text="Paused by an operator: its owner cannot resume it."
            ),
        ),
        migrations.RunSQL(HOLD, migrations.RunSQL.noop),
    ]
