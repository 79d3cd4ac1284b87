"""What can be measured, by name; and where its result is kept."""

from collections.abc import Sequence
from pathlib import Path

from scripts.place import LOCAL

RESULTS = LOCAL / "bench" / "results"

# In one run beside the peers (bench/loads).
COMPARED = {
    "deep": "100 users with 100 jobs each",
    "middle": "1,000 users with 20 jobs each",
    "wide": "5,000 users with one job each: the fixed cost of a turn is all there is",
    "slow": "200 users with 10 jobs of 20 ms each",
    "failing": "one job in a hundred fails in its first attempt",
    "round-trip": "one job at a time",
    "noisy": "a quiet user beside one who floods",
    "kill": "kill -9 of a worker in the middle",
}

# A peer's name on the command line -> the module that has its `peer()`.
PEERS = {
    "ours": "ours",
    "dramatiq": "plain_dramatiq",
    "dramatiq-returning": "plain_dramatiq",
    "celery": "celery_results",
    "procrastinate": "procrastinate_lock",
    "graphile": "graphile_worker",
    "bullmq": "bullmq",
    "bullmq-two": "bullmq",
    "bullmq-fsync": "bullmq",
    "pg-boss": "pg_boss",
    "pgmq": "pgmq_grouped",
    "groupmq": "groupmq",
    "restate": "restate",
}

# Each alone in its place: the module below bench/ whose run(here, report, name, quick) measures.
ALONE = {
    "end-to-end": ("loads.end_to_end", "over HTTP until it is finished: requests a second, p50, p99, CPU by process"),
    "accept": ("loads.accept", "submissions over HTTP, beside FastAPI + Celery and Express + BullMQ"),
    "kafka": ("alone.kafka", "messages of Kafka until they are requests, beside a consumer that only reads"),
    "scale": ("loads.scale", "the same with a million users and ten million finished requests, and 20,000 queues"),
    "memory": ("loads.memory", "what an idle queue, a waiting request and a worker hold"),
    "reads": ("alone.reads", "what is asked most often over HTTP, beside submissions"),
    "revocation": ("alone.revocation", "what it costs to ask with each submission whether its session lives"),
    "idle": ("alone.idle", "what a million users cost who do nothing"),
    "latency": ("alone.latency", "from accepted to finished for a quiet user, alone and beside users who flood"),
    "logins": ("alone.logins", "submissions alone and beside 24 clients who log in at once"),
    "tracing": ("alone.tracing", "what spans cost: off, the hooks; on, submissions and attempts beside none"),
    "pages": ("alone.pages", "the admin's pages and the API's lists, with a million users and ten million requests"),
    "recover": ("alone.recover", "kill -9, a deleted queue, purged tokens: the time until the work went on"),
    "restore": ("alone.restore", "PostgreSQL's disk is lost: what is gone, and the time until all goes on"),
}

# How full tables are: users and finished requests, without and with --quick.
FILLED = {False: (1_000_000, 10_000_000), True: (2_000, 20_000)}

FIRST = "end-to-end"
NAMES = {FIRST: ALONE[FIRST][1], **COMPARED, **{name: about for name, (_, about) in ALONE.items()}}


def groups(names: Sequence[str]) -> list[list[str]]:
    """What runs in one process and one place: the compared ones together, every other one alone."""
    together = [name for name in NAMES if name in names and name in COMPARED]
    found: list[list[str]] = []
    for name in NAMES:
        if name in names and name not in COMPARED:
            found.append([name])
        elif name in names and together not in found:
            found.append(together)
    return found


def result_of(group: Sequence[str], quick: bool) -> Path:
    """Where the result of a group is kept; a quick one never replaces another."""
    name = "loads" if group[0] in COMPARED else group[0]
    return (RESULTS / "quick" if quick else RESULTS) / f"{name}.json"
