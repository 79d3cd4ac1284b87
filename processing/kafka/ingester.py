"""Reads Kafka and has requests accepted, in groups: nothing is lost, and no event makes two requests.

    read what came, find its users, accept a group in one commit, say how far each partition is

is the whole of it, in one thread. librdkafka commits an offset only after all below it is settled: accepted, known
already, or kept among the rejected. So whatever is killed, what was settled without its offset is delivered again, and
its event is known. Many processes of one group may run; Kafka gives each its partitions.
"""

import logging
import threading
import time
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import orjson
import structlog
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, TopicPartition
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from processing.kafka import metrics
from processing.kafka.group import Entry, Rejected, Settled, accept_group, gone, resolve
from processing.kafka.lag import Lag
from processing.kafka.partitions import Name, Partition
from processing.kafka.pending import PendingEvents
from processing.kafka.reading import Event, Message, Rejection, read
from processing.kafka.rejected import keep
from project.environment import kafka_properties

GROUP = 1_000  # messages that are read, and events that are accepted, together
READ_SECONDS = 0.05  # how long a group waits for more
AWAY_SECONDS = 1.0  # until PostgreSQL is tried again
TELL_SECONDS = 2.0

log = structlog.get_logger()


def properties() -> dict[str, Any]:
    """What the consumer is set up with."""
    return {
        "client.id": "ordered-work",
        "partition.assignment.strategy": "cooperative-sticky",
        "topic.metadata.refresh.interval.ms": 10_000,  # a topic that is made later is found
        "queued.max.messages.kbytes": 32 * 1024,
        "auto.commit.interval.ms": 1_000,
        "statistics.interval.ms": round(TELL_SECONDS * 1000),
        **kafka_properties(settings.ENV),
        "group.id": settings.ENV.kafka_group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": True,  # of what is stored, and that is what is settled
        "enable.auto.offset.store": False,
    }


class Ingester:
    def __init__(self, topics: list[str]) -> None:
        self.topics = topics
        self.looked = time.monotonic()
        self.reachable = False  # whether a broker is
        self.partitions: dict[Name, Partition] = {}
        self.pending = PendingEvents(GROUP)
        self._events: list[Event] = []  # read; their users are not known yet
        self._rejected: list[Rejected] = []  # to be kept
        self._paused: set[Name] = set()
        self._away_until = 0.0
        self._most = GROUP
        self._oldest_ms = 0  # when the oldest message was sent that was settled since the last figures
        watched = {**properties(), "stats_cb": self._tell, "error_cb": _log_error}
        self._consumer = Consumer(watched, logger=logging.getLogger("librdkafka"))
        self._lag = Lag(self._consumer)

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; then what is settled is committed, and the partitions are others'."""
        self.subscribe()
        try:
            while not stop.is_set():
                self.step()
        finally:
            self.close()

    def subscribe(self) -> None:
        self._consumer.subscribe(self.topics, on_assign=_log_assigned, on_revoke=self._revoked, on_lost=self._revoked)
        self._lag.start()
        log.info("ingesting", topics=self.topics, group=settings.ENV.kafka_group)

    def close(self) -> None:
        self._lag.stop()
        self._consumer.close()
        log.info("stopped")

    def step(self) -> None:
        """One round; it lasts READ_SECONDS, but for the servers' answers."""
        self._read()
        if time.monotonic() >= self._away_until:
            try:
                self._settle()
            except (DatabaseError, InterfaceError) as error:
                log.warning("kafka_waits_for_postgresql", error=str(error).strip().partition("\n")[0])
                connection.close()
                self._most = max(1, self._most // 2)  # so that what takes too long together goes in parts
                self._away_until = time.monotonic() + AWAY_SECONDS
        self._store()
        self._pause()
        self.looked = time.monotonic()

    def _read(self) -> None:
        for came in self._consumer.consume(GROUP, READ_SECONDS):
            if (error := came.error()) is not None:
                log.warning("kafka_error", topic=came.topic(), partition=came.partition(), error=error.str())
                continue
            message = _message(came)
            self.partitions.setdefault((message.topic, message.partition), Partition()).begin(message)
            try:
                self._events.append(read(message))
            except Rejection as why:
                self._rejected.append((message, why))

    def _settle(self) -> None:
        """Deal with the next group. Raises what PostgreSQL raises when it is away; then all is as before."""
        entries, rejected = resolve(self._events)
        self._events = []
        self.pending.add(entries)
        self._rejected += rejected
        now = time.monotonic()
        group = self.pending.take(now, self._most)
        if not group and not self._rejected:
            return
        try:
            settled = self._accept(group)
        except (OperationalError, InterfaceError):
            raise
        except DatabaseError as refused:
            if len(group) > 1:
                self._most = len(group) // 2
                return
            if not group:
                raise
            log.exception("PostgreSQL refuses a message")
            self._rejected += [(one.message, _refused(one, refused)) for one in group]  # settled once it is kept
            self.pending.settled(group, [], now)
            return
        self._most = min(GROUP, 2 * self._most)
        self.pending.settled(group, settled.left, now)
        left = {one.id for one in settled.left}
        self._done([one.message for one in group if one.id not in left])
        if settled.left:  # last: PostgreSQL may be away by now
            self._give_up({one.user_id for one in settled.left})

    def _accept(self, group: list[Entry]) -> Settled:
        """Accept it and keep what was rejected, in one commit."""
        rejected = self._rejected[: self._most]
        with transaction.atomic():
            settled = accept_group(group) if group else Settled({}, 0, 0, [], [])
            keep([*rejected, *settled.rejected])
        self._done([message for message, _ in rejected])
        del self._rejected[: len(rejected)]
        metrics.MESSAGES.labels(metrics.ACCEPTED).inc(settled.accepted)
        metrics.MESSAGES.labels(metrics.DUPLICATE).inc(settled.duplicates)
        return settled

    def _give_up(self, users: set[UUID]) -> None:
        """Reject what waits of those users who are gone."""
        away = gone(users)
        for entry in self.pending.drop(lambda entry: entry.user_id in away):
            why = Rejection("unknown_user", f"User {entry.user_id} is not active any more.", entry.event_id)
            self._rejected.append((entry.message, why))

    def _done(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.partitions[message.topic, message.partition].settle(message)
            self._oldest_ms = min(self._oldest_ms or message.sent_ms, message.sent_ms)

    def _store(self) -> None:
        """Have librdkafka commit how far each partition is."""
        moved = [(name, one.done) for name, one in self.partitions.items() if one.done != one.stored]
        if not moved:
            return
        try:
            self._consumer.store_offsets(offsets=[TopicPartition(*name, done) for name, done in moved])
        except KafkaException as failure:  # partitions were taken away: whoever has them now meets known events
            log.warning("kafka_offset_not_stored", error=str(failure))
            self._forget(self.partitions.keys() - {(one.topic, one.partition) for one in self._consumer.assignment()})
            return
        for name, done in moved:
            self.partitions[name].stored = done

    def _pause(self) -> None:
        """Read no more of partitions of which too much waits. Those of whose users nothing waits go on."""
        heavy = {name for name, one in self.partitions.items() if one.heavy}
        for names, change in (
            (heavy - self._paused, self._consumer.pause),
            (self._paused - heavy, self._consumer.resume),
        ):
            if names:
                change([TopicPartition(*name) for name in names])
        self._paused = heavy

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Somebody else's from now on: forget what is not settled of them, they read it again."""
        names = {(one.topic, one.partition) for one in partitions}
        if paused := names & self._paused:
            consumer.resume([TopicPartition(*name) for name in paused])
        self._forget(names)
        log.info("kafka_revoked", partitions=sorted(names))

    def _forget(self, names: set[Name]) -> None:
        self._paused -= names
        self._events = [one for one in self._events if _name(one.message) not in names]
        self._rejected = [one for one in self._rejected if _name(one[0]) not in names]
        self.pending.drop(lambda entry: _name(entry.message) in names)
        for name in names:
            self.partitions.pop(name, None)

    def _tell(self, text: str) -> None:
        """Set the figures, from what librdkafka and the partitions know."""
        told = orjson.loads(text)
        self.reachable = any(one["state"] == "UP" for one in told["brokers"].values())
        waiting = [one.sent_ms for part in self.partitions.values() for one in part.open.values() if one.sent_ms]
        self._lag.oldest_ms = min([*waiting, *([self._oldest_ms] if self._oldest_ms else [])], default=0)
        self._oldest_ms = 0
        for topic in told["topics"]:
            metrics.LAG.labels(topic)  # 0 from the start, also where the topic is not there yet
        self._lag.settled = {
            (topic, int(number)): self._settled_to((topic, int(number)), one)
            for topic, found in told["topics"].items()
            for number, one in found["partitions"].items()
        }
        metrics.HELD.set(len(self.pending))
        metrics.PAUSED.set(len(self._paused))
        metrics.PARTITIONS.set(told["cgrp"]["assignment_size"])

    def _settled_to(self, name: Name, told: dict[str, Any]) -> int:
        """The offset below which nothing waits. Where all that was fetched is settled, that is what is fetched next: at
        a partition's end there may be what is no message, a transaction's mark.
        """
        part = self.partitions.get(name)
        if part is not None and (part.open or told["fetchq_cnt"]):
            return part.done
        return int(max(told["committed_offset"], -1 if told["fetchq_cnt"] else told["next_offset"]))


def _name(message: Message) -> Name:
    return message.topic, message.partition


def _message(came: Any) -> Message:
    try:
        headers = came.headers() or []
    except UnicodeDecodeError:  # a name that is no text
        headers = []
    said, sent_ms = came.timestamp()
    return Message(
        came.topic(), came.partition(), came.offset(), came.key(), came.value(), headers,
        sent_ms if said != TIMESTAMP_NOT_AVAILABLE else 0,
    )  # fmt: skip


def _refused(entry: Entry, refused: DatabaseError) -> Rejection:
    return Rejection("refused", f"PostgreSQL: {str(refused).strip().partition(chr(10))[0]}", entry.event_id)


def _log_error(error: KafkaError) -> None:
    log.warning("kafka_error", error=error.str(), fatal=error.fatal())


def _log_assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
    log.info("kafka_assigned", partitions=sorted((one.topic, one.partition) for one in partitions))
