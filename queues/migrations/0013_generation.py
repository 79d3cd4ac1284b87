import django.db.models.functions.datetime
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queues", "0012_given_up_ahead")]

    operations = [
        migrations.AddField(
            "userqueue",
            "generation",
            models.BigIntegerField(
                db_default=0,
                default=0,
                help_text="Grows when RabbitMQ's queue gets another name, because the one it had cannot be used.",
            ),
        ),
        migrations.CreateModel(
            "TokenQueue",
            fields=[
                ("generation", models.BigIntegerField(primary_key=True, serialize=False)),
                (
                    "since",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), default=django.utils.timezone.now
                    ),
                ),
            ],
        ),
    ]
