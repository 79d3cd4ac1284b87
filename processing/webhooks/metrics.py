"""What is counted of webhooks, never by user. docs/metrics.md lists all names."""

from prometheus_client import Counter, Gauge, Histogram

ATTEMPTS = Counter("ordered_work_webhook_attempts", "Attempts to deliver a message, by outcome.", ["outcome"])
SECONDS = Histogram(
    "ordered_work_webhook_seconds",
    "What one attempt took its receiver.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
SWITCHED_OFF = Counter("ordered_work_webhooks_switched_off", "Webhooks that nothing could be delivered to.")
SENDING = Gauge("ordered_work_webhooks_sending", "Receivers that are being sent to.", multiprocess_mode="livesum")
LAG = Gauge(
    "ordered_work_webhook_lag_seconds",
    "How long the longest due webhook waits for a thread; those that failed or took long do not count.",
    multiprocess_mode="livemax",
)

DELIVERED, REFUSED, SILENT, DROPPED = "delivered", "refused", "unanswered", "dropped"
for _outcome in (DELIVERED, REFUSED, SILENT, DROPPED):
    ATTEMPTS.labels(_outcome)
