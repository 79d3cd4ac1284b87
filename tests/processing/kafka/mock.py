"""librdkafka's mock cluster in a process of its own: prints its brokers' addresses, and serves until its stdin ends."""

import sys

from confluent_kafka import Producer

cluster = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 3, "log_level": 3})
print(",".join(f"{one.host}:{one.port}" for one in cluster.list_topics(timeout=10).brokers.values()), flush=True)
sys.stdin.read()
