"""Every route that is served, and what each method is for: the table that tests/project/test_matrix.py walks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from accounts.mail.links import RESET, VERIFY
from accounts.models import Session, User
from accounts.tokens import read_refresh
from processing.schedules import writing
from processing.webhooks.delivery.signing import new_secret
from processing.webhooks.models import Delivery, Event, Webhook
from queues.api.answers import encoded
from queues.models import Request
from queues.representation import response_cache, shape
from queues.representation.response_cache import CachedAnswer
from queues.states import QueueState, Status
from tests.accounts.people import PASSWORD, make_user
from tests.queues.rows import queue_of, request_in

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
ABSENT = "01890000-0000-7000-8000-000000000000"


@dataclass(frozen=True)
class Served:
    """A method of a route: what it answers to whom it is meant for, and what it is sent.

    `owned` makes what the path names, for its owner, and gives its id: everybody else gets 404. `public`: no token is
    asked for. `body` is made for each call.
    """

    status: int
    public: bool = False
    owned: Callable[[User], Any] | None = None
    body: Callable[[], Any] | None = None


def waiting(user: User) -> Any:
    queue = queue_of(user)
    queue.last_seq += 1
    queue.save()
    return request_in(queue, queue.last_seq, Status.QUEUED).id


def failed(user: User) -> Any:
    queue = queue_of(user)
    queue.last_seq += 1
    queue.done_seq = queue.published_seq = queue.last_seq
    Request.objects.filter(queue=queue, finished_at=None).update(status=Status.CANCELLED, finished_at=timezone.now())
    queue.save()
    return request_in(queue, queue.last_seq, Status.FAILED, attempt=3).id


def looked_at(user: User) -> Any:
    """Final, and read by its owner: Redis keeps the answer."""
    request_id = failed(user)
    shown = shape.one(shape.as_text(Request.objects.select_related("queue")).get(id=request_id))
    response_cache.keep(user.id, request_id, CachedAnswer('"' + "x" * 24 + '"', encoded(shown)))
    return request_id


def blocking(user: User) -> Any:
    failed(user)
    queue = queue_of(user)
    queue.last_seq += 1
    queue.published_seq, queue.state = queue.last_seq, QueueState.BLOCKED
    queue.save()
    return request_in(queue, queue.last_seq, Status.RETRYING, attempt=3, on_failure="block").id


def session(user: User) -> Any:
    return read_refresh(Session.open(user).refresh).session_id


def webhook(user: User) -> Any:
    """The walk makes more of them than one may have."""
    fields = {"url": "https://example.com/hook", "events": [Event.FAILED], "secret": new_secret()}
    return Webhook.objects.create(queue=queue_of(user), **fields).id


def delivered(user: User) -> Any:
    """A message that ended, under the id that its webhook has, too: the walk puts one id at each place of a path."""
    return Delivery.objects.create(
        webhook_id=(made := webhook(user)), uid=made, event=Event.TEST, state="delivered"
    ).uid


def receiver() -> Any:
    return {"url": "https://example.com/hook", "events": [Event.FAILED.value]}


def change() -> Any:
    return {"events": [Event.FAILED.value]}


def submission() -> Any:
    return {"kind": "demo.echo", "payload": 1}


def batch() -> Any:
    return {"requests": [submission()]}


def scheduled() -> Any:
    return {"name": f"s{uuid4()}", **submission(), "every_seconds": 60}


def schedule(user: User) -> Any:
    return writing.add(user.id, "1", {"name": f"s{uuid4()}", "kind": "demo.echo", "every_seconds": 60}).id


def newcomer() -> Any:
    made = make_user()
    made.delete()
    return {"username": made.username, "password": PASSWORD}


def credentials() -> Any:
    return {"username": make_user().username, "password": PASSWORD}


def refresh() -> Any:
    return {"refresh": Session.open(make_user()).refresh}


def passwords() -> Any:
    return {"current_password": PASSWORD, "new_password": PASSWORD}


def address() -> Any:
    return {"email": f"{make_user().username}@example.com"}


def verification() -> Any:
    return {"token": VERIFY.make(make_user(email="ada@example.com"))}


def new_password() -> Any:
    return {"token": RESET.make(make_user(email="ada@example.com")), "new_password": PASSWORD}


def password() -> Any:
    return {"password": PASSWORD}


def read(status: int = 200, **more: Any) -> dict[str, Served]:
    """GET, and HEAD with it."""
    return dict.fromkeys(("GET", "HEAD"), Served(status, **more))


def post(status: int, **more: Any) -> dict[str, Served]:
    return {"POST": Served(status, **more)}


AUTH, REQUEST = "api/v1/auth/", "api/v1/requests/<str:request_id>"
SCHEDULE = "api/v1/schedules/<str:schedule_id>"
WEBHOOK = "api/v1/webhooks/<str:webhook_id>"
ROUTES: dict[str, dict[str, Served]] = {
    f"{AUTH}register": post(201, public=True, body=newcomer),
    f"{AUTH}token": post(200, public=True, body=credentials),
    f"{AUTH}token/refresh": post(200, public=True, body=refresh),
    f"{AUTH}logout": post(204, public=True, body=refresh),
    f"{AUTH}logout-all": post(204),
    f"{AUTH}password": post(204, body=passwords),
    f"{AUTH}verify-email": post(204, public=True, body=verification),
    f"{AUTH}password-reset": post(202, public=True, body=address),
    f"{AUTH}password-reset/confirm": post(204, public=True, body=new_password),
    f"{AUTH}me": read() | {"DELETE": Served(202, body=password)},
    f"{AUTH}me/export": read(),
    f"{AUTH}me/email": read(),
    f"{AUTH}sessions": read(),
    f"{AUTH}sessions/<uuid:session_id>": {"DELETE": Served(204, owned=session)},
    "api/v1/kinds": read(),
    "api/v1/requests": read() | post(202, body=submission),
    "api/v1/requests/batch": post(202, body=batch),
    REQUEST: read(owned=looked_at),
    f"{REQUEST}/attempts": read(owned=failed),
    f"{REQUEST}/cancel": post(200, owned=waiting),
    f"{REQUEST}/retry": post(202, owned=failed),
    f"{REQUEST}/skip": post(200, owned=blocking),
    "api/v1/schedules": read() | post(201, body=scheduled),
    SCHEDULE: read(owned=schedule)
    | {"PATCH": Served(200, owned=schedule, body=lambda: {"enabled": True})}
    | {"DELETE": Served(204, owned=schedule)},
    f"{SCHEDULE}/pause": post(200, owned=schedule),
    f"{SCHEDULE}/resume": post(200, owned=schedule),
    f"{SCHEDULE}/run-now": post(200, owned=schedule),
    "api/v1/queue": read(),
    "api/v1/queue/events": {"GET": Served(200)},
    "api/v1/queue/events/ticket": post(200),
    "api/v1/queue/pause": post(200),
    "api/v1/queue/resume": post(200),
    "api/v1/queue/purge": post(200),
    "api/v1/webhooks": read() | post(201, body=receiver),
    WEBHOOK: read(owned=webhook)
    | {"PATCH": Served(200, owned=webhook, body=change), "DELETE": Served(204, owned=webhook)},
    f"{WEBHOOK}/test": post(202, owned=webhook),
    f"{WEBHOOK}/rotate-secret": post(200, owned=webhook),
    f"{WEBHOOK}/deliveries": read(owned=webhook),
    f"{WEBHOOK}/deliveries/<str:delivery_id>/resend": post(202, owned=delivered),
    "": read(public=True),
    "api/v1/": read(public=True),
    "problems/<str:name>": read(404, public=True),  # the walk names none that there is
    "account/verify-email": read(public=True) | post(200, public=True),
    "account/password-reset": read(public=True) | post(200, public=True),
    "account/password-reset/confirm": read(public=True) | post(200, public=True),
    "favicon.ico": read(public=True),
    "favicon.svg": read(public=True),
    "api/schema": read(public=True),
    "api/docs": read(public=True),
    "api/redoc": read(public=True),
    "health/live": read(public=True),
    "health/ready": read(public=True),
    ".well-known/jwks.json": read(404, public=True),  # nothing while the key is a shared secret
    "metrics": read(public=True),
}


def served(patterns: Any = None, before: str = "") -> Iterator[str]:
    """Every route in the URLconf, but for the admin's."""
    for one in get_resolver().url_patterns if patterns is None else patterns:
        route = before + str(one.pattern)
        if isinstance(one, URLResolver):
            if route != "admin/":
                yield from served(one.url_patterns, route)
        elif isinstance(one, URLPattern):
            yield route
