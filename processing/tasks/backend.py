"""Django's tasks, each a request in a user's order: `BACKEND` of TASKS.

`@task` functions are enqueued with `using(user=..)`. Ours and theirs: a result is the request's, `run_after` is
`not_before`, retries are the kind's. What does not map is refused where the task is declared, or at the start:
priorities, and queues by name.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from inspect import iscoroutinefunction
from typing import Any
from uuid import UUID

from django.db import transaction
from django_tasks.backends.base import BaseTaskBackend
from django_tasks.base import Task, TaskResult
from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist
from django_tasks.signals import task_enqueued
from django_tasks.utils import normalize_json

import queues
from accounts.models import User
from processing.tasks import results
from processing.tasks.policy import ASYNC, PLAIN, kind_of, ours
from queues.models import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedTask(Task[Any, Any]):
    """A task that knows in whose order it runs."""

    user: UUID | None = field(default=None, compare=False)
    idempotency_key: str | None = field(default=None, compare=False)

    def using(
        self,
        *,
        user: User | UUID | None = None,
        idempotency_key: str | None = None,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | None = None,
        backend: str | None = None,
    ) -> "OrderedTask":
        """The same task for `user`, or with other defaults; as for `queues.submit`, a key makes it happen once."""
        changed = Task.using(self, priority=priority, queue_name=queue_name, run_after=run_after, backend=backend)
        if user is not None:
            changed = replace(changed, user=user if isinstance(user, UUID) else user.id)
        return changed if idempotency_key is None else replace(changed, idempotency_key=idempotency_key)


class OrderedBackend(BaseTaskBackend):
    """OPTIONS: `user`, the name of the user in whose order tasks run that name none, and the policy of the kind:
    `max_attempts`, `time_limit`, `on_failure`, `backoff`, `backoff_cap`.
    """

    task_class = OrderedTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = False

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        ours()  # refuses what does not map
        self.kind = kind_of(alias)

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> "TaskResult[Any]":
        """Submit it, in the caller's transaction. A repetition, by its key, returns the first one as it is now.

        Raises InvalidTaskError, what `queues.submit` raises, and TaskResultDoesNotExist: the first one is deleted.
        """
        self.validate_task(task)
        user_id = self._user(task)
        payload = {"task": task.module_path, "arguments": normalize_json(args), "keywords": normalize_json(kwargs)}
        submitted = queues.submit(
            user_id,
            self.kind,
            payload,
            version=ASYNC if iscoroutinefunction(task.func) else PLAIN,
            not_before=task.run_after,
            idempotency_key=task.idempotency_key,
            check_permission=False,
        )
        if submitted.replayed:
            return self.get_result(str(submitted.id))
        result = results.enqueued(
            task.using(user=user_id), submitted.id, submitted.created_at, payload["arguments"], payload["keywords"]
        )
        transaction.on_commit(partial(task_enqueued.send, type(self), task_result=result))
        return result

    def get_result(self, result_id: str) -> "TaskResult[Any]":
        """The request of that id as it is now. Raises TaskResultDoesNotExist: there is none, or its task is gone."""
        try:
            id_ = UUID(result_id)
        except (ValueError, AttributeError, TypeError):
            raise TaskResultDoesNotExist(result_id) from None
        found = Request.objects.select_related("queue").filter(id=id_, kind=self.kind).first()
        if found is None:
            raise TaskResultDoesNotExist(result_id)
        try:
            return results.stored(found, self.alias)
        except results.NoSuchTask as gone:
            raise TaskResultDoesNotExist(f"{result_id}: {gone}") from gone

    def _user(self, task: Any) -> UUID:
        """In whose order it runs. Raises InvalidTaskError."""
        if task.user is not None:
            return UUID(str(task.user))
        name = self.options.get("user")
        if name is None:
            raise InvalidTaskError(
                f"{task.name}: say in whose order it runs: using(user=..), or OPTIONS['user'] of TASKS[{self.alias!r}]."
            )
        user = User.objects.named(name).first()
        if user is None:
            raise InvalidTaskError(f"TASKS[{self.alias!r}]: OPTIONS['user'] is {name!r}, and there is no such user.")
        return UUID(str(user.id))
