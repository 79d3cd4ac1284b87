"""What is not kept for ever: sessions that are over, old lines of the audit trail, and erased users.

Everything goes in parts, each a transaction of its own that holds few locks and not for long.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from accounts.audit import Event, record
from accounts.models import Invitation, Mail, User

# A session is over when it has ended, or when its refresh token has expired.
OLD_SESSIONS = """
    DELETE FROM accounts_session WHERE id IN (
        SELECT id FROM accounts_session WHERE ended_at < %(ended)s OR last_used_at < %(expired)s
        LIMIT %(count)s FOR UPDATE SKIP LOCKED)
"""
OLD_EVENTS = """
    DELETE FROM accounts_securityevent WHERE id IN (
        SELECT id FROM accounts_securityevent WHERE at < %(before)s ORDER BY at LIMIT %(count)s FOR UPDATE SKIP LOCKED)
"""
# It has no index on the time: its oldest lines are those with the lowest ids, and no more of them are read.
OLD_LOG = """
    DELETE FROM django_admin_log WHERE id IN (
        SELECT l.id FROM (SELECT id FROM django_admin_log ORDER BY id LIMIT %(count)s) oldest
        JOIN django_admin_log l ON l.id = oldest.id WHERE l.action_time < %(before)s FOR UPDATE OF l SKIP LOCKED)
"""
OLD_STAFF_SESSIONS = """
    DELETE FROM django_session WHERE session_key IN (
        SELECT session_key FROM django_session WHERE expire_date < %(now)s LIMIT %(count)s FOR UPDATE SKIP LOCKED)
"""
SESSIONS_OF = """
    DELETE FROM accounts_session WHERE id IN (SELECT id FROM accounts_session WHERE user_id = %(user)s LIMIT %(count)s)
"""
NAMELESS = """
    UPDATE accounts_securityevent SET address = NULL, user_agent = '' WHERE id IN (
        SELECT id FROM accounts_securityevent
        WHERE (user_id = %(user)s OR actor_id = %(user)s) AND (address IS NOT NULL OR user_agent <> '')
        LIMIT %(count)s)
"""
NAMELESS_LOG = """
    UPDATE django_admin_log SET object_repr = 'erased' WHERE object_id = %(user)s AND content_type_id = (
        SELECT id FROM django_content_type WHERE app_label = 'accounts' AND model = 'user')
"""
MAY_FORGET = "SELECT set_config('ordered_work.audit', 'forget', true)"  # what the trigger of migration 0005 asks for


def prune(count: int) -> int:
    """Remove up to `count` each of sessions, of the staff's sessions and of the lines of the audit trail and of the
    admin's log that were kept long enough; how many. Any number may do so.
    """
    now = timezone.now()
    ended = now - timedelta(days=settings.ENV.session_retention_days)
    expired = ended - timedelta(seconds=settings.ENV.refresh_token_seconds)
    gone = run(OLD_SESSIONS, ended=ended, expired=expired, count=count)
    if settings.ENV.audit_retention_days:
        before = now - timedelta(days=settings.ENV.audit_retention_days)
        with transaction.atomic():
            run(MAY_FORGET)
            gone += run(OLD_EVENTS, before=before, count=count)
    gone += run(OLD_STAFF_SESSIONS, now=now, count=count)
    if settings.ENV.admin_log_retention_days:
        before = now - timedelta(days=settings.ENV.admin_log_retention_days)
        gone += run(OLD_LOG, before=before, count=count)
    return gone


def shut_out(user_id: UUID) -> None:
    """The first step of an erasure: nobody can log in as the user any more, and what they hold is worth nothing."""
    user = User.objects.get(id=user_id)
    if user.is_active:
        user.is_active = False
        user.save(update_fields=["is_active"])


def remove_sessions(user_id: UUID, count: int) -> int:
    """Remove up to `count` of the user's sessions; how many."""
    return run(SESSIONS_OF, user=user_id, count=count)


def make_nameless(user_id: UUID, count: int) -> int:
    """Take address and program from up to `count` lines of what the user did, or others to them; how many."""
    with transaction.atomic():
        run(MAY_FORGET)
        return run(NAMELESS, user=user_id, count=count)


def remove_user(user_id: UUID, *, by: str) -> None:
    """The last step of an erasure: the user, what other apps hold of them, and the line that says so, in one commit."""
    with transaction.atomic():
        run(NAMELESS_LOG, user=str(user_id))
        user = User.objects.get(id=user_id)
        theirs = Q(address__iexact=user.email) if user.email else Q()
        Mail.objects.filter(Q(user_id=user_id) | theirs).delete()
        Invitation.objects.filter(used_by=user).update(email="", note="")
        user.delete()
        record(Event.ERASED, user_id, detail=f"by {by}")


def run(statement: str, **values: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return int(cursor.rowcount)
