from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # the index is made while others write

    dependencies = [("queues", "0009_held")]

    operations = [
        AddIndexConcurrently(
            "request",
            models.Index(
                "given_up", "kind", "id", name="request_given_up_kind", condition=models.Q(given_up__isnull=False)
            ),
        ),
    ]
