"""Faults of RabbitMQ: restarted, wiped, alarmed, silent; queues and messages that are gone."""

from collections.abc import Iterator
from contextlib import suppress

import pika
from pika.exceptions import AMQPError

from scripts.chaos.fault import Place, fault

TOKEN_QUEUE = "drain"  # noqa: S105  (its name in RabbitMQ)


def channel(place: Place) -> pika.adapters.blocking_connection.BlockingChannel:
    parameters = pika.URLParameters(place.stack.rabbitmq.url)
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = 5
    return pika.BlockingConnection(parameters).channel()


def user_queues(place: Place) -> dict[int, str]:
    """The RabbitMQ queue of each user's queue, by the name that it has now."""
    with place.stack.database() as database:
        rows = database.execute("SELECT id, generation FROM queues_userqueue ORDER BY id").fetchall()
    return {id_: f"user.{id_}.{generation}" if generation else f"user.{id_}" for id_, generation in rows}


def token_queue(place: Place) -> str:
    """The queue that tokens go to now."""
    with place.stack.database() as database:
        [(generation,)] = database.execute("SELECT max(generation) FROM queues_tokenqueue").fetchall()
    return f"{TOKEN_QUEUE}.{generation}" if generation else TOKEN_QUEUE


@fault("rabbitmq.queue-delete")
def delete_queues(place: Place) -> Iterator[None]:
    """Somebody deletes the queues of a few users, with what is in them."""
    names = user_queues(place)
    chosen = place.dice.sample(list(names), min(4, len(names)))
    place.detail = " ".join(map(str, chosen))
    with channel(place) as ours:
        for queue in chosen:
            ours.queue_delete(names[queue])
    yield


@fault("rabbitmq.queue-purge")
def purge_queues(place: Place) -> Iterator[None]:
    """The messages of a few users are lost, their queues stay."""
    names = list(user_queues(place).values())
    for name in place.dice.sample(names, min(4, len(names))):
        with suppress(AMQPError), channel(place) as ours:
            ours.queue_purge(name)
    yield


@fault("rabbitmq.tokens-purge")
def purge_tokens(place: Place) -> Iterator[None]:
    with channel(place) as ours:
        ours.queue_purge(token_queue(place))
    yield


@fault("rabbitmq.tokens-delete")
def delete_tokens(place: Place) -> Iterator[None]:
    with channel(place) as ours:
        ours.queue_delete(token_queue(place))
    yield


@fault("rabbitmq.restart", 0, 2)
def restart_broker(place: Place) -> Iterator[None]:
    place.stack.rabbitmq.stop()
    yield
    place.stack.start_again(place.stack.rabbitmq)


@fault("rabbitmq.kill", 0, 1)
def kill_broker(place: Place) -> Iterator[None]:
    place.stack.rabbitmq.kill()
    yield
    place.stack.start_again(place.stack.rabbitmq)


@fault("rabbitmq.wipe")
def wipe_broker(place: Place) -> Iterator[None]:
    """It comes back without any queue or message."""
    place.stack.wipe_broker()
    yield
    place.stack.start_again(place.stack.rabbitmq)


@fault("rabbitmq.alarm", 1, 4)
def raise_alarm(place: Place) -> Iterator[None]:
    """No memory is left, says RabbitMQ: nobody may publish."""
    place.stack.rabbitmq.control.run("set_vm_memory_high_watermark", "0")
    yield
    place.stack.rabbitmq.control.run("set_vm_memory_high_watermark", "0.4")


@fault("rabbitmq.close")
def close_connections(place: Place) -> Iterator[None]:
    place.stack.rabbitmq.control.run("close_all_connections", "chaos")
    yield


@fault("rabbitmq.half-open", 1, 5)
def half_open_broker(place: Place) -> Iterator[None]:
    """Nothing arrives any more, in either direction; then the connections go on, or are reset."""
    place.stack.tell_proxy("hold", "rabbitmq")
    yield
    place.stack.tell_proxy("release", "rabbitmq", reset=place.dice.random() < 0.5)


@fault("rabbitmq.refuse", 0.5, 3)
def refuse_broker(place: Place) -> Iterator[None]:
    place.stack.tell_proxy("refuse", "rabbitmq")
    yield
    place.stack.tell_proxy("accept", "rabbitmq")


@fault("rabbitmq.reset")
def reset_broker(place: Place) -> Iterator[None]:
    """A part of the connections is reset."""
    place.stack.tell_proxy("reset", "rabbitmq", share=place.dice.choice([0.2, 0.5]))
    yield
