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
# Each queue by itself: no more than one is locked at a time, and what was counted stays if it is cut off.
COUNT = """
    DO $$
    DECLARE one bigint;
    BEGIN
        FOR one IN SELECT id FROM queues_userqueue WHERE active OR unpublished ORDER BY id LOOP
            UPDATE queues_userqueue q SET given_up_ahead = n.count
            FROM (SELECT count(*) AS count FROM queues_request r JOIN queues_userqueue u ON u.id = r.queue_id
                  WHERE u.id = one AND r.given_up IS NOT NULL AND r.seq > u.done_seq) n
            WHERE q.id = one AND n.count > 0;
            COMMIT;
        END LOOP;
    END $$
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
