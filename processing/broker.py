"""Dramatiq's set-up: one broker, one queue of drain tokens, none of the middleware that retries or delays.

A token says "these users' queues are ready"; it carries nothing else, may be lost (the sweeper sends another) and may
come twice (the second finds the queue not ready). So Dramatiq's retries, delays and results have no part here.
"""

from typing import Any

import dramatiq
import dramatiq.errors
from django.conf import settings
from dramatiq import Message, Worker
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from processing.rabbitmq import BrokerUnavailable

TOKEN_QUEUE = f"{settings.ENV.queue_prefix}drain"
ACTOR = "drain"
TOKEN_PROPERTIES: dict[str, Any] = {"delivery_mode": 2 if settings.ENV.persistent_messages else 1}

broker = RabbitmqBroker(url=settings.ENV.rabbitmq_url, middleware=[])
dramatiq.set_broker(broker)


def token(*queue_ids: int) -> bytes:
    """The message that asks a worker to drain these queues."""
    message: Message[None] = Message(queue_name=TOKEN_QUEUE, actor_name=ACTOR, args=queue_ids, kwargs={}, options={})
    return message.encode()


def consumers(threads: int) -> Worker:
    """Dramatiq's worker: so many threads that take tokens, once it is started."""
    return Worker(broker, worker_threads=threads, worker_timeout=200)


def declare_token_queue() -> None:
    """Make sure that tokens have somewhere to go, also where no worker has been yet. Raises BrokerUnavailable."""
    broker.queues_pending.add(TOKEN_QUEUE)
    try:
        broker.declare_queue(TOKEN_QUEUE, ensure=True)
    except dramatiq.errors.BrokerConnectionError as error:
        raise BrokerUnavailable(str(error)) from error
    finally:
        del broker.connection
