"""What is asked of queues that may be silent is asked beside the dispatcher: it publishes to the others meanwhile."""

import threading
import time
from collections.abc import Callable
from functools import partial

import structlog
from django.db import Error as DatabaseError
from django.db import connection

from processing import metrics
from processing.broker.rabbitmq import ASKED_AT_ONCE, BrokerUnavailable, Publisher, queue_name
from processing.dispatch import duties
from queues.lifecycle import outbox
from queues.lifecycle.outbox import Shard

log = structlog.get_logger()

PAUSE_SECONDS = 5.0  # between two searches


class Beside:
    """One job at a time, in a thread with its own connections."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = float("-inf")
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Callable[[Publisher], None]) -> None:
        """Do it; never waits. To be called when it is not busy."""
        self._thread = threading.Thread(target=self._run, args=[job], name=self.name, daemon=True)
        self._thread.start()

    def _run(self, job: Callable[[Publisher], None]) -> None:
        publisher = Publisher()
        try:
            job(publisher)
        except (DatabaseError, BrokerUnavailable) as error:
            log.warning("a server is away", what=self.name, error=str(error).strip())
        finally:
            self.ended = time.monotonic()
            publisher.close()
            connection.close()


class Duties:
    """What apps registered, each beside the others: none of them, however long it takes, keeps anybody waiting."""

    def __init__(self) -> None:
        self._beside = {duty.name: (duty, Beside(duty.name)) for duty in duties.registered.values()}

    def begin(self) -> None:
        """Begin those whose time has come and that are not under way. Never waits."""
        for duty, beside in self._beside.values():
            if not beside.busy and time.monotonic() - beside.ended >= duty.seconds:
                beside.start(partial(self._do, duty))

    def _do(self, duty: duties.Duty, _: Publisher) -> None:
        try:
            duty.job()
        except (DatabaseError, BrokerUnavailable):
            raise
        except Exception:
            log.exception("a duty has a defect; it is begun again", duty=duty.name)


class Search(Beside):
    """Finds all queues that RabbitMQ lost with a node, once one was met: no worker has to meet each of them."""

    def __init__(self, shard: Shard) -> None:
        super().__init__("search")
        self.shard = shard

    def begin(self) -> None:
        """Look at every queue with something in it, unless that was done just now."""
        if not self.busy and time.monotonic() - self.ended >= PAUSE_SECONDS:
            self.start(self._search)

    def _search(self, publisher: Publisher) -> None:
        after = renamed = 0
        while rows := [(row.id, row.generation) for row in outbox.brought(self.shard, after, ASKED_AT_ONCE)]:
            after = rows[-1][0]
            waiting = publisher.waiting_in([queue_name(*row) for row in rows])
            renamed += len(outbox.rename([row for row in rows if not isinstance(waiting[queue_name(*row)], int)]))
        metrics.QUEUES_RENAMED.labels("dispatcher").inc(renamed)
        log.info("searched for queues that RabbitMQ lost", renamed=renamed)


class Deletion(Beside):
    """Deletes queues. Once it is not busy any more, `left` are those of `names` of which RabbitMQ said nothing."""

    def __init__(self) -> None:
        super().__init__("deletion")
        self.names: list[str] = []
        self.left: set[str] = set()

    def begin(self, names: list[str]) -> None:
        """Delete them all. To be called when it is not busy."""
        self.names, self.left = names, set(names)  # should RabbitMQ be away

        def delete(publisher: Publisher) -> None:
            self.left = set(publisher.delete(names))

        self.start(delete)
