"""Examples of the routes of webhooks, for the documentation. All are of one user, Ada."""

from typing import Any

from project.rest.examples import Error, tell
from queues.api.examples import FAILED, wrong

WEBHOOKS = "Webhooks"
MADE: dict[str, Any] = {
    "id": "01938a78-7c00-7aaa-8bbb-0123456789ab",
    "url": "https://example.com/hooks",
    "events": ["request.blocked", "request.failed"],
    "enabled": True,
    "disabled_reason": None,
    "created_at": "2026-11-20T09:30:00.120000Z",
    "failing_since": None,
    "last_error": None,
    "last_delivered_at": None,
    "next_attempt_at": None,
}
USED = {**MADE, "last_delivered_at": "2026-11-20T09:35:06.018000Z"}
DELIVERED: dict[str, Any] = {  # at the second attempt
    "id": "5e3e9a0c-53b8-4d52-8f4e-1d8f4f4b2c11",
    "message_id": "msg_5e3e9a0c53b84d528f4e1d8f4f4b2c11",
    "event": "request.failed",
    "request": FAILED["id"],
    "state": "delivered",
    "created_at": FAILED["finished_at"],
    "delivered_at": USED["last_delivered_at"],
    "attempts": [
        {
            "at": "2026-11-20T09:35:01.612Z",
            "status": 503,
            "duration_ms": 38.2,
            "error": "The receiver answered 503 Service Unavailable.",
        },
        {"at": "2026-11-20T09:35:06.018Z", "status": 204, "duration_ms": 41.0, "error": None},
    ],
    "response_body": "",
}
TEST = {
    **DELIVERED,
    "id": "c0a7d6f4-1b52-4c39-9e8d-7a6b5c4d3e2f",
    "message_id": "msg_c0a7d6f41b524c399e8d7a6b5c4d3e2f",
    "event": "webhook.test",
    "request": None,
    "state": "pending",
    "created_at": "2026-11-20T09:31:00.250000Z",
    "delivered_at": None,
    "attempts": [],
}
OFF = Error("conflict", "The webhook is off. Switch it on first: PATCH it with enabled true.")

tell("webhooks", WEBHOOKS, "List your webhooks", answers={200: {"results": [USED], "limit": 10}})
tell(
    "create_webhook",
    WEBHOOKS,
    "Be told what fails or blocks",
    request={"url": "https://example.com/hooks", "events": ["request.failed", "request.blocked"]},
    answers={201: {**MADE, "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDKmRBWyrKJQE="}},
    errors={
        **wrong("url", "url", "Write an address that begins with https://."),
        409: (Error("conflict", "You have 10 webhooks, as many as you may have."),),
    },
)
tell("webhook", WEBHOOKS, "See how one webhook is doing", answers={200: USED})
tell(
    "change_webhook",
    WEBHOOKS,
    "Change a webhook, or switch it on or off",
    request={"events": ["request.failed"], "enabled": False},
    answers={200: {**USED, "events": ["request.failed"], "enabled": False}},
    errors=wrong("events", "empty", "This list may not be empty."),
)
tell("delete_webhook", WEBHOOKS, "End a webhook")
tell("test_webhook", WEBHOOKS, "Have a test sent", answers={202: TEST}, errors={409: (OFF,)})
tell(
    "webhook_deliveries",
    WEBHOOKS,
    "See every message and every attempt at it",
    answers={200: {"results": [DELIVERED], "next": None, "previous": None}},
    errors=wrong("cursor", "cursor", "Take the cursor from next or previous of another page."),
)
tell(
    "resend_delivery",
    WEBHOOKS,
    "Send one message once more",
    answers={202: {**DELIVERED, "state": "pending", "delivered_at": None}},
    errors={409: (Error("conflict", "It is pending: it is sent in its turn."),)},
)
tell(
    "rotate_webhook_secret",
    WEBHOOKS,
    "Get a new secret",
    answers={
        200: {
            "secret": "whsec_6QhUPy8BjKXbBEeCxugs4amwdcV0by6rTgNAY6Khy70=",
            "old_secret_until": "2026-11-21T09:40:00.120000Z",
        }
    },
)
