from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # the index is made while others write

    dependencies = [("accounts", "0008_mail_and_erasure")]

    operations = [
        AddIndexConcurrently(
            "user",
            models.Index(
                models.F("id"), condition=models.Q(erase_asked_at__isnull=False), name="user_erase_asked"
            ),
        ),
    ]
