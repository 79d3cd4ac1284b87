"""Pointers are asked of many queues at once, and what is given back keeps its place."""

import socket

import pytest
from pika import spec

from processing.broker.errors import QueueGone
from processing.broker.fetcher import Fetcher
from processing.broker.loop import Loop
from processing.broker.pointers import Delivery, Pointer, queue_name
from processing.broker.rabbitmq import Publisher
from processing.broker.source import Source
from tests.processing.crew import Wire
from tests.waiting import until

NOBODYS = 10**12  # the number of a queue that no user of another test has


def taken(fetcher: Fetcher, source: Source, count: int) -> list[Delivery]:
    """The next so many messages, or as many as there are."""
    found: list[Delivery] = []

    def enough() -> bool:
        fetcher.wait([source], 0.05)
        while len(found) < count and (delivery := source.take()) is not None:
            found.append(delivery)
        return len(found) == count or source.empty

    until(enough)
    return found


def test_a_queue_that_goes_while_it_streams_leaves_a_fetcher_that_works(wire: Wire) -> None:
    fetcher, publisher = Fetcher(), Publisher()
    for n in range(1, 6):
        publisher.publish([(queue_name(NOBODYS), Pointer(n, n)), (queue_name(NOBODYS + 1), Pointer(n, n))])
    gone, other = fetcher.open_sources([(queue_name(NOBODYS), 10), (queue_name(NOBODYS + 1), 1)])
    assert [delivery.first for delivery in taken(fetcher, gone, 1)] == [1]
    wire.delete(queue_name(NOBODYS))
    with pytest.raises(QueueGone):
        taken(fetcher, gone, 100)
    (first,) = taken(fetcher, other, 1)
    assert first.first == 1
    other.done(first.tag)
    for source in (gone, other):
        source.close()
    fetcher.settle()
    assert wire.depth(queue_name(NOBODYS + 1)) == 4
    wire.delete(queue_name(NOBODYS + 1))
    fetcher.close()
    publisher.close()


@pytest.mark.parametrize("ahead", [1, 100], ids=["asked for one by one", "streaming"])
def test_what_a_fetcher_gives_back_keeps_its_place(wire: Wire, ahead: int) -> None:
    fetcher, publisher = Fetcher(), Publisher()
    for n in range(1, 21):
        publisher.publish([(queue_name(NOBODYS), Pointer(n, n))])
    (source,) = fetcher.open_sources([(queue_name(NOBODYS), ahead)])
    read = taken(fetcher, source, 8)
    source.done(read[4].tag)
    source.close()
    fetcher.settle()
    (again,) = fetcher.open_sources([(queue_name(NOBODYS), 100)])
    assert [delivery.first for delivery in taken(fetcher, again, 100)] == list(range(6, 21))
    wire.delete(queue_name(NOBODYS))
    fetcher.close()
    publisher.close()


def test_an_answer_that_comes_after_its_channel_was_given_up_is_heard_and_nothing_is_asked() -> None:
    fetcher = Fetcher()
    source = Source(fetcher, queue_name(NOBODYS), 100)
    answer = spec.Basic.GetOk(delivery_tag=1, redelivered=False, exchange="", routing_key="", message_count=100)
    source.note(None, answer, None, Pointer(1, 1).encode())
    assert source.take() == Delivery(1, 1, 1)


def test_a_source_that_closes_as_it_begins_to_stream_gives_all_back(wire: Wire) -> None:
    fetcher, publisher = Fetcher(), Publisher()
    for n in range(1, 21):
        publisher.publish([(queue_name(NOBODYS), Pointer(n, n))])
    (source,) = fetcher.open_sources([(queue_name(NOBODYS), 100)])
    fetcher.wait([source], 5)
    assert source.take() == Delivery(1, 1, 1)
    source.close()  # what asks for the others has not left yet
    fetcher.settle()
    until(lambda: wire.depth(queue_name(NOBODYS)) == 20)
    (again,) = fetcher.open_sources([(queue_name(NOBODYS), 100)])
    assert [delivery.first for delivery in taken(fetcher, again, 100)] == list(range(1, 21))
    wire.delete(queue_name(NOBODYS))
    fetcher.close()
    publisher.close()


def test_many_queues_are_asked_at_once_on_channels_that_are_used_again(wire: Wire) -> None:
    fetcher, publisher = Fetcher(), Publisher()
    names = [queue_name(NOBODYS + n) for n in range(20)]
    for _ in range(3):
        publisher.publish([(name, Pointer(1, 1)) for name in names])
        sources = fetcher.open_sources([(name, 1) for name in names])
        for source in sources:
            (delivery,) = taken(fetcher, source, 1)
            source.done(delivery.tag)
            source.close()
        fetcher.settle()
        assert [wire.depth(name) for name in names] == [0] * 20
    assert len(fetcher._free) == 20
    publisher.delete(names)
    fetcher.close()
    publisher.close()


def test_what_is_said_together_leaves_together() -> None:
    """A packet for each frame took as long as all else that is done for a request, and RabbitMQ read each by itself."""
    loop, here, there = Loop(), *tcp_pair()

    def write(_fd: int, _events: int) -> None:
        here.send(b"one")
        with pytest.raises(BlockingIOError):
            there.recv(10)
        here.send(b"two")

    with here, there:
        loop.activate_poller()
        loop.add_handler(here.fileno(), write, Loop.WRITE)
        loop.poll()
        there.settimeout(5)
        assert there.recv(10) == b"onetwo"
        loop.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection; nobody waits at the second one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = socket.create_connection(server.getsockname())
        there, _ = server.accept()
    here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    there.setblocking(False)
    return here, there
