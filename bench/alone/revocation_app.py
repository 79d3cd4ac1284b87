"""The API with the way in which submissions learn whether their session lives named by BENCH_REVOCATION.

statement: as it ships, conditions of the statement that accepts. query: in a query of its own before it, as most
services do. signed: not at all, the signature and the clock alone.
"""

import os

from project import asgi

application = asgi.application  # sets Django up, before anything of its apps is imported

from accounts.models import User
from accounts.tokens import Claims
from queues.api import fast_path
from queues.enqueue import accept
from queues.sql.accept import ACCEPT_TOGETHER
from queues.sql.statement import Statement

JOINED = """JOIN accounts_user u ON u.id = q.user_id
JOIN accounts_session s ON s.id = asked.session_id AND s.user_id = u.id AND s.ended_at IS NULL
WHERE q.user_id = asked.user_id AND u.is_active"""


def unchecked(text: str) -> str:
    """The statement that accepts, without asking for user and session."""
    if text.count(JOINED) != 2:
        raise RuntimeError("ACCEPT_TOGETHER is written differently by now: adapt bench/alone/revocation_app.py")
    return text.replace(JOINED, "WHERE q.user_id = asked.user_id")


def asked_by_a_query(sent: dict[bytes, bytes]) -> Claims | None:
    """As `fast_path.verified`, after a look at the session and its user."""
    claims = verified(sent)
    if claims is not None:
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # it waits on the event loop: a thread would be one change more
        User.objects.of_session(claims)
    return claims


verified = fast_path.verified
how = os.environ["BENCH_REVOCATION"]
if how in ("signed", "query"):
    accept.ACCEPT_TOGETHER = Statement(unchecked(ACCEPT_TOGETHER.text))
if how == "query":
    fast_path.verified = asked_by_a_query
