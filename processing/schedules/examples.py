"""Examples of the routes of schedules, for the documentation. All are of one user, Ada."""

from typing import Any

from project.rest.examples import Error, tell
from queues.api.examples import AGAIN, TOO_MUCH, wrong

SCHEDULES = "Schedules"
ASKED: dict[str, Any] = {
    "name": "good morning",
    "kind": "demo.echo",
    "payload": "hello",
    "cron": "30 6 * * MON-FRI",
    "time_zone": "Europe/Berlin",
}
MADE: dict[str, Any] = {
    "id": "01938a75-2e4c-7f1a-8b3d-9c0e1f2a3b4c",
    "name": ASKED["name"],
    "kind": ASKED["kind"],
    "version": None,
    "payload": ASKED["payload"],
    "cron": ASKED["cron"],
    "time_zone": ASKED["time_zone"],
    "every_seconds": None,
    "missed": "one",
    "enabled": True,
    "next_at": ["2026-11-23T05:30:00Z", "2026-11-24T05:30:00Z", "2026-11-25T05:30:00Z"],
    "last_due_at": None,
    "last_request": None,
    "last_error": None,
    "created_at": "2026-11-20T09:40:00.120000Z",
}
USED = {
    **MADE,
    "next_at": ["2026-11-24T05:30:00Z", "2026-11-25T05:30:00Z", "2026-11-26T05:30:00Z"],
    "last_due_at": "2026-11-23T05:30:00Z",
    "last_request": "01939845-9d60-7c2e-9a7f-3d4e5f607182",
}
HOURLY = {
    **USED,
    "cron": None,
    "time_zone": "UTC",
    "every_seconds": 3600,
    "missed": "skip",
    "next_at": ["2026-11-23T10:15:00.250000Z", "2026-11-23T11:15:00.250000Z", "2026-11-23T12:15:00.250000Z"],
}
NOT_YOURS = (
    Error(
        "forbidden",
        "You may not ask for this kind; see errors.",
        (("kind", "forbidden", "You may not ask for reports.salaries."),),
    ),
)

tell("schedules", SCHEDULES, "List your schedules", answers={200: {"results": [USED]}})
tell(
    "add_schedule",
    SCHEDULES,
    "Ask for something at set times",
    request=ASKED,
    answers={201: MADE},
    errors={
        **wrong("cron", "invalid", "Write five fields: minute, hour, day of month, month, day of week."),
        403: NOT_YOURS,
        409: (Error("conflict", "You have 100 schedules, which is as many as may be."),),
    },
)
tell("schedule", SCHEDULES, "Look at one schedule", answers={200: USED})
tell(
    "change_schedule",
    SCHEDULES,
    "Change a schedule",
    request={"every_seconds": 3600, "time_zone": "UTC", "missed": "skip"},
    answers={200: HOURLY},
    errors={
        **wrong("time_zone", "invalid", "This time zone is not known. Write one as Europe/Berlin, or UTC."),
        403: NOT_YOURS,
    },
)
tell("remove_schedule", SCHEDULES, "Remove a schedule")
tell("pause_schedule", SCHEDULES, "Pause a schedule", answers={200: {**USED, "enabled": False, "next_at": []}})
tell("resume_schedule", SCHEDULES, "Let a schedule go on", answers={200: USED})
tell(
    "run_schedule",
    SCHEDULES,
    "Submit its request now",
    answers={200: {**USED, "last_request": AGAIN["id"]}},
    errors={403: NOT_YOURS, 429: TOO_MUCH},
)
