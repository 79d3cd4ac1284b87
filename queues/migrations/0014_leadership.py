from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queues", "0013_generation")]

    operations = [
        migrations.CreateModel(
            name="Leadership",
            fields=[
                ("shard", models.IntegerField(primary_key=True, serialize=False)),
                (
                    "holder",
                    models.CharField(
                        help_text="The dispatcher: its machine, process and a random part.", max_length=200
                    ),
                ),
                ("epoch", models.BigIntegerField(help_text="Grows each time the lead is taken.")),
                (
                    "lead_until",
                    models.DateTimeField(help_text="From then on another may take it; the database's clock."),
                ),
                (
                    "renewed_at",
                    models.DateTimeField(blank=True, help_text="Its leader's last sign; empty: given up.", null=True),
                ),
            ],
        ),
    ]
