"""What is counted of Kafka's messages, never by user. docs/metrics.md lists all names."""

from prometheus_client import Counter, Gauge

MESSAGES = Counter("ordered_work_kafka_messages", "Messages by what became of them.", ["outcome"])
REJECTED = Counter("ordered_work_kafka_rejected", "Messages that no request could be made of.", ["reason"])
LAG = Gauge("ordered_work_kafka_lag_messages", "Messages of the topic behind the newest, not settled yet.", ["topic"])
DELAY = Gauge("ordered_work_kafka_lag_seconds", "How long ago the oldest message was sent that is read, not settled.")
HELD = Gauge("ordered_work_kafka_held_messages", "Messages that wait for room in their user's queue, or its lock.")
PAUSED = Gauge("ordered_work_kafka_paused_partitions", "Partitions that are not read: too much of them is held.")
PARTITIONS = Gauge("ordered_work_kafka_partitions", "Partitions that this process reads.")

ACCEPTED, DUPLICATE, REJECTION = "accepted", "duplicate", "rejected"
REASONS = (
    "empty", "too_large", "json", "invalid", "user", "unknown_user", "forbidden", "event_id_reused", "refused",
)  # fmt: skip

for _outcome in (ACCEPTED, DUPLICATE, REJECTION):
    MESSAGES.labels(_outcome)
for _reason in REASONS:
    REJECTED.labels(_reason)
