"""What is asked of queues that may be silent is asked beside the dispatcher: it publishes to the others meanwhile."""

import threading
import time
from collections.abc import Callable, Container

import structlog
from django.db import Error as DatabaseError
from django.db import connection

from processing import metrics
from processing.broker.errors import BrokerUnavailable, QueueUnavailable
from processing.broker.pointers import Pointer, queue_name
from processing.broker.rabbitmq import ASKED_AT_ONCE, Publisher
from processing.dispatch import duties
from queues.lifecycle import outbox
from queues.lifecycle.outbox import PublishBatch, Shard

log = structlog.get_logger()

PAUSE_SECONDS = 5.0  # between two searches
UNWANTED_SECONDS = 1.0  # a duty whose dispatcher does not lead any more ends its thread after so long


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
    """What apps registered, each in a thread of its own: however long one takes, it keeps nobody waiting."""

    def __init__(self) -> None:
        self.threads = [DutyThread(duty) for duty in duties.registered.values()]

    def begin(self) -> None:
        """Have those done whose time has come. To be called at each step while this process leads; never waits."""
        for thread in self.threads:
            thread.begin()


class DutyThread:
    """Does one duty, with a connection of its own, as long as `begin` is called now and then."""

    def __init__(self, duty: duties.Duty) -> None:
        self.duty = duty
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Do it, if it is time. Never waits."""
        self._wanted.set()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=self.duty.name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while self._wanted.wait(UNWANTED_SECONDS):
                self._wanted.clear()
                self._do()
                if self.duty.seconds > UNWANTED_SECONDS:
                    connection.close()  # it rests for long
                time.sleep(self.duty.seconds)
        finally:
            connection.close()

    def _do(self) -> None:
        try:
            self.duty.job()
        except DatabaseError as error:
            log.warning("a server is away", what=self.duty.name, error=str(error).strip())
            connection.close()
        except Exception:
            log.exception("a duty has a defect; it is begun again", duty=self.duty.name)
            connection.close()


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


class Retries(Beside):
    """Publishes to queues of whose name RabbitMQ had no word before: it may have none again, until our clock ends."""

    def __init__(self) -> None:
        super().__init__("retries")
        self._met: dict[int, int] = {}  # the generation of each such queue
        self._batches: list[PublishBatch] = []
        self._failed: dict[str, QueueUnavailable] | None = None
        self._defect: Exception | None = None

    def add(self, batch: PublishBatch) -> None:
        """RabbitMQ had no word of this queue."""
        self._met[batch.queue_id] = max(batch.generation, self._met.get(batch.queue_id, 0))

    def has(self, batch: PublishBatch) -> bool:
        """Whether it is of such a queue, under the same name."""
        return bool(self._met) and self._met.get(batch.queue_id) == batch.generation

    def forget(self, batch: PublishBatch) -> None:
        """It went well, or is to be tried with the others."""
        if self.has(batch):
            del self._met[batch.queue_id]

    def forget_but(self, queue_ids: Container[int]) -> None:
        """Forget queues that are no trouble any more."""
        self._met = {queue_id: met for queue_id, met in self._met.items() if queue_id in queue_ids}

    def begin(self, batches: list[PublishBatch]) -> None:
        """Publish these, unless others are under way or were not taken yet."""
        if self.busy or self._batches or not batches:
            return
        self._batches, self._failed = batches, None

        def publish(publisher: Publisher) -> None:
            try:
                self._failed = publisher.publish_apart([named(batch) for batch in batches])
            except BrokerUnavailable:
                raise  # `_run` says so
            except Exception as defect:
                self._defect = defect

        self.start(publish)

    def take(self) -> tuple[list[PublishBatch], dict[str, QueueUnavailable] | None]:
        """What was tried since, and of it what failed, once. None: RabbitMQ did not take the connection.

        Raises what nobody expects.
        """
        if self._defect is not None:
            raise self._defect
        if self.busy or not self._batches:
            return [], {}
        batches, self._batches = self._batches, []
        return batches, self._failed


def named(batch: PublishBatch) -> tuple[str, Pointer]:
    """The name of its queue in RabbitMQ, and what that is to get."""
    return queue_name(batch.queue_id, batch.generation), Pointer(batch.before + 1, batch.target)


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
