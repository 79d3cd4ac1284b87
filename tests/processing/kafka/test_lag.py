"""How far the reader is behind: also where it fetches nothing, or does nothing at all."""

import pytest
from confluent_kafka import KafkaException, TopicPartition
from django.conf import settings

from accounts.models import User
from processing.kafka import ingester, lag
from processing.kafka.ingester import Ingester
from processing.kafka.lag import Lag
from queues.models import UserQueue
from tests.metrics import counted
from tests.processing.crew import requests_of
from tests.processing.kafka.brokers import Broker, event
from tests.processing.kafka.conftest import Ingest
from tests.waiting import until


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(ingester, "TELL_SECONDS", 0.2)


def test_lag_is_told(mock: Broker, ingest: Ingest, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = mock.topic()
    monkeypatch.setattr(settings.ENV, "waiting_limit", 2)
    for number in range(5):
        mock.send(topic, event(number), key=ada.username)
    mock.flush()
    ingest(mock, topic, lambda: counted("kafka_lag_messages", topic=topic) == 3)
    assert counted("kafka_partitions") == 4
    ingest(mock, topic, lambda: counted("kafka_lag_seconds") > 3)
    monkeypatch.setattr(settings.ENV, "waiting_limit", 100)
    ingest(mock, topic, lambda: counted("kafka_lag_messages", topic=topic) == 0 and counted("kafka_lag_seconds") == 0)
    assert UserQueue.objects.get(user=ada).last_seq == 5


@pytest.fixture
def read(mock: Broker, ingest: Ingest, ada: User) -> tuple[str, Ingester]:
    """A topic of which all is read and settled, and its reader."""
    topic = mock.topic()
    mock.send(topic, event(1), key=ada.username)
    mock.flush()
    reader = ingest(mock, topic, lambda: requests_of(ada))
    ingest(mock, topic, lambda: reader._lag._watermarks.get((topic, 0)) and reader._lag.settled.get((topic, 0)) == 1)
    return topic, reader


def test_the_lag_of_a_reader_that_fetches_nothing_grows(
    mock: Broker, ingest: Ingest, ada: User, read: tuple[str, Ingester]
) -> None:
    topic, reader = read
    reader._consumer.pause([TopicPartition(topic, 0)])
    for number in range(3):
        mock.send(topic, event(number), key=ada.username)
    mock.flush()
    ingest(mock, topic, lambda: counted("kafka_lag_messages", topic=topic) == 3)
    ingest(mock, topic, lambda: counted("kafka_lag_seconds") > 2)
    assert len(requests_of(ada)) == 1
    reader._consumer.resume([TopicPartition(topic, 0)])
    ingest(mock, topic, lambda: counted("kafka_lag_messages", topic=topic) == 0 and counted("kafka_lag_seconds") == 0)
    assert len(requests_of(ada)) == 4


def test_the_lag_of_a_reader_that_hangs_grows(read: tuple[str, Ingester], mock: Broker, ada: User) -> None:
    topic, _ = read
    mock.send(topic, event(2), key=ada.username)
    mock.flush()
    until(lambda: counted("kafka_lag_messages", topic=topic) == 1)
    until(lambda: counted("kafka_lag_seconds") > 1)


class Kafka:
    """Partitions of ours, and where each begins and ends."""

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = partitions
        self.watermarks: tuple[int, int] | None = (0, 0)
        self.without_leader: set[int] = set()

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("topic", number) for number in range(self.partitions)]

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        if self.watermarks is None or partition.partition in self.without_leader:
            raise KafkaException
        return self.watermarks


def test_a_partition_without_a_leader_hides_no_other_ones_lag() -> None:
    kafka = Kafka(partitions=3)
    told = Lag(kafka)  # type: ignore[arg-type]
    told.settled = {("topic", number): 0 for number in range(3)}
    kafka.without_leader, kafka.watermarks = {0}, (0, 4)
    for _ in range(2):
        told._ask()
    told._tell()
    assert counted("kafka_lag_messages", topic="topic") == 8


def test_it_begins_with_the_oldest_that_is_not_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "MOST_SEEN", 5)
    clock = [1000.0]
    monkeypatch.setattr(lag.time, "time", lambda: clock[0])
    kafka = Kafka()
    told = Lag(kafka)  # type: ignore[arg-type]

    def at(seconds: float, settled: int, watermarks: tuple[int, int] | None) -> tuple[float, float]:
        clock[0], told.settled, kafka.watermarks = 1000.0 + seconds, {("topic", 0): settled}, watermarks
        told._ask()
        told._tell()
        return counted("kafka_lag_messages", topic="topic"), counted("kafka_lag_seconds")

    assert at(0, 5, (0, 5)) == (0, 0)
    assert at(10, 5, (0, 8)) == (3, 0)
    assert at(20, 5, (0, 9)) == (4, 10)
    assert at(30, 8, (0, 9)) == (1, 10), "the last of them came 10 s ago"
    assert at(40, 8, None) == (1, 20), "Kafka does not answer"
    assert at(50, 8, (9, 9)) == (0, 0), "Kafka has forgotten it"
    for number in range(100):
        told_now = at(60 + number, 9, (9, 10 + number))
    assert told_now == (100, 99), "of a long stall not every end is kept, but the first is"
    assert len(told._seen["topic", 0]) <= 5
