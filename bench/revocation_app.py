"""The API with the way in which submissions learn whether their session lives named by BENCH_REVOCATION.

statement: as it ships, a condition of the statement that accepts. query: in a query of its own before it, as most
services do. signed: not at all, the signature and the clock alone.
"""

import os

from project import wsgi

application = wsgi.application  # sets Django up, before anything of its apps is imported

from accounts.authentication import SessionTokenAuthentication  # noqa: E402
from queues import accepting, views  # noqa: E402
from queues.sql import Statement  # noqa: E402
from queues.statements import ACCEPT  # noqa: E402

FROM_USER = "FROM accounts_user u\n        WHERE q.user_id = %(user)s AND u.id = q.user_id AND u.is_active"
SESSION = """AND (%(session)s::uuid IS NULL OR EXISTS (
              SELECT FROM accounts_session s WHERE s.id = %(session)s AND s.user_id = u.id AND s.ended_at IS NULL))"""


def unchecked(text: str) -> str:
    """The statement that accepts, without asking for user and session."""
    for part in (FROM_USER, SESSION):
        if text.count(part) != 1:
            raise RuntimeError("ACCEPT is written differently by now: adapt bench/revocation_app.py")
    return text.replace(FROM_USER, "WHERE q.user_id = %(user)s").replace(SESSION, "")


how = os.environ["BENCH_REVOCATION"]
if how in ("signed", "query"):
    accepting.ACCEPT = Statement(unchecked(ACCEPT.text))
if how == "query":
    views.SubmittingView.authentication_classes = (SessionTokenAuthentication,)
