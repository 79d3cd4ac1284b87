"""How far what is settled is behind Kafka's newest messages.

librdkafka knows only what it fetches. A thread of its own asks Kafka, so that the lag of a reader that fetches nothing,
or hangs, grows.
"""

import threading
import time
from collections import Counter
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from processing.kafka import metrics
from processing.kafka.partitions import Name

LOOK_SECONDS = 2.0
ANSWER_SECONDS = 2.0
MOST_SEEN = 1_000  # ends of a partition that are kept: of a long stall every second one goes

log = structlog.get_logger()


class Lag:
    """Sets ordered_work_kafka_lag_*, from what the reader tells of itself and what Kafka answers."""

    def __init__(self, consumer: Consumer) -> None:
        self.oldest_ms = 0  # when the oldest message was sent that is read and not settled; 0: there is none
        self.settled: dict[Name, int] = {}  # all below this offset is, of each partition
        self._consumer = consumer
        self._watermarks: dict[Name, tuple[int, int]] = {}
        self._seen: dict[Name, list[tuple[float, int]]] = {}  # ends above what is settled, and when they were new
        self._silent: set[Name] = set()  # did not answer the last time
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-lag", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask Kafka nothing more: the consumer may be closed."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self._ask()
            self._tell()

    def _ask(self) -> None:
        """Where each partition of ours begins and ends. One without a leader is asked last the next time."""
        try:
            ours = [(one.topic, one.partition) for one in self._consumer.assignment()]
            for known in (self._watermarks, self._seen):
                for gone in known.keys() - set(ours):
                    del known[gone]
            for name in sorted(ours, key=self._silent.__contains__):
                if self._stop.is_set():
                    return
                self._silent.add(name)
                found: Any = self._consumer.get_watermark_offsets(TopicPartition(*name), timeout=ANSWER_SECONDS)
                self._silent.discard(name)
                if found is not None:
                    self._watermarks[name] = found
        except (KafkaException, RuntimeError) as failure:  # what was known stays, and grows older
            log.debug("kafka_does_not_tell_its_offsets", error=str(failure))

    def _tell(self) -> None:
        settled, now = self.settled, time.time()
        lags: Counter[str] = Counter({topic: 0 for topic, _ in settled})
        since = [self.oldest_ms / 1000] if self.oldest_ms else []
        for name, (low, end) in self._watermarks.items():
            if name in settled:
                done = max(settled[name], low)  # below `low` Kafka has forgotten
                lags[name[0]] += max(0, end - done)
                since += [at for at, _ in self._behind(name, done, end, now)[:1]]
        for topic, lag in lags.items():
            metrics.LAG.labels(topic).set(lag)
        metrics.DELAY.set(max(0.0, now - min(since, default=now)))

    def _behind(self, name: Name, done: int, end: int, now: float) -> list[tuple[float, int]]:
        """The ends of the partition that what is settled has not reached: what came then waits since then at least."""
        seen = [(at, other) for at, other in self._seen.get(name, []) if other > done]
        if end > max(done, seen[-1][1] if seen else 0):
            seen.append((now, end))
        self._seen[name] = seen if len(seen) <= MOST_SEEN else seen[::2]
        return seen
