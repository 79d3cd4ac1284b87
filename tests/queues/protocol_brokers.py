"""RabbitMQ as the machine of the protocol sees it: a memory that is quick, and the real one."""

from collections import deque

from processing.broker.fetcher import Fetcher
from processing.broker.pointers import Pointer, queue_name
from processing.broker.rabbitmq import CLASSIC, Publisher
from processing.broker.source import Source


class Memory:
    """A broker in memory: a list that workers take from, and what they took and have not acked."""

    def __init__(self, queue_id: int) -> None:
        self.messages: deque[Pointer] = deque()
        self.taken: dict[int, list[Pointer]] = {0: [], 1: []}

    def publish(self, pointer: Pointer) -> None:
        self.messages.append(pointer)

    def get(self, worker: int) -> Pointer | None:
        if not self.messages:
            return None
        self.taken[worker].append(self.messages.popleft())
        return self.taken[worker][-1]

    def ack(self, worker: int) -> None:
        self.taken[worker].clear()

    def disconnect(self, worker: int) -> None:
        self.messages.extendleft(reversed(self.taken[worker]))
        self.taken[worker].clear()

    def lose(self) -> None:
        self.messages.clear()
        self.taken = {0: [], 1: []}

    def close(self) -> None: ...


class Rabbit:
    """The real one."""

    def __init__(self, queue_id: int) -> None:
        self.queue_id = queue_id
        self.publisher = Publisher()
        self.workers = Fetcher(), Fetcher()
        self.sources: list[Source | None] = [None, None]
        self.tags = [0, 0]
        self.publisher.hold(queue_name(queue_id), CLASSIC)

    def publish(self, pointer: Pointer) -> None:
        self.publisher.publish([(queue_name(self.queue_id), pointer)])

    def get(self, worker: int) -> Pointer | None:
        source = self.sources[worker]
        if source is None or source.error:
            (source,) = self.workers[worker].open_sources([(queue_name(self.queue_id), 1)])
            self.sources[worker] = source
        source.ask_again()
        while (delivery := source.take()) is None and not source.empty:
            self.workers[worker].wait([source], 1)
        if delivery is None:
            return None
        self.tags[worker] = delivery.tag
        return Pointer(delivery.first, delivery.last)

    def ack(self, worker: int) -> None:
        source = self.sources[worker]
        if source is not None:
            source.done(self.tags[worker])
            source.settle()
            self.workers[worker].settle()

    def disconnect(self, worker: int) -> None:
        self.workers[worker].close()
        self.sources[worker] = None

    def lose(self) -> None:
        for worker in (0, 1):
            self.disconnect(worker)
        self.publisher.delete([queue_name(self.queue_id)])
        self.publisher.hold(queue_name(self.queue_id), CLASSIC)

    def close(self) -> None:
        for channel in (self.publisher, *self.workers):
            channel.close()
