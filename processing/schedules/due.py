"""From a due time to a request, exactly once: the request and the schedule's next due time are one commit.

Any number of dispatchers may look. Whose row another one has locked is left to it; whoever comes later finds the next
due time there. A user whose queue is full or locked holds up nobody else's schedules.
"""

import time
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import OperationalError, transaction
from django.db.models import TextField
from django.db.models.functions import Cast, Now

from processing.schedules.models import Missed, Schedule
from project.rest.problems import Problem, ServiceUnavailable
from queues.enqueue import permissions
from queues.enqueue.accept import accept
from queues.exceptions import QueueFull, SessionOver
from queues.from_python import submission
from queues.notify.hints import work_waits
from queues.sql.locks import wait_at_most
from queues.sql.statement import left_out
from queues.values import Accepted

LOOK_SECONDS = 0.5
RUN_SECONDS = 2.0  # then the dispatcher begins it anew, if it still leads
LOCK_SECONDS = 0.25
BUSY_SECONDS, FULL_SECONDS = 5.0, 30.0  # until it is tried again
BROKEN_SECONDS = 300.0
FRESH = timedelta(seconds=60)  # a due time that is older counts as missed
MOST_MISSED = 100
HELD = "Another transaction holds the queue."

log = structlog.get_logger()


def submit_due() -> None:
    """Submit what is due, for a while."""
    end = time.monotonic() + RUN_SECONDS
    while time.monotonic() < end and submit_next():
        continue


@transaction.atomic
def submit_next() -> bool:
    """Submit for the schedule that has been due for longest; False: there is none that nobody else has."""
    schedule = (
        Schedule.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
        .filter(look_at__lte=Now())
        .order_by("look_at")
        .defer("payload")
        .annotate(payload_text=Cast("payload", TextField()), now=Now())
        .first()
    )
    if schedule is None:
        return False
    try:
        with transaction.atomic():
            _submit(schedule, schedule.now)
    except OperationalError as failure:
        if not left_out(failure):
            raise  # PostgreSQL is away; all of it is as before
        _try_again(schedule, BUSY_SECONDS, HELD)
    except QueueFull as full:
        _try_again(schedule, FULL_SECONDS, str(full))
    except (Problem, SessionOver) as refused:
        _give_up(schedule, _why(refused))
    except Exception as defect:  # a schema that crashes, a time zone that is gone: the others have their turn
        log.exception("a schedule is broken", schedule=str(schedule.id), kind=schedule.kind)
        _try_again(schedule, BROKEN_SECONDS, type(defect).__name__)
    return True


def _submit(schedule: Any, now: datetime) -> None:
    """Submit for the due time whose turn it is, by the policy for missed ones; then the next one is."""
    due_times = schedule.timing.between(schedule.next_at, now, MOST_MISSED) or [schedule.next_at]
    missed = [due for due in due_times if now - due > FRESH]
    if missed and schedule.missed == Missed.SKIP:
        _go_on(schedule, missed[-1])
        return
    due = missed[-1] if missed and schedule.missed == Missed.ONE else due_times[0]
    if schedule.missed == Missed.ALL and due > schedule.next_at:
        log.warning("a schedule missed too much", schedule=str(schedule.id), submitted=MOST_MISSED)
    accepted = _accept(schedule)
    _go_on(schedule, due, last_due_at=due, last_request_id=accepted.submission.id, last_error="")


def _accept(schedule: Any) -> Accepted:
    wait_at_most(LOCK_SECONDS)
    asked = submission(schedule.kind, schedule.payload_text, schedule.version)
    permissions.check(schedule.user_id, [asked.kind])
    (accepted,) = accept(schedule.user_id, [asked], session_id=None, trace=f"schedule-{schedule.id}")
    transaction.on_commit(work_waits)
    return accepted


def _go_on(schedule: Schedule, due: datetime, **told: Any) -> None:
    """It is due next after `due`. The guard is the lock that this transaction holds, and the due time that it read."""
    following = next(schedule.timing.after(due), None)
    Schedule.objects.filter(id=schedule.id, next_at=schedule.next_at).update(
        next_at=following, look_at=following, **told
    )


def _try_again(schedule: Any, seconds: float, why: str) -> None:
    """The due time stays; it is submitted, or missed, later."""
    again = schedule.now + timedelta(seconds=seconds)
    Schedule.objects.filter(id=schedule.id).update(look_at=again, last_error=f"{why} It is tried again."[:500])


def _give_up(schedule: Any, why: str) -> None:
    """Another attempt would be refused, too: its next due time has its turn then."""
    newest = schedule.timing.between(schedule.next_at, schedule.now, 1)
    _go_on(schedule, newest[-1] if newest else schedule.next_at, last_error=why[:500])


def _why(refused: Problem | SessionOver) -> str:
    if isinstance(refused, SessionOver):
        return "The user is not active."
    return " ".join(f"{error.field}: {error.detail}" for error in refused.errors) or str(refused)


def run_now(schedule: Schedule) -> Accepted:
    """Submit its request now, beside its due times. Raises what accepting raises, Invalid and Forbidden, and
    ServiceUnavailable: another transaction holds the queue.
    """
    with_text = Schedule.objects.defer("payload").annotate(payload_text=Cast("payload", TextField()))
    found: Any = with_text.get(id=schedule.id)
    try:
        with transaction.atomic():
            accepted = _accept(found)
            Schedule.objects.filter(id=schedule.id).update(last_request_id=accepted.submission.id, last_error="")
    except OperationalError as failure:
        if not left_out(failure):
            raise
        raise ServiceUnavailable(HELD) from None
    return accepted
