"""The routes below /api/v1/ that act on what was submitted: cancel, retry, skip, pause, resume, purge."""

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request as APIRequest
from rest_framework.response import Response

from accounts.authentication import SessionTokenAuthentication
from project import limits
from project.problems import Conflict, NotFound
from queues import interventions, presenting
from queues.accepting import QueueFull, open_queue
from queues.idempotency import Answer
from queues.interventions import NotPossible
from queues.openapi import IDEMPOTENCY, LOCATION
from queues.serializers import QueueShown, RequestShown
from queues.summary import summary
from queues.views import OwnersView, accepted, caller, encoded, json, once_for_key, own, too_much


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
        possible(interventions.cancel, mine.id)
        return json(presenting.one(own(request, request_id)))


class RetryView(OwnersView):
    problems = {"post": (409, 422, 429)}

    @extend_schema(
        operation_id="retry", parameters=[*IDEMPOTENCY, LOCATION], request=None, responses={202: RequestShown}
    )
    def post(self, request: APIRequest, request_id: str) -> HttpResponse:
        """Asks again for what failed, was cancelled or expired, as a new request; or lets a blocked head try again."""
        try:
            return accepted(once_for_key(request, request._request.body, lambda: self.again(request, request_id)))
        except QueueFull as full:
            raise too_much(request, full, 1) from None

    def again(self, request: APIRequest, request_id: str) -> Answer:
        claims = caller(request)
        mine = own(request, request_id)
        limits.take(request, limits.SUBMIT.claim(str(claims.user_id)))
        trace = request._request.request_id  # type: ignore[attr-defined]
        again = possible(interventions.retry, mine.id, session_id=claims.session_id, trace=trace)
        shown = presenting.one(own(request, request_id)) if again is None else presenting.new(again)
        return Answer(encoded(shown), f"{request.path.rsplit('/', 2)[0]}/{shown['id']}")


class SkipView(OwnersView):
    problems = {"post": (409,)}

    @extend_schema(operation_id="skip", request=None, responses={200: RequestShown})
    def post(self, request: APIRequest, request_id: str) -> HttpResponse:
        """Gives up the failed request that blocks your queue; the next one runs."""
        mine = own(request, request_id)
        possible(interventions.skip, mine.id)
        return json(presenting.one(own(request, request_id)))


class QueueVerbView(OwnersView):
    """The verbs ask for no session: it is asked for before them."""

    authentication_classes = (SessionTokenAuthentication,)


class PauseView(QueueVerbView):
    @extend_schema(operation_id="pause", request=None, responses={200: QueueShown})
    def post(self, request: APIRequest) -> Response:
        """Lets your queue start nothing more until it is resumed. What runs goes on; more can be submitted."""
        interventions.pause(open_queue(caller(request).user_id))
        return Response(summary(caller(request).user_id, caller(request).session_id))


class ResumeView(QueueVerbView):
    problems = {"post": (409,)}

    @extend_schema(operation_id="resume", request=None, responses={200: QueueShown})
    def post(self, request: APIRequest) -> Response:
        """Lets your queue go on where you paused it. What an operator paused, only an operator can resume: 409."""
        possible(interventions.resume, open_queue(caller(request).user_id))
        return Response(summary(caller(request).user_id, caller(request).session_id))


class PurgeView(QueueVerbView):
    @extend_schema(operation_id="purge", request=None, responses={200: QueueShown})
    def post(self, request: APIRequest) -> Response:
        """Cancels all that waits in your queue, scheduled requests too. What runs goes on."""
        interventions.purge(open_queue(caller(request).user_id))
        return Response(summary(caller(request).user_id, caller(request).session_id))
