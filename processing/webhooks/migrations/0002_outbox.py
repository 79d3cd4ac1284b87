"""PostgreSQL itself writes the messages: in the transaction that makes a request final, or its queue blocked.

Statement-level for requests: one look for a statement that records hundreds. A user without a webhook costs that look.
The row of a webhook is only read: a worker that records waits for nobody who changes one.
"""

from django.db import migrations

FORWARD = """
ALTER TABLE webhooks_webhook ADD CONSTRAINT webhook_goes_with_its_queue
    FOREIGN KEY (queue_id) REFERENCES queues_userqueue (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;

CREATE FUNCTION webhooks_finished() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    hooked uuid[];
BEGIN
    hooked := ARRAY (
        SELECT w.id FROM (SELECT DISTINCT queue_id FROM after_it) q
        CROSS JOIN LATERAL (SELECT id FROM webhooks_webhook WHERE queue_id = q.queue_id AND enabled OFFSET 0) w);
    IF hooked <> '{}' THEN
        INSERT INTO webhooks_delivery (uid, webhook_id, event, request_id, created_at)
        SELECT gen_random_uuid(), w.id, 'request.' || a.status, a.id, a.finished_at
        FROM after_it a JOIN before_it b ON b.id = a.id AND b.finished_at IS NULL
        JOIN webhooks_webhook w
            ON w.id = ANY (hooked) AND w.queue_id = a.queue_id AND ('request.' || a.status) = ANY (w.events)
        WHERE a.finished_at IS NOT NULL
        ORDER BY a.seq NULLS FIRST, a.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER webhooks_finished AFTER UPDATE ON queues_request
    REFERENCING OLD TABLE AS before_it NEW TABLE AS after_it
    FOR EACH STATEMENT EXECUTE FUNCTION webhooks_finished();

CREATE FUNCTION webhooks_blocked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO webhooks_delivery (uid, webhook_id, event, request_id, created_at)
    SELECT gen_random_uuid(), w.id, 'request.blocked', r.id, clock_timestamp()
    FROM webhooks_webhook w JOIN queues_request r ON r.queue_id = NEW.id AND r.seq = NEW.done_seq + 1
    WHERE w.queue_id = NEW.id AND w.enabled AND 'request.blocked' = ANY (w.events);
    RETURN NULL;
END $$;
CREATE TRIGGER webhooks_blocked AFTER UPDATE OF state ON queues_userqueue
    FOR EACH ROW WHEN (NEW.state = 'blocked' AND OLD.state <> 'blocked') EXECUTE FUNCTION webhooks_blocked();
"""
BACKWARD = """
DROP TRIGGER webhooks_blocked ON queues_userqueue;
DROP FUNCTION webhooks_blocked();
DROP TRIGGER webhooks_finished ON queues_request;
DROP FUNCTION webhooks_finished();
ALTER TABLE webhooks_webhook DROP CONSTRAINT webhook_goes_with_its_queue;
"""


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
