from django.contrib.postgres.operations import AddConstraintNotValid, ValidateConstraint
from django.db import migrations, models

STATUSES = [
    ("scheduled", "Scheduled"),
    ("queued", "Queued"),
    ("running", "Running"),
    ("retrying", "Retrying"),
    ("blocked", "Blocked"),
    ("succeeded", "Succeeded"),
    ("failed", "Failed"),
    ("cancelled", "Cancelled"),
    ("expired", "Expired"),
]

# Only such queues can have anything ahead. While the release before still runs, what it gives up or passes is not
# counted: such a queue's count is right again once it has been empty, or when `doctor --repair` looked at it.
COUNT = """
    UPDATE queues_userqueue q SET given_up_ahead = n.count
    FROM (SELECT q.id, (SELECT count(*) FROM queues_request r
                        WHERE r.queue_id = q.id AND r.given_up IS NOT NULL AND r.seq > q.done_seq) AS count
          FROM queues_userqueue q WHERE q.active OR q.unpublished) n
    WHERE q.id = n.id AND n.count > 0
"""


class Migration(migrations.Migration):
    atomic = False  # no lock is held from one step to the next

    dependencies = [("queues", "0011_attempt_traceback")]

    operations = [
        migrations.AddField(
            "userqueue",
            "given_up_ahead",
            models.BigIntegerField(
                default=0,
                db_default=0,
                help_text="Beyond done_seq so many are final already: cancelled, purged or expired.",
            ),
        ),
        AddConstraintNotValid(
            "userqueue",
            models.CheckConstraint(name="given_up_ahead_counts", condition=models.Q(given_up_ahead__gte=0)),
        ),
        ValidateConstraint("userqueue", "given_up_ahead_counts"),
        migrations.RunSQL(COUNT, migrations.RunSQL.noop),
        migrations.AlterField(
            "request",
            "status",
            models.CharField(max_length=10, choices=STATUSES, default="queued", db_default="queued"),
        ),
    ]
