"""Bulk actions, done a group at a time by any dispatcher, until they are over or somebody cancels them.

A group, how far the action is and the audit log are one transaction: whoever is killed in it has done nothing of it.
"""

import time
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import Error, InterfaceError, OperationalError, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from accounts.models import User
from queues.admin.actions import OF_QUEUES, OF_REQUESTS
from queues.admin.bulk_actions import ControlAction, Given
from queues.exceptions import NotPossible, QueueFull, SessionOver
from queues.models import BulkAction, Request, UserQueue
from queues.sql.locks import restore_lock_timeout, wait_at_most
from queues.sql.selectors import NEXT_BULK_ACTION
from queues.sql.statement import left_out

log = structlog.get_logger()

GROUP, GROUP_SECONDS = 25, 0.25  # a transaction, in which the rows that it changed stay locked
LOCK_SECONDS = 0.01  # how long a target waits for a row that somebody has locked ..
AGAIN_SECONDS = 1.0  # .. before it is tried again, behind the others ..
LOCKED_SECONDS = 600.0  # .. and for how long, once nothing else is left
PUT_OFF_SECONDS = 10.0  # how long an action whose group went wrong leaves the others their turn
UNKNOWN_DAYS = 1  # how long a release that does not know an action leaves it to newer dispatchers
PAGES = {"userqueue": OF_QUEUES, "request": OF_REQUESTS}
REASONS = 20  # that are counted each by itself


def control_of(action: BulkAction) -> ControlAction | None:
    """What is to be done; None: this release does not know it."""
    return next((what for what in PAGES.get(action.page, ()) if what.name == action.name), None)


def may(user: User, action: BulkAction, what: ControlAction) -> bool:
    """Whether the user has the right for it."""
    return user.is_active and user.is_staff and user.has_perm(f"queues.{what.right}_{action.page}")


def step() -> bool:
    """Do a group of the action that waited longest; whether there was one that is due.

    What goes wrong with it is raised, and others have their turn before it is tried again.
    """
    taken: Any = None
    try:
        with transaction.atomic():
            taken = NEXT_BULK_ACTION.row(count=GROUP)
            if taken is None:
                return False
            action = BulkAction.objects.select_related("user").defer("targets").get(id=taken.id)
            what = control_of(action)
            if what is None:
                _leave(action)
            elif not may(action.user, action, what):
                end(action, f"{action.user.get_username()} may not do this any more.")
            else:
                _Group(action, what).do(taken.following)
    except Exception:
        if taken is not None:
            with suppress(Error):  # PostgreSQL may be what is away
                _put_off(taken.id)
        raise
    return True


def _leave(action: BulkAction) -> None:
    """To a dispatcher of a newer release, while one may come."""
    if timezone.now() - action.created_at > timedelta(days=UNKNOWN_DAYS):
        end(action, "This release does not know the action.")
    else:
        _put_off(action.pk)


def _put_off(pk: int) -> None:
    """Let others have their turn before it."""
    BulkAction.objects.filter(id=pk).update(next_at=Now() + timedelta(seconds=PUT_OFF_SECONDS))


def end(action: BulkAction, stopped: str = "") -> None:
    """It is over, or stopped for that reason. The caller's transaction has its row locked."""
    action.finished_at, action.stopped = timezone.now(), stopped[:300]
    values = {"finished_at": action.finished_at, "stopped": action.stopped, "targets": []}
    BulkAction.objects.filter(id=action.pk).update(**values)
    if action.done > 1 or stopped:
        skipped, failed = sum(action.skipped.values()), sum(action.failed.values())
        told = f"{action.handled} of {action.total}, {skipped} skipped, {failed} failed. {stopped}".strip()
        model = model_of(action)
        LogEntry.objects.create(
            user_id=action.user_id,
            content_type=ContentType.objects.get_for_model(model),
            action_flag=CHANGE,
            object_repr=f"{action.done} {model._meta.verbose_name_plural}",
            change_message=f"{_told(action)}; {told}",
        )


def model_of(action: BulkAction) -> type[UserQueue] | type[Request]:
    """What its targets are."""
    what = control_of(action)
    return Request if action.page == "request" or (what and what.targets) else UserQueue


def _told(action: BulkAction) -> str:
    what = control_of(action)
    values = ", ".join(f"{name} {value}" for name, value in action.given.items() if value is not None)
    return f"{what.done if what else action.name}: {action.reason}" + (f" ({values})" if values else "")


class _Group:
    """The next targets of an action whose row this transaction has locked."""

    def __init__(self, action: BulkAction, what: ControlAction) -> None:
        self.action, self.what = action, what
        self.given = Given(f"{action.user.get_username()}: {action.reason}", action.reason, action.given)
        self.rows: dict[str, Any] = {}
        self.done: list[Any] = []

    def do(self, following: list[str]) -> None:
        """Do `following`, or where nothing follows what was locked, and record how far that is."""
        action, before = self.action, self.action.handled
        tried, locked = self._try((following or action.later)[: self._most()], following)
        if following:
            action.position += len(tried)
            action.later += locked
        else:
            self._put_behind(len(tried), locked)
        self._log()
        now, handled = timezone.now(), action.handled - before
        if handled:
            action.handled_at = now
        elif action.position == action.total and now - (action.handled_at or action.created_at) > timedelta(
            seconds=LOCKED_SECONDS
        ):
            why = f"Somebody had it locked for {LOCKED_SECONDS / 60:.0f} minutes."
            action.failed[why] = len(action.later)
            action.later = []
        wait = 0.0 if action.position < action.total or handled else AGAIN_SECONDS
        if (most := action.given.get("most")) and handled:
            wait = handled * int(action.given["per"]) / most
        values = {name: getattr(action, name) for name in ("position", "done", "skipped", "failed", "handled_at")}
        later = {"later": action.later, "next_at": Now() + timedelta(seconds=wait)}
        BulkAction.objects.filter(id=action.pk).update(**values, **later)
        if action.handled == action.total:
            end(action)

    def _most(self) -> int:
        """At most a second's worth of a pace."""
        most = self.action.given.get("most")
        return max(1, min(GROUP, most // int(self.action.given["per"]))) if most else GROUP

    def _try(self, targets: list[str], following: list[str]) -> tuple[list[str], list[str]]:
        """Those that had their turn, and those of them that are locked: with one, all behind it in its queue."""
        model = model_of(self.action)
        rows: QuerySet[Any] = model.objects.filter(pk__in=[target.split()[1] for target in targets])
        rows = rows.defer("payload", "result", "error") if model is Request else rows
        self.rows = {str(row.pk): row for row in rows}
        deadline = time.monotonic() + GROUP_SECONDS
        queues = {self.action.later[-1].split()[0]} if following and self.action.later else set()
        tried: list[str] = []
        locked: list[str] = []
        limit = wait_at_most(LOCK_SECONDS)
        for target in targets:
            if tried and time.monotonic() > deadline:
                break
            tried.append(target)
            queue, pk = target.split()
            if queue in queues or not self._one(pk):
                queues.add(queue)
                locked.append(target)
        restore_lock_timeout(limit)
        return tried, locked

    def _one(self, pk: str) -> bool:
        """Do one; False: somebody has it locked. What is not possible, or goes wrong, is counted by its reason."""
        action = self.action
        key = UUID(pk) if model_of(action) is Request else int(pk)
        bound = {"by": self.given.by, "command": f"admin {action.name}", "reason": action.reason}
        try:
            with structlog.contextvars.bound_contextvars(**bound), transaction.atomic():
                self.what.verb(key, self.given)
        except (NotPossible, QueueFull) as why:
            _count(action.skipped, str(why))
        except SessionOver:
            _count(action.skipped, "Its user is not active.")
        except (Request.DoesNotExist, UserQueue.DoesNotExist):
            _count(action.skipped, "It has just been erased.")
        except (OperationalError, InterfaceError) as error:
            if not left_out(error):
                raise
            return False
        except Exception as error:
            log.exception("a target of a bulk action failed", action=action.pk, target=pk)
            _count(action.failed, f"{type(error).__name__}: the dispatcher's log has more.")
        else:
            action.done += 1
            if pk in self.rows:
                self.done.append(self.rows[pk])
        return True

    def _put_behind(self, tried: int, locked: list[str]) -> None:
        """What is locked still goes behind the others, and each queue stays in order."""
        rest, queues = self.action.later[tried:], {target.split()[0] for target in locked}
        others = [target for target in rest if target.split()[0] not in queues]
        self.action.later = [*others, *locked, *(target for target in rest if target.split()[0] in queues)]

    def _log(self) -> None:
        """Each row's history."""
        if self.done:
            LogEntry.objects.log_actions(self.action.user_id, self.done, CHANGE, _told(self.action))


def _count(reasons: dict[str, int], why: str) -> None:
    """By reason; the first ones by themselves, and then all others together."""
    key = why if why in reasons or len(reasons) < REASONS else "other reasons"
    reasons[key] = reasons.get(key, 0) + 1
