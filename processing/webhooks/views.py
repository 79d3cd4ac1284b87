"""The routes below /api/v1/webhooks. No answer waits for a receiver: tests and resends are messages like others."""

from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.db import transaction
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from accounts.audit import Event, record
from accounts.authentication import UserRequest
from processing.webhooks import owning
from processing.webhooks.models import Webhook
from processing.webhooks.serializers import (
    DeliveriesQuery,
    DeliveriesShown,
    DeliveryShown,
    SecretShown,
    WebhookBody,
    WebhookChange,
    WebhookMade,
    WebhookShown,
    WebhooksShown,
)
from processing.webhooks.showing import delivery_as_json, webhook_as_json
from project.rest.problems import Conflict, FieldError, Invalid, NotFound
from project.rest.views import StrictView
from project.web import rate_limit
from queues.api.requests import identified
from queues.representation.pagination import Cursor

LOCATION = OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[201], description="Where it is.")
CALLS = rate_limit.Limit("webhooks", settings.ENV.webhook_calls_per_minute)


class WebhooksView(StrictView):
    problems = {"post": (409, 429)}

    @extend_schema(operation_id="webhooks", responses={200: WebhooksShown})
    def get(self, request: UserRequest) -> Response:
        """Your webhooks."""
        found = [webhook_as_json(webhook) for webhook in owning.webhooks_of(request.user.id)]
        return Response({"results": found, "limit": settings.ENV.webhooks_per_user})

    @extend_schema(
        operation_id="create_webhook",
        parameters=[LOCATION],
        request=WebhookBody,
        responses={201: WebhookMade},
    )
    def post(self, request: UserRequest) -> Response:
        """Has what becomes of your requests sent to an address of yours, in order, signed as Standard Webhooks say."""
        asked = self.body(request, WebhookBody)
        count(request)
        try:
            with transaction.atomic():
                made = owning.create(request.user.id, **asked)
                record(Event.WEBHOOK_CREATED, request.user.id, request=request, detail=f"webhook {made.id}")
        except owning.TooMany:
            raise Conflict(f"You have {settings.ENV.webhooks_per_user} webhooks, as many as you may have.") from None
        headers = {"Location": f"{request.path}/{made.id}"}
        return Response(webhook_as_json(made) | {"secret": made.secret}, status=201, headers=headers)


class WebhookView(StrictView):
    problems = {"patch": (429,), "delete": (429,)}

    @extend_schema(operation_id="webhook", responses={200: WebhookShown})
    def get(self, request: UserRequest, webhook_id: str) -> Response:
        """One of your webhooks, and how it is doing."""
        return Response(webhook_as_json(own(request, webhook_id)))

    @extend_schema(operation_id="change_webhook", request=WebhookChange, responses={200: WebhookShown})
    def patch(self, request: UserRequest, webhook_id: str) -> Response:
        """Changes what you send. While it is off nothing is written down for it."""
        mine = own(request, webhook_id)
        asked = self.body(request, WebhookChange)
        count(request)
        with transaction.atomic():
            owning.change(mine, **asked)
            if asked:
                told = f"webhook {mine.id}: {', '.join(sorted(asked))}"
                record(Event.WEBHOOK_CHANGED, request.user.id, request=request, detail=told)
        return Response(webhook_as_json(own(request, webhook_id)))

    @extend_schema(operation_id="delete_webhook", responses={204: None})
    def delete(self, request: UserRequest, webhook_id: str) -> Response:
        """Ends a webhook; what is pending is not sent any more."""
        mine = own(request, webhook_id)
        count(request)
        with transaction.atomic():
            owning.remove(mine)
            record(Event.WEBHOOK_DELETED, request.user.id, request=request, detail=f"webhook {mine.id}")
        return Response(status=204)


class WebhookTestView(StrictView):
    problems = {"post": (409, 429)}

    @extend_schema(operation_id="test_webhook", request=None, responses={202: DeliveryShown})
    def post(self, request: UserRequest, webhook_id: str) -> Response:
        """Sends a message of the type `webhook.test`; `deliveries` tells what came of it."""
        mine = switched_on(own(request, webhook_id))
        count(request)
        return Response(delivery_as_json(owning.test(mine)), status=202)


class RotateSecretView(StrictView):
    problems = {"post": (429,)}

    @extend_schema(operation_id="rotate_webhook_secret", request=None, responses={200: SecretShown})
    def post(self, request: UserRequest, webhook_id: str) -> Response:
        """A new secret. For 24 hours each message is signed with the one before, too."""
        mine = own(request, webhook_id)
        count(request)
        with transaction.atomic():
            secret, until = owning.rotate(mine)
            record(Event.WEBHOOK_CHANGED, request.user.id, request=request, detail=f"webhook {mine.id}: secret")
        return Response({"secret": secret, "old_secret_until": until})


class DeliveriesView(StrictView):
    query_serializer = DeliveriesQuery

    @extend_schema(operation_id="webhook_deliveries", parameters=[DeliveriesQuery], responses={200: DeliveriesShown})
    def get(self, request: UserRequest, webhook_id: str) -> Response:
        """The messages of one webhook, the newest first, with every attempt at them."""
        found = own(request, webhook_id).deliveries.all()
        if "state" in self.query:
            found = found.filter(state=self.query["state"])
        cursor: Cursor | None = self.query.get("cursor")
        limit = self.query["limit"]
        if cursor is not None and isinstance(cursor.place, UUID):
            raise Invalid(FieldError("cursor", "cursor", "Take the cursor from next or previous of another page."))
        back = cursor is not None and cursor.back
        if cursor is not None:
            found = found.filter(**{"id__gt" if back else "id__lt": cursor.place})
        rows = list(found.order_by("id" if back else "-id")[: limit + 1])
        more, rows = len(rows) > limit, rows[:limit]
        if back:
            rows.reverse()
        older = rows and (more or back)
        newer = rows and (cursor is not None if not back else more)
        return Response(
            {
                "results": [delivery_as_json(row) for row in rows],
                "next": page_url(request, Cursor(rows[-1].id)) if older else None,
                "previous": page_url(request, Cursor(rows[0].id, back=True)) if newer else None,
            }
        )


class ResendView(StrictView):
    problems = {"post": (409, 429)}

    @extend_schema(operation_id="resend_delivery", request=None, responses={202: DeliveryShown})
    def post(self, request: UserRequest, webhook_id: str, delivery_id: str) -> Response:
        """Sends a message once more under the same id: one that was delivered or dropped."""
        mine = own(request, webhook_id)
        found = mine.deliveries.filter(uid=identified(delivery_id))
        if not found.exists():
            raise NotFound
        switched_on(mine)
        count(request)
        if not owning.resend(mine, identified(delivery_id)):
            raise Conflict("It is pending: it is sent in its turn.")
        return Response(delivery_as_json(found.get()), status=202)


def own(request: UserRequest, webhook_id: str) -> Webhook:
    """The caller's webhook of that id. Raises NotFound."""
    found = owning.webhooks_of(request.user.id).filter(id=identified(webhook_id)).first()
    if found is None:
        raise NotFound
    return found


def switched_on(webhook: Webhook) -> Webhook:
    if not webhook.enabled:
        raise Conflict("The webhook is off. Switch it on first: PATCH it with enabled true.")
    return webhook


def count(request: UserRequest) -> None:
    rate_limit.take(request, CALLS.claim(str(request.user.id)))


def page_url(request: UserRequest, cursor: Cursor) -> str:
    """The address of the page at `cursor`, with everything else as it was asked."""
    query = urlencode({**request.query_params.dict(), "cursor": str(cursor)})
    return request.build_absolute_uri(f"{request.path}?{query}")
