"""Examples of the routes of requests and queues, for the documentation. All are of one user, Ada."""

import json
from typing import Any

from project.rest.examples import Error, tell

ASK, FOLLOW, CHANGE, ACCOUNT = "Ask for work", "Follow it", "Change your mind", "Your account"
INVALID = "The request does not fit; see errors."
WAITING: dict[str, Any] = {
    "id": "01938a70-4f5e-7c3d-9b2a-8e7f6d5c4b3a",
    "kind": "demo.echo",
    "version": 1,
    "status": "queued",
    "sequence": 41,
    "position": 2,
    "eta_seconds": 1.5,
    "payload": "hello",
    "attempt": 0,
    "max_attempts": 3,
    "progress": None,
    "result": None,
    "error": None,
    "retry_of": None,
    "cancel_requested": False,
    "created_at": "2026-11-20T09:35:00.120000Z",
    "not_before": None,
    "expires_at": None,
    "started_at": None,
    "finished_at": None,
}
TIMES = {"started_at": "2026-11-20T09:35:01.500000Z", "finished_at": "2026-11-20T09:35:01.512000Z"}
DONE = {
    **WAITING,
    "status": "succeeded",
    "position": None,
    "eta_seconds": None,
    "attempt": 1,
    "result": "hello",
    **TIMES,
}
CANCELLED = {
    **WAITING,
    "status": "cancelled",
    "position": None,
    "eta_seconds": None,
    "finished_at": TIMES["finished_at"],
}
FAILURE = {"type": "TimeoutError", "message": "the printer did not answer", "at": TIMES["finished_at"]}
FAILED = {**DONE, "status": "failed", "attempt": 3, "result": None, "error": FAILURE}
AGAIN = {**WAITING, "id": "01938a72-6a1b-7d4c-8e3f-2b1a0c9d8e7f", "sequence": 44, "retry_of": FAILED["id"]}
QUEUE: dict[str, Any] = {
    "state": "draining",
    "paused": False,
    "depth": 3,
    "limit": 1000,
    "oldest_waiting_at": "2026-11-20T09:35:00.120000Z",
    "running": "01938a70-1c2d-7e3f-8a4b-5c6d7e8f9a0b",
    "finished_per_minute": 12.0,
    "eta_seconds": 1.5,
    "blocked_by": None,
    "limited_by": None,
}
TOO_MUCH = (
    Error("too-many-requests", "Too many requests; Retry-After says when to come back."),
    Error("queue-full", "1000 requests are waiting; your queue holds 1000."),
    Error(
        "too-many-bytes",
        "As many bytes wait as may.",
        (("payload", "bytes_waiting", "33554000 bytes wait; 33554432 may."),),
    ),
)
KEYS = {
    409: (Error("key-in-use", "The first call with this Idempotency-Key is still under way."),),
    429: TOO_MUCH,
}


def wrong(field: str, code: str, detail: str) -> dict[int, tuple[Error, ...]]:
    return {400: (Error("validation", INVALID, ((field, code, detail),)),)}


def not_now(detail: str) -> tuple[Error, ...]:
    return (Error("conflict", detail),)


tell(
    "kinds",
    ASK,
    "See what can be asked for",
    answers={
        200: [
            {
                "kind": "demo.echo",
                "version": 1,
                "description": "Gives its payload back.",
                "schema": {},
                "max_attempts": 3,
                "time_limit": 30.0,
                "on_failure": "continue",
            }
        ]
    },
)
tell(
    "submit",
    ASK,
    "Ask for one thing",
    request={"kind": "demo.echo", "payload": "hello"},
    answers={202: WAITING},
    errors={**wrong("kind", "unknown", "There is no kind 'demo.ecko'; GET /api/v1/kinds lists them."), **KEYS},
)
tell(
    "submit_batch",
    ASK,
    "Ask for several things, all or none",
    request={"requests": [{"kind": "demo.echo", "payload": "one"}, {"kind": "demo.echo", "payload": "two"}]},
    answers={202: {"requests": [{**WAITING, "payload": "one"}, {**AGAIN, "payload": "two", "retry_of": None}]}},
    errors={
        **wrong("requests.1.payload", "required", "This field is required."),
        413: (Error("body-too-large", "The body has 1200000 bytes; 1048576 are allowed."),),
        **KEYS,
    },
)
tell(
    "request",
    FOLLOW,
    "Look at one request, or wait for its end",
    answers={200: DONE},
    errors=wrong("wait", "max_value", "Ensure this value is less than or equal to 30."),
)
tell(
    "requests",
    FOLLOW,
    "List your requests",
    answers={
        200: {
            "results": [DONE],
            "next": "http://127.0.0.1:8000/api/v1/requests?cursor=czo0MQ&limit=1",
            "previous": None,
        }
    },
    errors=wrong("limit", "max_value", "Ensure this value is less than or equal to 200."),
)
tell(
    "attempts",
    FOLLOW,
    "See every attempt at one request",
    answers={
        200: [
            {"number": 1, **TIMES, "outcome": "failed", "error": FAILURE},
            {"number": 2, **TIMES, "outcome": "succeeded", "error": None},
        ]
    },
)
tell("queue", FOLLOW, "See how your queue is doing", answers={200: QUEUE})
tell(
    "events",
    FOLLOW,
    "Follow your queue as it moves",
    answers={200: f"retry: 2000\n\nevent: queue\nid: 38-41-1795167301500\ndata: {json.dumps(QUEUE)}\n\n"},
    errors={429: (Error("too-many-streams", "You have 10 event streams open; more are not served."),)},
)
tell(
    "events_ticket",
    FOLLOW,
    "Get a ticket to follow it in a browser",
    answers={200: {"ticket": "W1YB8yR20-MX6R878YB7k9SS-nS2iQam29iS5Hnsvuo"}},
    errors={503: (Error("unavailable", "No tickets at the moment; open the stream with an access token."),)},
)
tell("cancel", CHANGE, "Cancel a request", answers={200: CANCELLED}, errors={409: not_now("The request is final.")})
tell(
    "retry",
    CHANGE,
    "Try a failed request again",
    answers={202: AGAIN},
    errors={409: (*not_now("This request succeeded."), *KEYS[409]), 429: TOO_MUCH},
)
tell(
    "skip",
    CHANGE,
    "Skip the request that blocks your queue",
    answers={200: FAILED},
    errors={409: not_now("The request does not block its queue.")},
)
tell("pause", CHANGE, "Pause your queue", answers={200: {**QUEUE, "paused": True, "eta_seconds": None}})
tell(
    "resume",
    CHANGE,
    "Let your queue go on",
    answers={200: QUEUE},
    errors={409: not_now("An operator paused this queue; only an operator can resume it.")},
)
tell(
    "purge",
    CHANGE,
    "Cancel all that waits",
    answers={200: {**QUEUE, "depth": 1, "oldest_waiting_at": None, "eta_seconds": 0.5}},
)
tell(
    "export_me",
    ACCOUNT,
    "Take your data with you",
    answers={200: '{"record": "account", "username": "ada"}\n{"record": "end", "records": 1}\n'},
)
