"""One drain token's work: lease the queue that it names, run a turn, pass the token on."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connection

from processing import metrics
from processing.broker import tokens
from processing.broker.rabbitmq import BrokerUnavailable, TokenSender
from processing.broker.reader import Reader
from processing.worker.isolation import Isolation
from processing.worker.shares import Shares
from processing.worker.turn import Line, Turn
from processing.worker.watchdog import Watch
from queues.exceptions import FencedOut
from queues.lifecycle.lease import Lease
from queues.states import QueueState

log = structlog.get_logger()

TOKENS_SENT = metrics.TOKENS_SENT.labels("worker")

watch = Watch()
shares = Shares()
isolation: Isolation | None = None  # set where one process runs many users' requests
_thread = threading.local()
RETRY_SECONDS = 0.1  # after PostgreSQL failed, before it is asked again
KNOWN_SECONDS = 0.3  # a process that PostgreSQL does not know of passes its tokens on: others may do better
START_SECONDS = 5.0  # one that was started for one request waits longer


def drain_queue(queue_id: int, left: int | None = None) -> None:
    """Run one turn, if the queue is ready, or one request, if it is `left` to this process by the lease of that fence.

    What goes wrong is logged; the sweeper finds the queue again.
    """
    if lease := take(queue_id, left):
        run(lease, most=None if left is None else 1)
        settle()


def take(queue_id: int, left: int | None = None) -> Lease | None:
    """The queue's lease. None: it is not ready, this process ends, or a server is away."""
    with logged(queue_id):
        for again in (True, False):
            if watch.stopping.is_set() or not watch.wait_until_known(KNOWN_SECONDS if left is None else START_SECONDS):
                break
            try:
                lease = Lease.take(queue_id, watch.holder, left)
            except (OperationalError, InterfaceError) as error:
                # Had it been taken all the same, the watch gives it back.
                log.warning("a turn could not begin", queue=queue_id, error=str(error).strip(), again=again)
                connection.close()
                time.sleep(RETRY_SECONDS if again else 0)
                continue
            if lease is None:
                metrics.TOKENS_IN_VAIN.inc()
                return None
            return lease if watch.know(lease) else None
        time.sleep(RETRY_SECONDS)  # the others may be as far; no hurry
        send_token(queue_id)
    return None


def run(
    lease: Lease, most: int | None = None, slow: Callable[[], None] = lambda: None, line: Line | None = None
) -> None:
    """Run a turn of at most so many requests. `slow` is called when a handler takes long; `line` knows who is next."""
    with logged(lease.queue_id), forgotten(lease):
        if isolation is not None and lease.last_chance:
            settle()
            isolation.run(lease)
            return
        turn = Turn(lease, reader(), watch, most or settings.ENV.turn_requests, slow, line, shares)
        turn.run()
        if turn.wants_token:
            send_token(lease.queue_id)


def let_go(lease: Lease) -> None:
    """Let others have a queue of which nothing was run. Raises django.db.Error."""
    with forgotten(lease), suppress(FencedOut):
        lease.record(0, [], QueueState.READY)


def settle() -> None:
    """Tell RabbitMQ what this thread has done, so that nothing of it comes back."""
    try:
        reader().settle()
    except BrokerUnavailable:
        reader().close()  # it all comes back, and meets the sequence check


@contextmanager
def forgotten(lease: Lease) -> Iterator[None]:
    """This process has the lease until the end of the block, and not for longer, however it ends."""
    try:
        yield
    finally:
        watch.forget(lease)


@contextmanager
def logged(queue_id: int | None = None) -> Iterator[None]:
    """Servers that are away are logged; the sweeper finds the queue again."""
    try:
        yield
    except DatabaseError as error:
        log.warning("a turn lost PostgreSQL", queue=queue_id, error=str(error).strip())
        connection.close()
    except BrokerUnavailable as error:
        log.warning("a token could not be passed on", queue=queue_id, error=str(error))


def reader() -> Reader:
    """This thread's connection to RabbitMQ."""
    if not hasattr(_thread, "reader"):
        _thread.reader = Reader()
    mine: Reader = _thread.reader
    return mine


def send_token(queue_id: int) -> None:
    """Have somebody drain the queue, after those who wait already. Raises BrokerUnavailable."""
    if not hasattr(_thread, "tokens"):
        _thread.tokens = TokenSender()
    _thread.tokens.send(tokens.token_queue(), tokens.token(queue_id), tokens.TOKEN_PROPERTIES)
    TOKENS_SENT.inc()
