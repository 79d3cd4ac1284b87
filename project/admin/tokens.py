"""The token of a confirmation: whom it asked, what and when. It is good for one answer."""

import time
from typing import Any, NamedTuple
from uuid import uuid4

from django.contrib.sessions.models import Session
from django.core import signing
from django.db import transaction
from django.http import HttpRequest

TOKEN_SECONDS = 86_400
SPENT = "confirmed"  # in the session: tokens and when they were issued


class Token(NamedTuple):
    asked: float
    once: str


def issue(page: Any, request: HttpRequest, action: str) -> str:
    """For this action on this page, by this user."""
    return signing.dumps(Token(time.time(), uuid4().hex)._asdict(), salt=_salt(page, request, action))


def read(page: Any, request: HttpRequest, action: str) -> Token | None:
    """As it was sent. None: it is too old, made up, or for something or somebody else."""
    try:
        salt = _salt(page, request, action)
        return Token(**signing.loads(request.POST["confirmed"], salt=salt, max_age=TOKEN_SECONDS))
    except signing.BadSignature:
        return None


def _salt(page: Any, request: HttpRequest, action: str) -> str:
    return f"{action} {page.opts.label} {request.user.pk}"


def spend(request: HttpRequest, token: Token) -> bool:
    """Whether this is its first answer in this session. The session's row is locked: of two clicks at once one is."""
    with transaction.atomic():
        row = Session.objects.select_for_update().filter(pk=request.session.session_key).first()
        kept = {} if row is None else row.get_decoded()
        spent = kept.get(SPENT, {})
        if row is None or token.once in spent:
            return False
        recent = {once: asked for once, asked in spent.items() if asked > time.time() - TOKEN_SECONDS}
        row.session_data = Session.objects.encode({**kept, SPENT: recent | {token.once: token.asked}})
        row.save(update_fields=["session_data"])
    return True
