"""The routes below /api/v1/ that act on what was submitted: cancel, retry, skip, pause, resume, purge."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request as APIRequest
from rest_framework.response import Response

from accounts.authentication import SessionTokenAuthentication
from project.rest.problems import Conflict, NotFound
from project.web import rate_limit
from queues import kinds
from queues.api.answers import encoded, json
from queues.api.openapi import IDEMPOTENCY, LOCATION
from queues.api.requests import OwnersView, accepted, caller, once_for_key, own, too_much
from queues.api.serializers import QueueShown, RequestShown
from queues.enqueue import permissions
from queues.enqueue.accept import open_queue
from queues.enqueue.idempotency import Answer
from queues.exceptions import NotPossible, QueueFull, UnknownKind
from queues.lifecycle import control
from queues.representation import shape
from queues.representation.queue_summary import summary


def possible(verb: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What the verb returns. Raises Conflict with its sentence, and NotFound when the request has just been erased."""
    try:
        return verb(*arguments, **named)
    except NotPossible as why:
        raise Conflict(str(why)) from None
    except ObjectDoesNotExist:
        raise NotFound from None


class CancelView(OwnersView):
    problems = {"post": (409,)}

    @extend_schema(operation_id="cancel", request=None, responses={200: RequestShown})
    def post(self, request: APIRequest, request_id: str) -> HttpResponse:
        """Gives one of your requests up: at once while it waits; while it runs its handler is asked to stop."""
        mine = own(request, request_id)
        possible(control.cancel, mine.id)
        return json(shape.one(own(request, request_id)))


class RetryView(OwnersView):
    problems = {"post": (403, 409, 422, 429)}

    @extend_schema(
        operation_id="retry", parameters=[*IDEMPOTENCY, LOCATION], request=None, responses={202: RequestShown}
    )
    def post(self, request: APIRequest, request_id: str) -> HttpResponse:
        """Asks again for what failed, was cancelled or expired, as a new request; or lets a blocked head try again."""
        try:
            return accepted(once_for_key(request, request.body, lambda: self.again(request, request_id)))
        except QueueFull as full:
            raise too_much(request, full, 1) from None

    def again(self, request: APIRequest, request_id: str) -> Answer:
        claims = caller(request)
        mine = own(request, request_id)
        rate_limit.take(request, rate_limit.SUBMIT.claim(str(claims.user_id)))
        with suppress(UnknownKind):  # `retry` says so
            permissions.check(claims.user_id, [kinds.find(mine.kind, mine.version)])
        trace = request.request_id  # type: ignore[attr-defined]  # the middleware's
        again = possible(control.retry, mine.id, session_id=claims.session_id, trace=trace)
        shown = shape.one(own(request, request_id)) if again is None else shape.new(again)
        return Answer(encoded(shown), f"{request.path.rsplit('/', 2)[0]}/{shown['id']}")


class SkipView(OwnersView):
    problems = {"post": (409,)}

    @extend_schema(operation_id="skip", request=None, responses={200: RequestShown})
    def post(self, request: APIRequest, request_id: str) -> HttpResponse:
        """Gives up the failed request that blocks your queue; the next one runs."""
        mine = own(request, request_id)
        possible(control.skip, mine.id)
        return json(shape.one(own(request, request_id)))


class QueueVerbView(OwnersView):
    """The verbs ask for no session: it is asked for before them."""

    authentication_classes = (SessionTokenAuthentication,)


class PauseView(QueueVerbView):
    @extend_schema(operation_id="pause", request=None, responses={200: QueueShown})
    def post(self, request: APIRequest) -> Response:
        """Lets your queue start nothing more until it is resumed. What runs goes on; more can be submitted."""
        control.pause(open_queue(caller(request).user_id))
        return Response(summary(caller(request).user_id, caller(request).session_id))


class ResumeView(QueueVerbView):
    problems = {"post": (409,)}

    @extend_schema(operation_id="resume", request=None, responses={200: QueueShown})
    def post(self, request: APIRequest) -> Response:
        """Lets your queue go on where you paused it. What an operator paused, only an operator can resume: 409."""
        possible(control.resume, open_queue(caller(request).user_id))
        return Response(summary(caller(request).user_id, caller(request).session_id))


class PurgeView(QueueVerbView):
    @extend_schema(operation_id="purge", request=None, responses={200: QueueShown})
    def post(self, request: APIRequest) -> Response:
        """Cancels all that waits in your queue, scheduled requests too. What runs goes on."""
        control.purge(open_queue(caller(request).user_id))
        return Response(summary(caller(request).user_id, caller(request).session_id))
