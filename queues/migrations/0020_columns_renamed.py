"""Four columns of a queue get the field's names. Where there are users, the release before still serves: it goes on
under the old names, and a trigger keeps both alike. The release after this one drops the trigger and the old columns.
"""

from django.db import migrations, transaction

# The old name: the new one, its type, and what a row has that says nothing of it.
RENAMED = {
    "careful_to": ("crash_recovery_until_seq", "bigint NOT NULL DEFAULT 0", "0"),
    "held": ("operator_paused", "boolean NOT NULL DEFAULT false", "false"),
    "holder": ("worker_id", "bigint", "NULL::bigint"),
    "seconds_each": ("avg_service_seconds", "double precision", "NULL::float8"),
}
NEW = {old: new for old, (new, _, _) in RENAMED.items()}
ADD = ", ".join(f"ADD COLUMN IF NOT EXISTS {new} {kind}" for new, kind, _ in RENAMED.values())
COPY = ", ".join(f"{new} = {old}" for old, new in NEW.items())
DIFFER = f"({', '.join(NEW)}) IS DISTINCT FROM ({', '.join(NEW.values())})"
DIFFER_NOW = " OR ".join(f"NEW.{old} IS DISTINCT FROM NEW.{new}" for old, new in NEW.items())

# Whoever writes one of a pair writes the other. Both agreed before, so a statement that changes neither never calls it.
ALIKE = f"""
    CREATE OR REPLACE FUNCTION queues_userqueue_alike() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {"".join(f'''
        IF NEW.{new} IS DISTINCT FROM coalesce(OLD.{new}, {empty}) THEN NEW.{old} := NEW.{new};
        ELSE NEW.{new} := NEW.{old}; END IF;''' for old, (new, _, empty) in RENAMED.items())}
        RETURN NEW;
    END $$;
    DROP TRIGGER IF EXISTS queues_userqueue_alike ON queues_userqueue;
    CREATE TRIGGER queues_userqueue_alike BEFORE INSERT OR UPDATE ON queues_userqueue
    FOR EACH ROW WHEN ({DIFFER_NOW}) EXECUTE FUNCTION queues_userqueue_alike();
"""

# It waits for nobody's lock, so it deadlocks with nobody: what is locked is looked at again, if whoever had it did not
# write it and so had it copied.
FILL = f"""
    DO $$
    DECLARE last bigint := 0; batch bigint[];
    BEGIN
        LOOP
            batch := ARRAY (SELECT id FROM queues_userqueue WHERE id > last AND {DIFFER}
                            ORDER BY id LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED);
            UPDATE queues_userqueue SET {COPY} WHERE id = ANY (batch);
            COMMIT;
            IF batch <> '{{}}' THEN last := batch[cardinality(batch)];
            ELSIF EXISTS (SELECT FROM queues_userqueue WHERE {DIFFER}) THEN last := 0; PERFORM pg_sleep(0.1);
            ELSE EXIT;
            END IF;
        END LOOP;
    END $$
"""

NEW_GO = f"""
    DROP TRIGGER queues_userqueue_alike ON queues_userqueue;
    DROP FUNCTION queues_userqueue_alike();
    ALTER TABLE queues_userqueue {", ".join(f"DROP COLUMN {new}" for new in NEW.values())};
"""
HAS_USERS = "SELECT EXISTS (SELECT FROM accounts_user)"
HAS_BOTH = "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'queues_userqueue_alike')"


def forward(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(HAS_USERS)
        if cursor.fetchone()[0]:
            with transaction.atomic(schema_editor.connection.alias):
                cursor.execute(f"ALTER TABLE queues_userqueue {ADD}")
                cursor.execute(ALIKE)
            cursor.execute(FILL)
        else:
            rename(cursor, NEW)


def back(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor, transaction.atomic(schema_editor.connection.alias):
        cursor.execute(HAS_BOTH)
        if cursor.fetchone()[0]:
            cursor.execute(NEW_GO)
        else:
            rename(cursor, {new: old for old, new in NEW.items()})


def rename(cursor, names):
    """All in one transaction: several statements sent at once are one."""
    cursor.execute("".join(f"ALTER TABLE queues_userqueue RENAME {old} TO {new};" for old, new in names.items()))


class Migration(migrations.Migration):
    atomic = False  # the lock of the new columns is not held while they are filled

    dependencies = [("queues", "0019_bulk_action")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(forward, back)],
            state_operations=[migrations.RenameField("userqueue", old, new) for old, new in NEW.items()],
        )
    ]
