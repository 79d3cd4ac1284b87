"""One drain token's work: lease the queue that it names, run a turn, pass the token on."""

import threading
import time

import structlog
from django.db import Error as DatabaseError
from django.db import connection

from processing import broker, metrics
from processing.rabbitmq import BrokerUnavailable, Reader, TokenSender
from processing.turn import Turn
from processing.watch import Watch
from queues.lease import Lease

log = structlog.get_logger()

TOKENS_SENT = metrics.TOKENS_SENT.labels("worker")

watch = Watch()
_thread = threading.local()


def drain_queue(queue_id: int) -> None:
    """Run one turn, if the queue is ready. What goes wrong is logged; the sweeper finds the queue again."""
    try:
        if watch.stopping.is_set() or not watch.wait_until_known(5):
            time.sleep(0.1)  # the others may be as far; no hurry
            send_token(queue_id)
            return
        lease = Lease.take(queue_id, watch.holder)
        if lease is None:
            metrics.TOKENS_IN_VAIN.inc()
            return
        turn = Turn(lease, reader(), watch)
        turn.run()
        if turn.wants_token:
            send_token(queue_id)
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
    _thread.tokens.send(broker.TOKEN_QUEUE, broker.token(queue_id), broker.TOKEN_PROPERTIES)
    TOKENS_SENT.inc()
