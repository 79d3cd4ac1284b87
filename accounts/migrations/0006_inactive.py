from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # the index is made while others write

    dependencies = [("accounts", "0005_security_events")]

    operations = [
        AddIndexConcurrently(
            "user", models.Index(models.F("id"), condition=models.Q(is_active=False), name="user_inactive")
        ),
    ]
