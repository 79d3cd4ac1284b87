"""Where a failed attempt failed, for operators. A column without a value rewrites no table, and old code leaves it out."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queues", "0010_given_up_by_kind")]

    operations = [
        migrations.AddField(
            model_name="attempt",
            name="traceback",
            field=models.TextField(null=True, blank=True, help_text="Of what the handler raised; for operators."),
        ),
    ]
