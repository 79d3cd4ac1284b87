"""Who may ask for which kind: `@handler(.., permission=..)`. What was accepted runs, whatever its owner may ask now."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from uuid import UUID

import structlog
from django.db import DatabaseError, connection, transaction

from accounts.models import User
from project.rest.problems import FieldError, Forbidden
from queues.kinds import Kind, offered

CACHED_SECONDS = 5.0  # so long after a permission was given or taken a process may still go by what was so before
MOST_CACHED = 10_000

log = structlog.get_logger()

_answers: dict[tuple[UUID, str, int], tuple[bool, float]] = {}


def may_ask(user_id: UUID, kind: Kind) -> bool:
    """Whether the user may ask for this kind. One query at the most, none for a kind that all may ask for."""
    known = _known(user_id, kind)
    if known is None:
        user = User.objects.filter(id=user_id, is_active=True).first()
        known = user is not None and _asked(user, kind)
        _keep(user_id, kind, known)
    return known


def known_to_may_ask(user_id: UUID, kind: Kind) -> bool:
    """Whether it is known here that they may, without asking PostgreSQL."""
    return _known(user_id, kind) is True


def kinds_for(user_id: UUID) -> list[Kind]:
    """What this user may ask for just now, by name and version."""
    if open_to_all():
        return list(offered())
    user = User.objects.filter(id=user_id, is_active=True).first()
    return [kind for kind in offered() if kind.permission is None or (user is not None and _asked(user, kind))]


def open_to_all() -> bool:
    """Whether everybody may ask for every kind that is offered."""
    return all(kind.permission is None for kind in offered())


def check(user_id: UUID, kinds: Sequence[Kind], field: str = "kind") -> None:
    """Raise Forbidden, which names each kind that the user may not ask for; `{}` in `field` is its number."""
    wrong = [
        FieldError(field.format(number), "forbidden", f"You may not ask for {kind.name}.")
        for number, kind in enumerate(kinds)
        if not may_ask(user_id, kind)
    ]
    if wrong:
        raise Forbidden("You may not ask for this kind; see errors.", errors=wrong[:20])


def forget() -> None:
    """Ask anew from now on."""
    _answers.clear()


def _known(user_id: UUID, kind: Kind) -> bool | None:
    if kind.permission is None:
        return True
    answer, until = _answers.get((user_id, kind.name, kind.version), (None, 0.0))
    return answer if time.monotonic() < until else None


def _keep(user_id: UUID, kind: Kind, answer: bool) -> None:
    if len(_answers) >= MOST_CACHED:
        _answers.clear()
    _answers[user_id, kind.name, kind.version] = answer, time.monotonic() + CACHED_SECONDS


def _asked(user: User, kind: Kind) -> bool:
    """What the kind's permission says. One that raises says no, and the log why: others' kinds are still shown."""
    if kind.permission is None:
        return True
    if isinstance(kind.permission, str):
        return user.has_perm(kind.permission)
    try:
        with transaction.atomic() if connection.in_atomic_block else nullcontext():  # the caller's goes on
            return bool(kind.permission(user))
    except Exception as error:
        if isinstance(error, DatabaseError) and not connection.is_usable():
            raise  # PostgreSQL is away
        log.exception("a kind's permission raised", kind=kind.name, version=kind.version)
        return False
