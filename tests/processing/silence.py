"""RabbitMQ as a cluster of version 4 is whose node died: it never answers about that node's queues."""

import asyncio
import struct
import threading
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from project.rabbitmq_addresses import amqp_urls

FRAME = struct.Struct(">BHI")
GREETING = 8  # bytes of the protocol header, before the first frame
QUEUE_DECLARE = struct.pack(">HH", 50, 10)


class SilentQueues:
    """Carries connections to RabbitMQ. Once a channel names a queue in `silent`, nothing it says gets through."""

    def __init__(self, url: str) -> None:
        self.behind = urlsplit(amqp_urls(url)[0])
        self.silent: set[str] = set()
        self.deaf = False  # then nothing gets through at all
        self.declaring = 0.0  # seconds that each declaration of a queue takes
        self.carried: set[asyncio.StreamWriter] = set()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.listening = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        login = self.behind.netloc.rpartition("@")[0]
        return urlunsplit(self.behind._replace(netloc=f"{login}@127.0.0.1:{self.port}"))

    def __enter__(self) -> Self:
        self.thread.start()
        assert self.listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join(10)
        assert not self.thread.is_alive()

    def hang_up(self) -> None:
        """End every connection there is."""
        for writer in tuple(self.carried):
            self.loop.call_soon_threadsafe(writer.close)

    async def _serve(self) -> None:
        """Until it is over; `asyncio.run` then ends what is still carried, before the loop is closed."""
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.listening.set()
        await self.over.wait()
        server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection(self.behind.hostname, self.behind.port or 5672)
        back = asyncio.ensure_future(self._answers(answers, writer))
        self.carried.add(writer)
        try:
            await self._questions(reader, questions)
        except (asyncio.IncompleteReadError, ConnectionError):
            questions.close()
            await back
        finally:
            self.carried.discard(writer)
            questions.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if not self.deaf:
                    writer.write(data)
        except ConnectionError:
            return
        finally:
            writer.close()

    async def _questions(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(GREETING))
        mute: set[int] = set()
        while True:
            head = await reader.readexactly(FRAME.size)
            _, channel, size = FRAME.unpack(head)
            body = await reader.readexactly(size + 1)
            if self.declaring and body.startswith(QUEUE_DECLARE):
                await asyncio.sleep(self.declaring)
            if self._names_silent_one(body):
                mute.add(channel)
            if channel not in mute and not self.deaf:
                writer.write(head + body)

    def _names_silent_one(self, body: bytes) -> bool:
        return any(bytes([len(name)]) + name.encode() in body for name in self.silent)


def refuse(channel: Any, name: str) -> None:
    """Make the queue `name` one that RabbitMQ refuses to declare as ours are: 406."""
    channel.queue_delete(name)
    channel.queue_declare(name, durable=False)
