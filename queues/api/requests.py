"""The routes below /api/v1/ that submit, show and list requests, and show queues and kinds."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request as APIRequest
from rest_framework.response import Response

from accounts.authentication import VERIFIED, SignedTokenAuthentication
from accounts.exceptions import SessionEnded
from accounts.tokens import Claims
from project.rest.problems import (
    Conflict,
    FieldError,
    Invalid,
    LengthRequired,
    NotFound,
    TooManyRequests,
    Unprocessable,
)
from project.rest.views import StrictView
from project.settings import BATCH_BODY_LIMIT
from project.web import rate_limit
from project.web.threads import WAITED
from queues.api.answers import encoded, json, kinds_answer, tagged, unless_known
from queues.api.byte_refusals import retry_after, too_many_bytes
from queues.api.openapi import CONDITION, IDEMPOTENCY, LOCATION, NOT_MODIFIED
from queues.api.serializers import (
    AttemptShown,
    BatchBody,
    BatchShown,
    KindShown,
    ListQuery,
    PageShown,
    QueueShown,
    RequestShown,
    SubmissionBody,
    WaitQuery,
)
from queues.enqueue import parsing, permissions
from queues.enqueue.accept import accept
from queues.enqueue.idempotency import RETRY_SECONDS, VISIBLE, Answer, once
from queues.exceptions import KeyInUse, KeyReused, QueueFull, SessionOver, TooManyBytes, TooManyGivenUp
from queues.live.long_poll import waiting
from queues.models import Attempt, UserQueue
from queues.notify import hints
from queues.representation import response_cache, shape
from queues.representation.pagination import Cursor, Filters, page
from queues.representation.queue_summary import summary
from queues.representation.rows import RequestRow, check_session, own_queue, own_request
from queues.values import Accepted, Submission

UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
NOBODYS = UUID(int=0)
UNKNOWN_RETRY_AFTER = 60  # where nobody can know
NO_BODY = FieldError("", "required", "Send a body: a JSON object.")


class OwnersView(StrictView):
    """The token is only verified; whether its session lives is asked by the statement that serves the request."""

    authentication_classes: Any = (SignedTokenAuthentication,)

    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(SessionEnded() if isinstance(exc, SessionOver) else exc)


class SubmittingView(OwnersView):
    problems = {"post": (403, 409, 422, 429)}
    kind_field = "kind"

    def sent(self, request: APIRequest) -> tuple[Any, bytes]:
        """The body, decoded and as it came. Raises the problems 400, 411, 413 and 415."""
        data = request.data
        body: bytes | None = getattr(request, "raw_body", None)
        if body is None:  # the parser was not even asked
            raise LengthRequired if "HTTP_TRANSFER_ENCODING" in request.META else Invalid(NO_BODY)
        return data, body

    def take(
        self, request: APIRequest, asked: list[Submission], answer: Callable[[list[Accepted]], Answer]
    ) -> HttpResponse:
        """Take them in within the caller's limits, once for an Idempotency-Key. Raises 400, 401, 403, 409, 422, 429."""
        claims = caller(request)
        rate_limit.take(request, rate_limit.SUBMIT.claim(str(claims.user_id), cost=len(asked)))
        permissions.check(claims.user_id, [one.kind for one in asked], self.kind_field)
        trace = request.request_id  # type: ignore[attr-defined]  # the middleware's

        def accept_them() -> Answer:
            return answer(accept(claims.user_id, asked, session_id=claims.session_id, trace=trace))

        try:
            return accepted(once_for_key(request, request.raw_body, accept_them))  # type: ignore[attr-defined]
        except QueueFull as full:
            raise too_much(request, full, len(asked)) from None


class RequestsView(SubmittingView):
    query_serializer = ListQuery

    @extend_schema(
        operation_id="submit",
        parameters=[*IDEMPOTENCY, LOCATION],
        request=SubmissionBody,
        responses={202: RequestShown},
    )
    def post(self, request: APIRequest) -> HttpResponse:
        """Asks for one thing, to be done after all that you asked for before."""

        def answer(accepted: list[Accepted]) -> Answer:
            (one,) = accepted
            return Answer(encoded(shape.new(one)), f"{request.path}/{one.submission.id}")

        return self.take(request, [parsing.read_one(*self.sent(request))], answer)

    @extend_schema(operation_id="requests", parameters=[ListQuery], responses={200: PageShown})
    def get(self, request: APIRequest) -> HttpResponse:
        """Your requests, a page at a time."""
        claims = caller(request)
        queue = own_queue(claims.user_id, claims.session_id)
        return HttpResponse(listed(request, queue, self.query), "application/json")


class BatchView(SubmittingView):
    body_limit = BATCH_BODY_LIMIT
    kind_field = "requests.{}.kind"

    @extend_schema(operation_id="submit_batch", parameters=IDEMPOTENCY, request=BatchBody, responses={202: BatchShown})
    def post(self, request: APIRequest) -> HttpResponse:
        """Asks for several things in the order given: all of them, or none."""

        def answer(accepted: list[Accepted]) -> Answer:
            return Answer(encoded({"requests": [shape.new(one) for one in accepted]}))

        return self.take(request, parsing.read_batch(*self.sent(request)), answer)


class RequestView(OwnersView):
    query_serializer = WaitQuery

    @extend_schema(
        operation_id="request",
        parameters=[WaitQuery, *CONDITION],
        responses={200: RequestShown, 304: NOT_MODIFIED},
    )
    def get(self, request: APIRequest, request_id: str) -> HttpResponse:
        """One of your requests as it is now, or once it is final."""
        claims = caller(request)
        kept, until = response_cache.get(claims.user_id, identified(request_id)), None
        if kept is not None:
            check_session(claims.user_id, claims.session_id)
        else:
            found = own(request, request_id)
            kept = tagged(encoded(shape.one(found)))
            if found.finished_at is not None:
                response_cache.keep(claims.user_id, found.id, kept)
            elif self.query["wait"] and WAITED not in request.META:
                until = partial(waiting.for_final, found, self.query["wait"])
        answer = unless_known(request.META.get("HTTP_IF_NONE_MATCH", ""), kept)
        if until is not None:
            answer.until = until  # type: ignore[attr-defined]  # what sends answers asks again then
            request.META[VERIFIED] = claims
        return answer


class AttemptsView(OwnersView):
    @extend_schema(operation_id="attempts", responses={200: AttemptShown(many=True)})
    def get(self, request: APIRequest, request_id: str) -> HttpResponse:
        """Every attempt at one of your requests that has ended, the first one first."""
        mine = own(request, request_id)
        return json(shape.attempts(mine, Attempt.objects.filter(request_id=mine.id)))


class QueueView(OwnersView):
    @extend_schema(operation_id="queue", responses={200: QueueShown})
    def get(self, request: APIRequest) -> HttpResponse:
        """Your queue: how it is doing and how long it will take."""
        return json(summary(caller(request).user_id, caller(request).session_id))


class KindsView(OwnersView):
    @extend_schema(operation_id="kinds", parameters=CONDITION, responses={200: KindShown(many=True), 304: NOT_MODIFIED})
    def get(self, request: APIRequest) -> HttpResponse:
        """What you may ask for."""
        check_session(caller(request).user_id, caller(request).session_id)
        return unless_known(
            request.META.get("HTTP_IF_NONE_MATCH", ""),
            kinds_answer(tuple(permissions.kinds_for(caller(request).user_id))),
        )


def caller(request: APIRequest) -> Claims:
    """Who asks, by their verified token."""
    return cast(Claims, request.auth)


def once_for_key(request: APIRequest, body: bytes, do: Callable[[], Answer]) -> Answer:
    """What `do` answers, or answered when the caller's key came first. Raises Invalid, Conflict, Unprocessable."""
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        return do()
    if not VISIBLE.fullmatch(key):
        raise Invalid(FieldError("Idempotency-Key", "format", "Send 1 to 255 visible ASCII characters."))
    try:
        return once(caller(request).user_id, caller(request).session_id, key, request.path.encode() + b" " + body, do)
    except KeyReused:
        said = "This Idempotency-Key came before, with another body or to another path."
        raise Unprocessable(said, name="key-reused") from None
    except KeyInUse:
        said = "The first call with this Idempotency-Key is still under way."
        raise Conflict(said, name="key-in-use", retry_after=RETRY_SECONDS) from None


def accepted(answer: Answer) -> HttpResponse:
    """The 202 for what was accepted, now or when it was asked first."""
    hints.work_waits()
    headers = {"Location": answer.location} if answer.location else {}
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    return HttpResponse(answer.body, "application/json", 202, headers=headers)


def own(request: APIRequest, request_id: str) -> RequestRow:
    """The caller's request of that id, in one query, whatever is written there. Raises NotFound and SessionOver."""
    found = own_request(caller(request).user_id, caller(request).session_id, identified(request_id))
    if found is None:
        raise NotFound
    return found


def identified(request_id: str) -> UUID:
    """The id that is written there; nobody's if it is none."""
    return UUID(request_id) if UUID_TEXT.fullmatch(request_id) else NOBODYS


def too_much(request: APIRequest, full: QueueFull, more: int) -> Invalid | TooManyRequests:
    """Why `more` requests do not fit, and when they will at the queue's pace."""
    queue = full.queue
    if isinstance(full, TooManyBytes):
        return too_many_bytes(request, full)
    if more > max(1, queue.limit):
        said = f"Your queue holds at most {queue.limit} waiting requests."
        return Invalid(FieldError("requests", "length", said))
    if isinstance(full, TooManyGivenUp):
        return TooManyRequests(str(full), name="queue-full", retry_after=UNKNOWN_RETRY_AFTER)
    surplus = queue.depth + more - queue.limit
    if surplus <= 0:
        said = f"As many requests are scheduled as your queue holds: {queue.limit}."
        return TooManyRequests(said, name="queue-full", retry_after=UNKNOWN_RETRY_AFTER)
    seconds = surplus * (queue.avg_service_seconds or 1)
    return TooManyRequests(
        f"{queue.depth} requests are waiting; your queue holds {queue.limit}.",
        name="queue-full",
        retry_after=retry_after(seconds),
    )


def listed(request: APIRequest | HttpRequest, queue: UserQueue | None, asked: dict[str, Any]) -> bytes:
    """A page of the requests in the caller's queue, as they asked for it."""
    if queue is None:
        return encoded({"results": [], "next": None, "previous": None})
    filters = Filters(*(asked.get(name) for name in ("status", "kind", "created_after", "created_before")))
    found = page(queue, filters, asked.get("cursor"), asked["limit"], newest_first=asked["order"] == "desc")
    return encoded(
        {
            "results": [shape.one(one) for one in found.requests],
            "next": page_url(request, found.next),
            "previous": page_url(request, found.previous),
        }
    )


def page_url(request: APIRequest | HttpRequest, cursor: Cursor | None) -> str | None:
    """The address of the page at `cursor`, with everything else as it was asked."""
    if cursor is None:
        return None
    query = urlencode({**request.GET.dict(), "cursor": str(cursor)})
    return request.build_absolute_uri(f"{request.path}?{query}")
