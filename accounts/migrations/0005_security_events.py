"""The audit trail. Its lines cannot be changed, but for what accounts/retention.py takes away and says so."""

import django.db.models.functions.datetime
from django.db import migrations, models


KEPT = """
CREATE FUNCTION accounts_securityevent_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('ordered_work.audit', true) IS DISTINCT FROM 'forget' THEN
        RAISE EXCEPTION 'Lines of the audit trail are not changed.' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    IF NEW.address IS NOT NULL OR NEW.user_agent <> ''
       OR (NEW.id, NEW.at, NEW.event, NEW.user_id, NEW.actor_id, NEW.request_id, NEW.detail)
       IS DISTINCT FROM (OLD.id, OLD.at, OLD.event, OLD.user_id, OLD.actor_id, OLD.request_id, OLD.detail) THEN
        RAISE EXCEPTION 'Only address and program are taken out.' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""
GUARD = """
CREATE TRIGGER accounts_securityevent_kept BEFORE UPDATE OR DELETE ON accounts_securityevent
FOR EACH ROW EXECUTE FUNCTION accounts_securityevent_kept()
"""


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0004_any_case_everywhere'),
    ]

    operations = [
        migrations.CreateModel(
            name='SecurityEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('event', models.CharField(choices=[('registered', 'Registered'), ('login_succeeded', 'Login Succeeded'), ('login_failed', 'Login Failed'), ('login_limited', 'Login Limited'), ('refresh_refused', 'Refresh Refused'), ('logout', 'Logout'), ('logout_all', 'Logout All'), ('session_ended', 'Session Ended'), ('password_changed', 'Password Changed'), ('password_refused', 'Password Refused'), ('password_set', 'Password Set'), ('deactivated', 'Deactivated'), ('activated', 'Activated'), ('rights_changed', 'Rights Changed'), ('exported', 'Exported'), ('erased', 'Erased'), ('staff_action', 'Staff Action')], max_length=20)),
                ('user_id', models.UUIDField(help_text='Whom it concerns; empty: nobody we know.', null=True, verbose_name='user')),
                ('actor_id', models.UUIDField(help_text='Who did it, where that is not the user: staff.', null=True, verbose_name='by')),
                ('address', models.GenericIPAddressField(null=True)),
                ('user_agent', models.CharField(max_length=200)),
                ('request_id', models.CharField(help_text="As in the answer's X-Request-ID and in the log.", max_length=64)),
                ('detail', models.CharField(max_length=500)),
            ],
        ),
        migrations.AddIndex(
            model_name='session',
            index=models.Index(models.F('ended_at'), condition=models.Q(('ended_at__isnull', False)), name='session_ended'),
        ),
        migrations.AddIndex(
            model_name='session',
            index=models.Index(models.F('last_used_at'), name='session_last_used'),
        ),
        migrations.AddIndex(
            model_name='securityevent',
            index=models.Index(models.F('user_id'), models.F('id'), name='event_user'),
        ),
        migrations.AddIndex(
            model_name='securityevent',
            index=models.Index(models.F('actor_id'), models.F('id'), condition=models.Q(('actor_id__isnull', False)), name='event_actor'),
        ),
        migrations.AddIndex(
            model_name='securityevent',
            index=models.Index(models.F('event'), models.F('id'), name='event_event'),
        ),
        migrations.AddIndex(
            model_name='securityevent',
            index=models.Index(models.F('address'), models.F('id'), name='event_address'),
        ),
        migrations.AddIndex(
            model_name='securityevent',
            index=models.Index(models.F('request_id'), name='event_request'),
        ),
        migrations.AddIndex(
            model_name='securityevent',
            index=models.Index(models.F('at'), name='event_at'),
        ),
        migrations.RunSQL([KEPT, GUARD], [
            "DROP TRIGGER accounts_securityevent_kept ON accounts_securityevent",
            "DROP FUNCTION accounts_securityevent_kept()",
        ]),
    ]
