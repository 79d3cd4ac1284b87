"""What is counted of the machinery that moves requests. docs/metrics.md lists all names."""

from prometheus_client import Counter, Gauge

PUBLISHED = Counter("ordered_work_published", "Requests that the dispatcher brought to RabbitMQ.")
TOKENS_SENT = Counter("ordered_work_tokens_sent", "Drain tokens sent, by whom.", ["by"])
TOKENS_WAITING = Gauge(
    "ordered_work_tokens_waiting", "Drain tokens in RabbitMQ, as the leader's last sweep saw it.",
    multiprocess_mode="livemostrecent",
)  # fmt: skip
QUEUES_SET_ASIDE = Gauge(
    "ordered_work_queues_set_aside", "RabbitMQ queues that the leader could not publish to and tries again later.",
    ["shard"], multiprocess_mode="livesum",
)  # fmt: skip
QUEUES_RENAMED = Counter(
    "ordered_work_queues_renamed", "Queues that got another name in RabbitMQ. By: who; tokens: it was theirs.", ["by"]
)
LEADING = Gauge(
    "ordered_work_dispatcher_leads", "1 while this process leads the shard.", ["shard"],
    multiprocess_mode="livemax",
)  # fmt: skip
LEASES_ENDED = Counter(
    "ordered_work_leases_ended",
    "Leases taken away from their worker. expired: it was silent; dead: its lock was free.",
    ["why"],
)
SERVERS_AWAY = Counter("ordered_work_dispatcher_backoffs", "Times the dispatcher waited for a server.", ["server"])

TURNS = Counter("ordered_work_turns", "Turns of a queue that workers began.")
TOKENS_IN_VAIN = Counter("ordered_work_tokens_in_vain", "Tokens whose queue was not ready (harmless).")
FENCED_OUT = Counter("ordered_work_fenced_out", "Turns that had lost their lease and so recorded nothing.")
REPUBLICATIONS = Counter("ordered_work_republications", "Times RabbitMQ had lost a queue's messages.")
HANDLERS_GIVEN_UP = Counter(
    "ordered_work_handlers_given_up", "Handlers that no time limit could interrupt; their process ended.", ["kind"]
)
PUT_OFF = Counter(
    "ordered_work_put_off",
    "Times a queue was put off because its kind held its share of the threads, or of the async handlers.",
    ["kind"],
)
BUSY_THREADS = Gauge("ordered_work_busy_threads", "Worker threads in a turn.", multiprocess_mode="livesum")
ASYNC_HANDLERS = Gauge(
    "ordered_work_async_handlers", "Handlers that run on event loops and hold no thread.", multiprocess_mode="livesum"
)
THREADS = Gauge("ordered_work_threads", "Worker threads there are.", multiprocess_mode="livesum")

for _by in ("dispatcher", "worker"):
    TOKENS_SENT.labels(_by)
for _why in ("expired", "dead"):
    LEASES_ENDED.labels(_why)
for _server in ("PostgreSQL", "RabbitMQ"):
    SERVERS_AWAY.labels(_server)
