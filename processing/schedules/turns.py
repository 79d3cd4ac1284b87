"""What becomes of a schedule whose turn it is, by its policy for missed due times. Nothing is written here."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import DatabaseError

from processing.schedules.models import Missed
from project.rest.problems import Problem
from queues.enqueue import permissions
from queues.from_python import submission
from queues.values import Submission

FRESH = timedelta(seconds=60)  # a due time that is older counts as missed
MOST_MISSED = 100
BROKEN_SECONDS = 300.0  # until it is tried again

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Turn:
    """Then the schedule is due at `next_at`, and looked at when `look_at` is. `asked` is what to submit for `due`;
    without it `error` says why nothing is submitted.
    """

    schedule: Any
    next_at: datetime | None
    look_at: datetime | None
    asked: Submission | None = None
    due: datetime | None = None
    error: str = ""


def turn_of(schedule: Any, looking: timedelta) -> Turn:
    """What to do about its due time; `looking`: for how long this process has looked for those, without a break.

    Raises DatabaseError.
    """
    try:
        if not schedule.active:
            return _given_up(schedule, "The user is not active.")
        return _turn(schedule, looking)
    except Problem as refused:
        errors = " ".join(f"{error.field}: {error.detail}" for error in refused.errors)
        return _given_up(schedule, errors or str(refused))
    except DatabaseError:
        raise
    except Exception as defect:  # a schema that crashes, a time zone that is gone: the others have their turn
        log.exception("a schedule is broken", schedule=str(schedule.id), kind=schedule.kind)
        return broken(schedule, defect)


def _turn(schedule: Any, looking: timedelta) -> Turn:
    due_times = schedule.timing.between(schedule.next_at, schedule.now, MOST_MISSED) or [schedule.next_at]
    missed = [due for due in due_times if schedule.now - due > FRESH]
    if missed and schedule.missed == Missed.SKIP:
        # The newest one is not missed if all that kept it was that others had their turn first.
        newest, put_off = due_times[-1], schedule.look_at != schedule.next_at
        if missed[-1] == newest and schedule.now - newest <= looking and not put_off:
            missed.pop()
    if missed and schedule.missed == Missed.SKIP:
        return _on(schedule, missed[-1], error=f"Skipped: {missed[-1]:%Y-%m-%d %H:%M:%S} UTC was missed.")
    due = missed[-1] if missed and schedule.missed == Missed.ONE else due_times[0]
    if schedule.missed == Missed.ALL and due > schedule.next_at:
        log.warning("a schedule missed too much", schedule=str(schedule.id), submitted=MOST_MISSED)
    asked = submission(schedule.kind, schedule.payload_text, schedule.version)
    permissions.check(schedule.user_id, [asked.kind])
    return _on(schedule, due, asked)


def broken(schedule: Any, defect: Exception) -> Turn:
    """Its due time stays, and is tried again later."""
    again = schedule.now + timedelta(seconds=BROKEN_SECONDS)
    return Turn(schedule, schedule.next_at, again, error=f"{type(defect).__name__} It is tried again.")


def _given_up(schedule: Any, why: str) -> Turn:
    """Another attempt would be refused, too: its next due time has its turn then."""
    newest = schedule.timing.between(schedule.next_at, schedule.now, 1)
    return _on(schedule, newest[-1] if newest else schedule.next_at, error=why)


def _on(schedule: Any, due: datetime, asked: Submission | None = None, error: str = "") -> Turn:
    """It is due next after `due`."""
    following = next(schedule.timing.after(due), None)
    return Turn(schedule, following, following, asked, due if asked else None, error)
