"""A user who has used everything, and what is left of one who was erased."""

from uuid import UUID

from django.utils import timezone

from accounts.models import Session, User
from processing.handlers import HandlerRequest
from queues.models import Attempt, IdempotencyKey, Request, UserQueue
from tests.accounts.people import PASSWORD, Api, make_user
from tests.processing.conftest import Script
from tests.processing.crew import Hand, requests_of, submit


def used(hand: Hand, script: Script) -> tuple[User, Api]:
    """A user of everything: sessions, keys, a retry, failures, what waits and what is scheduled."""

    @script
    def note(request: HandlerRequest) -> str:
        request.progress(1, 1)
        return "done"

    @script
    def fail(request: HandlerRequest) -> None:
        raise ValueError("no good")

    user = make_user(username="zoe", email="zoe@example.com", is_staff=True)
    api = Api()
    login = {"username": "zoe", "password": PASSWORD}
    api.tokens = api.tokens._replace(access=api.post("auth/token", login, HTTP_USER_AGENT="Phone").json()["access"])
    for _ in range(2):
        Session.open(User.objects.get(id=user.id))
    for number in range(3):
        sent = {"kind": "test.script", "payload": "note"}
        assert api.post("requests", sent, HTTP_IDEMPOTENCY_KEY=f"key-{number}").status_code == 202
    submit(user, "fail", kind="test.script")
    hand.settle()
    failed = requests_of(user)[-1]
    assert failed.status == "failed"
    assert api.post(f"requests/{failed.id}/retry").status_code == 202
    submit(user, *["note"] * 5)
    submit(user, "note", not_before=timezone.now() + timezone.timedelta(hours=1))
    return user, api


def left_of(user_id: UUID) -> dict[str, int]:
    """How many rows there still are, by table."""
    counts = {
        "users": User.objects.filter(id=user_id),
        "sessions": Session.objects.filter(user_id=user_id),
        "queues": UserQueue.objects.filter(user_id=user_id),
        "requests": Request.objects.filter(queue__user_id=user_id),
        "attempts": Attempt.objects.filter(request__queue__user_id=user_id),
        "keys": IdempotencyKey.objects.filter(user_id=user_id),
    }
    return {name: rows.count() for name, rows in counts.items() if rows.exists()}
