"""A load generator cheap enough to share a machine with what it measures: raw sockets, requests made beforehand."""

import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import quantiles

CONNECTIONS = 16
PATIENCE = 30.0  # seconds without any answer, until it is given up


@dataclass
class Load:
    """What came of a load: the seconds it took, each answer's latency in seconds, and how often each status came."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    refused: list[int] = field(default_factory=list)  # which requests were not accepted, by their place

    @property
    def accepted(self) -> int:
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300)

    def count(self, line: "_Line", status: int, now: float) -> None:
        self.latencies.append(now - line.asked)
        self.statuses[status] += 1
        if not 200 <= status < 300:
            self.refused.append(line.place)

    @property
    def rate(self) -> float:
        """Accepted a second."""
        return self.accepted / self.seconds

    def percentile(self, percent: int) -> float:
        return quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


def post(path: str, token: str, body: bytes) -> bytes:
    """An HTTP/1.1 request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def drive(port: int, requests: Sequence[bytes], connections: int = CONNECTIONS, own: bool = False) -> Load:
    """Send all of them over so many kept connections, on each the next when the last is answered.

    With `own` the connections share them out beforehand, by turns: what was sent after an answer was received after it.
    """
    load, selector = Load(), selectors.DefaultSelector()
    lines = [_Line(port) for _ in range(min(connections, len(requests)))]
    numbered = list(enumerate(requests))
    together = deque(numbered)
    todo = {line: deque(numbered[n :: len(lines)]) if own else together for n, line in enumerate(lines)}
    try:
        for line in lines:
            selector.register(line.socket, selectors.EVENT_READ, line)
        began = time.monotonic()
        for line in lines:
            line.ask(*todo[line].popleft())
        left = len(requests)
        while left:
            ready = selector.select(PATIENCE)
            if not ready:
                raise TimeoutError(f"{left} of {len(requests)} requests were not answered within {PATIENCE:g} s")
            for key, _ in ready:
                line = key.data
                status = line.answer()
                if not status:
                    continue
                left -= 1
                load.count(line, status, time.monotonic())
                if todo[line]:
                    line.ask(*todo[line].popleft())
        load.seconds = time.monotonic() - began
    finally:
        selector.close()
        for line in lines:
            line.socket.close()
    return load


def drive_openly(
    port: int, requests: Sequence[bytes], a_second: float, connections: int = 128
) -> tuple[Load, list[float]]:
    """Send one every 1 / `a_second` s, whatever became of those before; the moments at which each was due.

    One that is due while all connections are busy waits for one, and its latency counts from when it was due.
    """
    load, selector = Load(), selectors.DefaultSelector()
    free = [_Line(port) for _ in range(connections)]
    lines = list(free)
    began = time.monotonic() + 0.05
    due = [began + number / a_second for number in range(len(requests))]
    asked, left = 0, len(requests)
    try:
        for line in lines:
            selector.register(line.socket, selectors.EVENT_READ, line)
        while left:
            now = time.monotonic()
            while asked < len(requests) and due[asked] <= now and free:
                line = free.pop()
                line.ask(asked, requests[asked])
                line.asked = due[asked]
                asked += 1
            if now - began > due[-1] - began + PATIENCE:
                raise TimeoutError(f"{left} of {len(requests)} requests were not answered")
            until = max(0.0, due[asked] - now) if asked < len(requests) and free else 0.05
            for key, _ in selector.select(until):
                line = key.data
                status = line.answer()
                if status:
                    left -= 1
                    load.count(line, status, time.monotonic())
                    free.append(line)
        load.seconds = time.monotonic() - began
    finally:
        selector.close()
        for line in lines:
            line.socket.close()
    return load, due


class _Line:
    """One connection, with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.asked = 0.0
        self.place = 0
        self.received = b""

    def ask(self, place: int, request: bytes) -> None:
        self.place, self.asked = place, time.monotonic()
        self.socket.sendall(request)

    def answer(self) -> int:
        """The answer's status once all of it is here, 0 before. Raises ConnectionError when the server hangs up."""
        part = self.socket.recv(1 << 20)
        if not part:
            raise ConnectionError(f"the server closed the connection after {self.received[:200]!r}")
        self.received += part
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return 0
        fields = head.lower()
        at = fields.find(b"\r\ncontent-length:")
        if at < 0:
            raise ConnectionError(f"an answer without Content-Length: {head[:200]!r}")
        if len(body) < int(fields[at + 17 :].split(b"\r\n", 1)[0]):
            return 0
        self.received = b""
        return int(head[9:12])
