from django.db import migrations, models


class Migration(migrations.Migration):
    """Rows of before, and those that an old release adds meanwhile, count as nothing: so no row has to be touched."""

    dependencies = [("queues", "0014_leadership")]

    operations = [
        migrations.AddField(
            "userqueue",
            "bytes_stored",
            models.BigIntegerField(db_default=0, default=0, help_text="The sum of its requests' bytes."),
        ),
        migrations.AddField(
            "request",
            "bytes",
            models.IntegerField(
                db_default=0,
                default=0,
                help_text="Of the texts of payload and result; 0: accepted before they were counted.",
            ),
        ),
    ]
