"""Users with queues, made in bulk."""

from typing import Any
from uuid import UUID

import uuid_utils.compat

from accounts.models import User
from bench.place import Place
from queues.enqueue.accept import accept
from queues.kinds import find
from queues.models import UserQueue
from queues.values import Submission


def users(here: Place, group: str, count: int) -> list[UUID]:
    """`count` users of a group with a queue each, made if they are not there."""
    known = User.objects.filter(username__startswith=f"{group}-")
    missing = count - known.count()
    if missing > 0:
        first = count - missing
        made = User.objects.bulk_create(
            User(id=uuid_utils.compat.uuid7(), username=f"{group}-{n}") for n in range(first, count)
        )
        UserQueue.objects.bulk_create(UserQueue(user=user) for user in made)
        here.sql.execute("VACUUM ANALYZE accounts_user, queues_userqueue")
    return list(known.order_by("id").values_list("id", flat=True)[:count])


def echoes(count: int) -> list[Submission]:
    """`count` submissions of demo.echo with a small payload."""
    kind = find("demo.echo", 1)
    return [Submission(kind, f'{{"n": {n}}}') for n in range(count)]


def backlog(of: list[UUID], requests: int) -> None:
    """Accept `requests` demo.echo, shared evenly among these users, 100 at a time."""
    each = requests // len(of)
    for user in of:
        for begun in range(0, each, 100):
            accept(user, echoes(min(100, each - begun)), session_id=None)


def waiting(here: Place) -> Any:
    """How many queues have work left."""
    return here.one("SELECT count(*) FROM queues_userqueue WHERE active OR unpublished")
