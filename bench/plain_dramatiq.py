"""The other side of the drain benchmarks: what Dramatiq alone does with the same messages.

One shared queue on RabbitMQ, its default middleware, its default persistent messages; no order, no record. Each process
counts in a few bytes of shared memory what is done, and when: no round trip is added.
"""

import mmap
import os
import struct
import threading
import time
from pathlib import Path

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

COUNT = struct.Struct("=qdd")  # how many are done, when the first began and the last ended, on the monotonic clock
QUEUE = "plain"

broker = RabbitmqBroker(url=os.environ["RABBITMQ_URL"])
dramatiq.set_broker(broker)

_lock = threading.Lock()
_page: mmap.mmap | None = None


@dramatiq.actor(queue_name=QUEUE)
def echo(payload: dict[str, int]) -> dict[str, int]:
    """The same trivial work as demo.echo, counted."""
    began = time.monotonic()
    with _lock:
        page = _page or _count_page()
        done, first, _ = COUNT.unpack_from(page)
        COUNT.pack_into(page, 0, done + 1, first or began, time.monotonic())
    return payload


def _count_page() -> mmap.mmap:
    global _page
    path = Path(os.environ["PLAIN_COUNTS"]) / str(os.getpid())
    path.write_bytes(bytes(COUNT.size))
    with path.open("r+b") as file:
        _page = mmap.mmap(file.fileno(), COUNT.size)
    return _page


def counted(folder: Path) -> tuple[int, float, float]:
    """How many all processes have done, when the first began and the last ended."""
    pages = [COUNT.unpack(path.read_bytes()) for path in folder.iterdir() if path.stat().st_size == COUNT.size]
    pages = [page for page in pages if page[0]]
    if not pages:
        return 0, 0.0, 0.0
    return sum(page[0] for page in pages), min(page[1] for page in pages), max(page[2] for page in pages)


def start_over(folder: Path) -> None:
    """Count from nothing again; nobody may be at work."""
    for path in folder.iterdir():
        with path.open("r+b") as file:
            file.write(bytes(COUNT.size))
