"""Faults that stay for half a minute and more: others must not notice, so the bystanders are measured meanwhile.

Each comes alone. From `grace` seconds after it struck, everybody whom it does not concern counts.
"""

import time
from collections.abc import Iterator

import psycopg
from pika.exceptions import AMQPError

from scripts.chaos.fault import Place, fault
from scripts.chaos.faults.rabbitmq import channel, user_queues
from scripts.chaos.member import Member
from scripts.place import SetupError
from scripts.servers import redis
from scripts.servers.process import descendants

SUCCESSION = 5.0  # seconds until another leads
NOTICED = 10.0  # seconds until a half-open peer is noticed
TRIES = 200
SUSPEND = """
    {{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{name}">>)),
    sys:{do}(amqqueue:get_pid(Queue)).
"""
FROZEN_IN = """
    SELECT pid, state_change FROM pg_stat_activity
    WHERE application_name = %s AND state = 'idle in transaction' AND backend_xid IS NOT NULL
"""


def one_queue(place: Place) -> int:
    """The queue of a user who is no bystander: the fault concerns them alone."""
    users = [user.id for user in place.clients.users]
    with place.stack.database() as database:
        found = database.execute(
            "SELECT id FROM queues_userqueue WHERE user_id::text = ANY(%s) ORDER BY id", [users]
        ).fetchall()
    if not found:
        raise SetupError("nobody has a queue yet")
    queue = int(place.dice.choice(found)[0])
    place.detail = f"queue {queue}"
    return queue


def leader(place: Place) -> Member:
    """The dispatcher that leads."""
    with place.stack.database() as database:
        row = database.execute("SELECT holder FROM queues_leadership WHERE lead_until > now()").fetchone()
    pid = int(row[0].split()[1]) if row else 0
    for member in place.stack.of("dispatcher"):
        if member.process is not None and pid in (
            member.process.pid,
            *(child.pid for child in descendants(member.process.pid)),
        ):
            place.detail = member.name
            return member
    raise SetupError("no dispatcher leads")


# Something of one user is stuck.


@fault("stay.locked-row", stays=True)
def lock_row(place: Place) -> Iterator[None]:
    """An open transaction holds the row of one user's queue, as an operator's may."""
    queue = one_queue(place)
    with psycopg.connect(place.stack.postgresql.url, connect_timeout=5) as ours:
        ours.execute("SELECT id FROM queues_userqueue WHERE id = %s FOR UPDATE", [queue])
        yield
        ours.rollback()


@fault("stay.frozen-api", stays=True)
def freeze_api(place: Place) -> Iterator[None]:
    """SIGSTOP of the API process that the bystanders don't speak to, in the middle of a transaction that wrote."""
    member = place.stack.of("api")[0]
    process = member.process
    if process is None:
        raise SetupError(f"{member.name} does not run")
    for _ in range(TRIES):
        process.pause()
        if held := frozen_transactions(place, member.name):
            place.detail = f"{member.name}, {held} open"
            yield
            process.resume()
            return
        process.resume()
        time.sleep(place.dice.uniform(0.01, 0.1))
    raise SetupError(f"{member.name} was never met inside a transaction")


def frozen_transactions(place: Place, name: str) -> int:
    """How many transactions that process keeps open now that it is stopped."""
    with place.stack.database() as database:
        database.autocommit = True
        time.sleep(0.02)
        before = set(database.execute(FROZEN_IN, [name]).fetchall())
        if not before:
            return 0
        time.sleep(0.1)
        return len(before & set(database.execute(FROZEN_IN, [name]).fetchall()))


@fault("stay.undeclarable-queue", stays=True)
def make_undeclarable(place: Place) -> Iterator[None]:
    """One user's RabbitMQ queue is another one of the same name: whoever declares it gets 406."""
    name = user_queues(place)[one_queue(place)]
    for _ in range(TRIES):
        try:
            with channel(place) as ours:
                ours.queue_delete(name)
                ours.queue_declare(name, durable=True, arguments={"x-max-priority": 3})
            break
        except AMQPError:  # the project declared it first
            time.sleep(0.05)
    else:
        raise SetupError(f"{name} could not be taken")
    place.detail += f" ({name})"
    yield
    with channel(place) as ours:
        ours.queue_delete(name)


@fault("stay.silent-queue", stays=True)
def silence_queue(place: Place) -> Iterator[None]:
    """RabbitMQ never answers about one user's queue, as a cluster of version 4 does whose node died."""
    name = user_queues(place)[one_queue(place)]
    place.detail += f" ({name})"
    control = place.stack.rabbitmq.control
    if not control.run("eval", SUSPEND.format(name=name, do="suspend")):
        raise SetupError(f"{name} could not be silenced")
    yield
    control.run("eval", SUSPEND.format(name=name, do="resume"))


# One process is stuck, or has lost one server that all others have.


@fault("stay.frozen-leader", grace=SUCCESSION, stays=True)
def freeze_leader(place: Place) -> Iterator[None]:
    process = leader(place).process
    if process is not None:
        process.pause()
    yield
    if process is not None:
        process.resume()


def half_open(place: Place, server: str, member: Member) -> Iterator[None]:
    """Its connections to that server stay, and nothing passes; new ones open, and nothing passes either."""
    place.stack.tell_proxy("hold", f"{server}@{member.name}")
    yield
    place.stack.tell_proxy("release", f"{server}@{member.name}", reset=place.dice.random() < 0.5)


def without(place: Place, server: str, member: Member) -> Iterator[None]:
    """It cannot reach that server, and is told so."""
    place.stack.tell_proxy("refuse", f"{server}@{member.name}")
    yield
    place.stack.tell_proxy("accept", f"{server}@{member.name}")


@fault("stay.leader-half-open-postgresql", grace=SUCCESSION, stays=True)
def half_open_leader_database(place: Place) -> Iterator[None]:
    yield from half_open(place, "postgresql", leader(place))


@fault("stay.leader-half-open-rabbitmq", grace=SUCCESSION, stays=True)
def half_open_leader_broker(place: Place) -> Iterator[None]:
    yield from half_open(place, "rabbitmq", leader(place))


@fault("stay.leader-without-postgresql", grace=SUCCESSION, stays=True)
def leader_without_database(place: Place) -> Iterator[None]:
    yield from without(place, "postgresql", leader(place))


@fault("stay.leader-without-rabbitmq", grace=SUCCESSION, stays=True)
def leader_without_broker(place: Place) -> Iterator[None]:
    yield from without(place, "rabbitmq", leader(place))


@fault("stay.worker-half-open-postgresql", grace=NOTICED, stays=True)
def half_open_worker_database(place: Place) -> Iterator[None]:
    yield from half_open(place, "postgresql", place.choose("worker"))


@fault("stay.worker-half-open-rabbitmq", grace=NOTICED, stays=True)
def half_open_worker_broker(place: Place) -> Iterator[None]:
    yield from half_open(place, "rabbitmq", place.choose("worker"))


@fault("stay.worker-without-postgresql", grace=SUCCESSION, stays=True)
def worker_without_database(place: Place) -> Iterator[None]:
    yield from without(place, "postgresql", place.choose("worker"))


@fault("stay.worker-without-rabbitmq", grace=SUCCESSION, stays=True)
def worker_without_broker(place: Place) -> Iterator[None]:
    yield from without(place, "rabbitmq", place.choose("worker"))


@fault("stay.api-half-open-postgresql", stays=True)
def half_open_api_database(place: Place) -> Iterator[None]:
    """Of the API process that the bystanders don't speak to."""
    member = place.stack.of("api")[0]
    place.detail = member.name
    yield from half_open(place, "postgresql", member)


# Redis answers, and every answer is an error.


@fault("stay.redis-errors", grace=1, stays=True)
def redis_refuses(place: Place) -> Iterator[None]:
    """It has no replica to write to, or the user may not write."""
    place.detail = place.dice.choice(["NOREPLICAS", "NOPERM"])
    with redis.connect(place.stack.redis.url) as client:
        if place.detail == "NOREPLICAS":
            client.config_set("min-replicas-to-write", 1)
        else:
            client.execute_command("ACL", "SETUSER", "default", "-@write")
        yield
        client.config_set("min-replicas-to-write", 0)
        client.execute_command("ACL", "SETUSER", "default", "+@all")
