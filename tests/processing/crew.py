"""Dispatchers and workers for tests: in threads of the test's process, with the real PostgreSQL, RabbitMQ and Redis."""

import itertools
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import orjson
import pika
import pika.exceptions
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from dramatiq import Message

from accounts.models import User
from processing import actors
from processing.broker import token_sender
from processing.broker import tokens as broker
from processing.broker.pointers import Pointer, queue_name
from processing.broker.rabbitmq import CLASSIC
from processing.dispatch.dispatcher import Dispatcher
from processing.worker import drain
from project.rabbitmq_addresses import amqp_urls
from queues import kinds
from queues.enqueue.accept import accept
from queues.lifecycle import outbox
from queues.lifecycle.outbox import Shard
from queues.models import Attempt, Request, UserQueue
from queues.values import Accepted, Submission
from tests.waiting import until

SHORTEST_PAUSE, LONGEST_PAUSE = 0.003, 0.025  # seconds between two looks for a token

_numbers = itertools.count(1)


def new_user() -> User:
    return User.objects.create(username=f"crew-{next(_numbers)}")


def submit(user: User, *payloads: Any, kind: str = "test.script", **fields: Any) -> list[Accepted]:
    """Accept one request for each payload, in one batch."""
    found = kinds.find(kind)
    return accept(
        user.id, [Submission(found, orjson.dumps(payload).decode(), **fields) for payload in payloads], session_id=None
    )


def submit_with_one_attempt_left(user: User, payload: Any) -> None:
    """A request whose attempts but for one ended with the workers that ran them."""
    with transaction.atomic():
        (one,) = submit(user, payload, kind="test.journal")
        Request.objects.filter(id=one.submission.id).update(status="retrying", attempt=2, started_at=Now())
        UserQueue.objects.filter(id=one.queue_id).update(crash_recovery_until_seq=1)


def queue_of(user: User) -> UserQueue:
    return UserQueue.objects.get(user=user)


def requests_of(user: User) -> list[Request]:
    return list(Request.objects.filter(queue__user=user).select_related("queue").order_by("seq"))


def statuses_of(user: User) -> list[str]:
    return [request.status for request in requests_of(user)]


def attempts_of(request: Request) -> list[tuple[int, str]]:
    return list(Attempt.objects.filter(request=request).values_list("number", "outcome"))


def all_done() -> bool:
    """Whether everything accepted has a final outcome and every queue rests."""
    return not UserQueue.objects.exclude(state="idle", last_seq=F("done_seq")).exists()


class Wire:
    """The tests' own way to RabbitMQ."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._channel: Any = None

    def open(self) -> Any:
        if self._channel is None or not self._channel.is_open:
            self.close()
            self._connection = pika.BlockingConnection(pika.URLParameters(amqp_urls(settings.ENV.rabbitmq_url)[0]))
            self._channel = self._connection.channel()
        return self._channel

    def keep_alive(self) -> None:
        self._connection.process_data_events(0)

    def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None and connection.is_open:
            connection.close()

    def get_token(self) -> Callable[[], None] | None:
        """Take a drain token; what a worker does with it."""
        method, _, body = self.open().basic_get(broker.token_queue(), auto_ack=True)
        return None if method is None else partial(actors.drain.fn, *Message.decode(body).args)

    def put_token(self, *queue_ids: int) -> None:
        for queue_id in queue_ids:
            self.open().basic_publish("", broker.token_queue(), broker.token(queue_id))
        self.keep_alive()

    def tokens(self) -> int:
        return self.depth(broker.token_queue())

    def depth(self, name: str) -> int:
        """Messages ready in a queue that exists."""
        return int(self.open().queue_declare(name, passive=True).method.message_count)

    def exists(self, queue_id: int) -> bool:
        try:
            self.depth(queue_name(queue_id))
        except pika.exceptions.ChannelClosedByBroker:
            return False
        return True

    def publish(self, queue_id: int, *bodies: bytes) -> None:
        """Put raw messages into a user's queue."""
        channel = self.open()
        channel.queue_declare(queue_name(queue_id), durable=True, arguments=CLASSIC)
        for body in bodies:
            channel.basic_publish("", queue_name(queue_id), body)
        self.keep_alive()

    def purge(self, name: str) -> None:
        self.open().queue_purge(name)

    def delete(self, name: str) -> None:
        self.open().queue_delete(name)


def new_dispatcher(with_duties: bool = False) -> Dispatcher:
    """One without what apps registered, by default: its threads outlive a test, and would take the next one's work."""
    dispatcher = Dispatcher(Shard(0, 1))
    if not with_duties:
        dispatcher._duties.threads.clear()
    return dispatcher


class Hand:
    """One dispatcher and one worker, moved step by step by the test's own thread."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.dispatcher = new_dispatcher()
        self.dispatcher._swept = time.monotonic()  # sweeps only when it is told to

    def dispatch(self) -> None:
        self.dispatcher._woke = 0.0  # whose moment has come is looked for at once
        while self.dispatcher.step():
            continue

    def dispatch_singly(self, user: User) -> None:
        """Bring RabbitMQ a message for each request of theirs, as if each had been accepted long after the other."""
        (batch,) = outbox.unpublished(Shard(0, 1), queue_of(user).id - 1, 1)
        places = range(batch.before + 1, batch.target + 1)
        self.wire.publish(batch.queue_id, *[Pointer(seq, seq).encode() for seq in places])
        until(lambda: self.wire.depth(queue_name(batch.queue_id)) >= len(places), 5, "RabbitMQ has them")
        self.wire.put_token(*outbox.mark_published([batch])[0])

    def work(self, turns: int = 1000) -> int:
        """Take tokens and run their turns, as long as there are any; how many turns."""
        for turn in range(turns):
            run = self.wire.get_token()
            if run is None:
                return turn
            run()
        return turns

    def settle(self, seconds: float = 15) -> None:
        """Dispatch and work until every queue rests."""

        def round_() -> bool:
            self.dispatch()
            self.work()
            return all_done()

        until(round_, seconds, "everything is finished")

    def close(self) -> None:
        self.dispatcher.publisher.close()
        self.wire.close()
        forget_reader()


def forget_reader() -> None:
    """Close this thread's connections to RabbitMQ."""
    for mine in (drain._thread, token_sender.thread):
        for name in tuple(mine.__dict__):
            mine.__dict__.pop(name).close()


class Crew:
    """Several dispatchers and workers at once, in threads, as long as the block lasts."""

    def __init__(self, workers: int = 3, dispatchers: int = 1, with_duties: bool = False) -> None:
        self.with_duties = with_duties
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._work, name=f"worker {n}") for n in range(workers)]
        self.threads += [threading.Thread(target=self._dispatch, name=f"dispatcher {n}") for n in range(dispatchers)]

    def __enter__(self) -> Self:
        broker.declare_token_queue()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self.threads), "a thread hangs"
        assert not self.errors, self.errors

    def _dispatch(self) -> None:
        """Each leads: two leaders at once cost duplicates, and are the harder case."""
        dispatcher = new_dispatcher(self.with_duties)
        dispatcher.take_lead = lambda: True  # type: ignore[method-assign]
        dispatcher.keep_lead = lambda: True  # type: ignore[method-assign]
        try:
            dispatcher.run(self.stop)
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            connection.close()

    def _work(self) -> None:
        wire = Wire()
        pause = SHORTEST_PAUSE
        try:
            while not self.stop.is_set():
                run = wire.get_token()
                if run is None:
                    self.stop.wait(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                else:
                    pause = SHORTEST_PAUSE
                    run()
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            forget_reader()
            wire.close()
            connection.close()


def elsewhere(function: Callable[[], Any]) -> Any:
    """What `function` gives in a thread with a database connection of its own: what is committed, and nothing else."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(function())
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert found, "it raised, or hangs"
    return found[0]
