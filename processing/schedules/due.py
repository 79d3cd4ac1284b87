"""From a due time to a request, exactly once: the request and the schedule's next due time are one commit.

    see who has something due, and give each of them one turn: many users' in one commit

is a round, and the whole of it. So whoever has little due waits for nobody who has much. A user whose queue is full or
locked is left out of the commit, tried alone, and put off.

Any number of dispatchers may look. Whose schedule another one has locked is left to it, with all that comes behind it;
so is what another one was faster with. The next due time has its turn in the next round.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any
from uuid import UUID

import orjson
import structlog
from django.db import DatabaseError, OperationalError, connection, transaction
from django.db.models import F, TextField
from django.db.models.functions import Cast, Now

from accounts.audit import printable
from processing.schedules.models import Schedule
from processing.schedules.statements import MOVE, PUT_OFF, ROUND
from processing.schedules.turns import Turn, broken, turn_of
from project.rest.problems import ServiceUnavailable
from project.telemetry import tracing
from queues.enqueue import permissions
from queues.enqueue.accept import accept, accept_messages
from queues.exceptions import QueueFull, SessionOver
from queues.from_python import submission
from queues.notify.changes import changed
from queues.notify.hints import work_waits
from queues.sql.locks import wait_at_most
from queues.sql.statement import left_out
from queues.values import Accepted, Submission, SubmissionCall

LOOK_SECONDS = 0.5
RUN_SECONDS = 2.0  # and to the end of a round; then the dispatcher begins it anew, if it still leads
BREAK_SECONDS = 10.0  # without a look: nobody looked meanwhile
MOST_IN_ROUND = 500  # of some users' schedules; of more users it is one of each
TOGETHER = 100  # schedules in one commit
LOCK_SECONDS, RUN_NOW_SECONDS = 0.02, 0.25  # that a queue's lock is waited for
BUSY_SECONDS, FULL_SECONDS = 2.0, 30.0  # until the user's are tried again
Planned = tuple[UUID, datetime]  # a schedule, and the due time whose turn it is

HELD = "Another transaction holds the queue."

log = structlog.get_logger()

_begun = _looked = float("-inf")


def submit_due() -> None:
    """Submit what is due, for a while."""
    end = time.monotonic() + RUN_SECONDS
    while submit_round() and time.monotonic() < end:
        continue


def submit_round() -> int:
    """Give each user with something due a turn, who has waited for longest first; how many schedules went on."""
    planned = [list(zip(row.ids, row.due_times, strict=True)) for row in ROUND.rows(most=MOST_IN_ROUND)]
    _looking()
    return sum(_submit(part, _looking()) for part in _parts(planned))


def _looking() -> timedelta:
    """For how long this process has looked for what is due, without a break. To be called at each look."""
    global _begun, _looked
    now = time.monotonic()
    if now - _looked > BREAK_SECONDS:
        _begun = now
    _looked = now
    return timedelta(seconds=now - _begun)


def _parts(users: Iterable[list[Planned]]) -> Iterator[list[list[Planned]]]:
    """All of some users' in each."""
    part: list[list[Planned]] = []
    for planned in users:
        part.append(planned)
        if sum(map(len, part)) >= TOGETHER:
            yield part
            part = []
    if part:
        yield part


def _submit(users: list[list[Planned]], looking: timedelta) -> int:
    try:
        count, left = _submit_together(users, looking)
    except DatabaseError as failure:
        if _away(failure):
            raise
        log.warning("schedules go on one by one", error=str(failure).strip().partition("\n")[0])
        count, left = 0, [planned[0] for planned in users]
    return count + sum(_submit_alone(first, looking) for first in left)


@transaction.atomic
def _submit_together(users: list[list[Planned]], looking: timedelta) -> tuple[int, list[Planned]]:
    """How many went on, and the first one of each user whose queue took nothing. Waits for nobody's lock."""
    locked = _lock(chain.from_iterable(users))
    turns = [turn for planned in users for turn in _turns(planned, locked, looking)]
    accepted = _accept_together([turn for turn in turns if turn.asked is not None])
    left: dict[UUID, Planned] = {}
    moved = []
    for turn in turns:
        if turn.asked is None or turn.asked.id in accepted:
            moved.append(turn)
        else:
            left.setdefault(turn.schedule.user_id, (turn.schedule.id, turn.schedule.next_at))
    _move(moved)
    return len(moved), list(left.values())


def _lock(planned: Iterable[Planned]) -> dict[Planned, Any]:
    """Those whose turn it is still, and that nobody else has."""
    found: Iterable[Any] = (
        Schedule.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
        .filter(id__in=[schedule_id for schedule_id, _ in planned], look_at__lte=Now())
        .defer("payload")
        .annotate(payload_text=Cast("payload", TextField()), active=F("user__is_active"), now=Now())
    )
    return {(schedule.id, schedule.next_at): schedule for schedule in found}


def _turns(planned: list[Planned], locked: Mapping[Planned, Any], looking: timedelta) -> list[Turn]:
    """One user's, in order: until somebody else has one, or had it meanwhile, or one of them is due again before."""
    turns: list[Turn] = []
    for one in planned:
        again = [turn.look_at for turn in turns if turn.look_at is not None]
        if one not in locked or (again and min(again) < locked[one].next_at):
            break
        turns.append(turn_of(locked[one], looking))
    return turns


def _accept_together(turns: Sequence[Turn]) -> dict[UUID, Accepted]:
    """What was taken, by its id."""
    accepted: dict[UUID, Accepted] = {}
    with ExitStack() as spans:
        asks = []
        for turn in turns:
            assert turn.asked is not None  # noqa: S101  (the caller's choice)
            parent = spans.enter_context(_span(turn.asked, accepted))
            asks.append(SubmissionCall(turn.schedule.user_id, None, turn.asked, _trace(turn.schedule), parent))
        if asks:
            accepted |= accept_messages(asks)
    if accepted:
        transaction.on_commit(partial(_tell, {one.queue_id for one in accepted.values()}))
    return accepted


@contextmanager
def _span(asked: Submission, accepted: Mapping[UUID, Accepted]) -> Iterator[str | None]:
    """Where there is tracing; its traceparent. None is told of what was not accepted until then."""
    if tracing.tracer is None:
        yield None
        return
    with tracing.tracer.submit(asked.kind.name, asked.id, 1) as traceparent:
        yield traceparent
        if asked.id not in accepted:
            raise tracing.LeftToOthers


def _tell(queues: Iterable[int]) -> None:
    for queue_id in queues:
        changed(queue_id)
    work_waits()


@transaction.atomic
def _submit_alone(planned: Planned, looking: timedelta) -> int:
    """Submit it, or put off all that its user has due; how many went on. What is refused for good, the next round sees.

    Here the queue of a user who had none is made, and a lock is waited for, briefly.
    """
    schedule = _lock([planned]).get(planned)
    if schedule is None:
        return 0
    try:
        with transaction.atomic():
            turn = turn_of(schedule, looking)
            if turn.asked is not None:
                _accept(schedule, turn.asked, LOCK_SECONDS)
    except SessionOver:
        return 0
    except QueueFull as full:
        PUT_OFF.rows(user=schedule.user_id, seconds=FULL_SECONDS, why=_again(full))
        return 1
    except DatabaseError as failure:
        if _away(failure):
            raise
        if left_out(failure):
            PUT_OFF.rows(user=schedule.user_id, seconds=BUSY_SECONDS, why=_again(HELD))
            return 1
        log.exception("a schedule is broken", schedule=str(schedule.id), kind=schedule.kind)
        turn = broken(schedule, failure)
    _move([turn])
    return 1


def _again(why: object) -> str:
    return f"{why} It is tried again."[:500]


def _accept(schedule: Any, asked: Submission, seconds: float) -> Accepted:
    """Raises what accepting raises, and what `left_out` tells when the queue stays locked for so many seconds."""
    wait_at_most(seconds)
    (accepted,) = accept(schedule.user_id, [asked], session_id=None, trace=_trace(schedule))
    transaction.on_commit(work_waits)
    return accepted


def _trace(schedule: Any) -> str:
    return f"schedule-{schedule.id}"


def _move(turns: Sequence[Turn]) -> None:
    """The guard is the lock that this transaction holds."""
    moves = [
        {
            "id": turn.schedule.id,
            "next_at": turn.next_at,
            "look_at": turn.look_at,
            "last_due_at": turn.due,
            "last_request_id": turn.asked and turn.asked.id,
            "last_error": printable(turn.error)[:500],
        }
        for turn in turns
    ]
    MOVE.rows(moves=orjson.dumps(moves).decode())


def _away(failure: DatabaseError) -> bool:
    """Whether PostgreSQL is away: all is as before. A schema may ask another server, which is its own trouble."""
    return isinstance(failure, OperationalError) and not left_out(failure) and not connection.is_usable()


def run_now(schedule: Schedule) -> Accepted:
    """Submit its request now, beside its due times. Raises what accepting raises, Invalid and Forbidden, and
    ServiceUnavailable: another transaction holds the queue.
    """
    with_text = Schedule.objects.defer("payload").annotate(payload_text=Cast("payload", TextField()))
    found: Any = with_text.get(id=schedule.id)
    try:
        with transaction.atomic():
            asked = submission(found.kind, found.payload_text, found.version)
            permissions.check(found.user_id, [asked.kind])
            accepted = _accept(found, asked, RUN_NOW_SECONDS)
            Schedule.objects.filter(id=schedule.id).update(last_request_id=asked.id, last_error="")
    except OperationalError as failure:
        if not left_out(failure):
            raise
        raise ServiceUnavailable(HELD) from None
    return accepted
