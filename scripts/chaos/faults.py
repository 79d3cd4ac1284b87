"""What goes wrong: each fault strikes, lasts for a while and is healed. Which, when and how long, the seed says.

A fault is a generator: what stands before its `yield` is the fault, what stands behind it heals it.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pika
import psycopg
from pika.exceptions import AMQPError

from scripts.chaos.clients import Clients
from scripts.chaos.stack import LEASE_SECONDS, MOST_CONNECTIONS, Member, Stack
from scripts.place import SetupError
from scripts.servers import redis

TOKEN_QUEUE = "drain"  # noqa: S105  (its name in RabbitMQ)
OVERLAPPING = 0.35  # of the faults begin while the one before is still there
STAY_SECONDS = 30.0, 60.0
STAYING_EVERY = 12  # one in so many faults stays
CALM_SECONDS = 90.0  # the bystanders get so long after other faults until one that stays may come
QUICK = """
    SELECT count(DISTINCT q.user_id) FILTER (WHERE r.finished_at > now() - interval '1.5 s'),
           count(*) FILTER (WHERE r.finished_at IS NULL AND r.created_at < now() - interval '1 s')
    FROM queues_request r JOIN queues_userqueue q ON q.id = r.queue_id WHERE q.user_id::text = ANY(%s)
"""


@dataclass
class Place:
    """Where a fault strikes, and its own dice."""

    stack: Stack
    clients: Clients
    dice: random.Random
    detail: str = ""

    def choose(self, what: str) -> Member:
        """One of the members of that sort that run now, or at least one of them."""
        members = self.stack.of(what)
        chosen = self.dice.choice([member for member in members if member.alive()] or members)
        self.detail = chosen.name
        return chosen


Strike = Callable[[Place], Iterator[None]]


@dataclass(frozen=True)
class Fault:
    """`shortest` and `longest` are the seconds that it lasts before it is healed."""

    name: str
    strike: Strike
    shortest: float
    longest: float
    stays: bool = False  # alone, and bystanders are measured from `grace` seconds after it struck
    grace: float = 0.0

    @property
    def thing(self) -> str:
        """What it breaks; two faults of one thing never overlap."""
        return self.name.partition(".")[0]


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, shortest: float = 0, longest: float = 0, *, stays: bool = False, grace: float = 0
) -> Callable[[Strike], Strike]:
    def declare(strike: Strike) -> Strike:
        FAULTS[name] = Fault(name, strike, shortest, longest, stays, grace)
        return strike

    return declare


@dataclass(frozen=True)
class Planned:
    number: int
    fault: Fault
    seed: int
    lasts: float
    pause: float  # seconds until the next one may come
    waits: bool  # whether the next one waits until this one is healed


@dataclass
class Struck:
    """What really happened, on the monotonic clock. `failed`: why it could not be done as meant."""

    number: int
    name: str
    began: float
    struck: float = 0.0
    healed: float = 0.0
    detail: str = ""
    failed: str = ""
    counts_from: float = 0.0  # bystanders are measured between the two, if it is one that stays
    counts_to: float = 0.0


def plan(
    seed: int, count: int, only: tuple[str, ...] = (), stay: float | None = None, every: int = STAYING_EVERY
) -> list[Planned]:
    """The faults of a seed: whole decks, so that each kind comes as often as the others. Raises ValueError.

    One in `every` is of those that stay, for `stay` seconds after their grace (None: STAY_SECONDS; 0: there are none).
    """
    names = [name for name in FAULTS if not only or any(name.startswith(prefix) for prefix in only)]
    decks: dict[bool, list[str]] = {stays: [n for n in names if FAULTS[n].stays is stays] for stays in (False, True)}
    if stay == 0:
        decks[True] = []
    if not decks[False] and not decks[True]:
        raise ValueError(f"no fault is called {', '.join(only)}; there are {', '.join(FAULTS)}")
    dices = {False: random.Random(seed), True: random.Random(f"{seed}/stay")}
    left: dict[bool, list[str]] = {False: [], True: []}
    planned = []
    for number in range(1, count + 1):
        stays = bool(decks[True]) and (not decks[False] or number % every == 0)
        dice, deck = dices[stays], left[stays]
        if not deck:
            deck += decks[stays]
            dice.shuffle(deck)
        chosen = FAULTS[deck.pop()]
        shortest, longest = (chosen.shortest, chosen.longest) if not stays else (stay, stay) if stay else STAY_SECONDS
        lasts = chosen.grace + dice.uniform(shortest, longest)
        waits = dice.random() >= OVERLAPPING
        planned.append(Planned(number, chosen, dice.getrandbits(32), lasts, dice.uniform(0.1, 0.7), waits))
    return planned


class Trouble:
    """Makes a plan happen."""

    def __init__(
        self, stack: Stack, clients: Clients, say: Callable[[str], None], bystanders: tuple[str, ...] = ()
    ) -> None:
        self.bystanders = bystanders  # their users' ids
        self.stack = stack
        self.clients = clients
        self.say = say
        self.struck: list[Struck] = []
        self.things: dict[str, threading.Lock] = {}
        self.under_way: list[threading.Thread] = []

    def make(self, planned: list[Planned], until: float) -> None:
        """Strike them one after the other, until that time at the latest; returns when the last is healed."""
        for one in planned:
            for thread in self.under_way if one.fault.stays else self.under_way[:-1]:
                thread.join()  # two at once are enough
            if time.monotonic() > until:
                self.say(f"time is over after {one.number - 1} faults")
                break
            struck = Struck(one.number, one.fault.name, time.monotonic())
            self.struck.append(struck)
            thread = threading.Thread(target=self._strike, args=(one, struck), daemon=True)
            thread.start()
            self.under_way.append(thread)
            if one.waits or one.fault.stays:
                thread.join()
            time.sleep(one.pause)
        for thread in self.under_way:
            thread.join()

    def _wait_for_calm(self) -> None:
        """Until every process runs and every bystander's requests are finished at once. Raises SetupError."""
        deadline, calm = time.monotonic() + CALM_SECONDS, 0
        while calm < 4:
            if time.monotonic() > deadline:
                raise SetupError(f"the bystanders were not served at once within {CALM_SECONDS:g} s before it")
            time.sleep(0.25)
            try:
                with self.stack.database() as database:
                    row = database.execute(QUICK, [list(self.bystanders)]).fetchone()
            except (psycopg.Error, SetupError):
                row = None
            quick = row == (len(self.bystanders), 0) and all(member.alive() for member in self.stack.members)
            calm = calm + 1 if quick else 0

    def _strike(self, one: Planned, struck: Struck) -> None:
        with self.things.setdefault(one.fault.thing, threading.Lock()):
            struck.began = time.monotonic()
            place = Place(self.stack, self.clients, random.Random(one.seed))
            course: Iterator[None] = iter(())  # nothing is to be healed before it begins
            try:
                if one.fault.stays:
                    self._wait_for_calm()
                course = one.fault.strike(place)
                next(course)
                struck.struck = time.monotonic()
                time.sleep(one.lasts)
                if one.fault.stays:
                    struck.counts_from, struck.counts_to = struck.struck + one.fault.grace, time.monotonic()
            except (OSError, SetupError, psycopg.Error, AMQPError, redis.Error) as wrong:
                struck.failed = f"{type(wrong).__name__}: {wrong}"
            try:
                next(course, None)
            except (OSError, SetupError, psycopg.Error, AMQPError, redis.Error) as wrong:
                struck.failed = f"{type(wrong).__name__}: {wrong}"
            struck.healed = time.monotonic()
            struck.struck = struck.struck or struck.began
            struck.detail = place.detail
        took = struck.healed - struck.began
        self.say(f"{one.number:4} {one.fault.name:24} {took:5.1f} s  {struck.detail} {struck.failed}".rstrip())


# Workers, dispatchers and the API.


@fault("worker.kill")
def kill_worker(place: Place) -> Iterator[None]:
    """kill -9 of the process that runs handlers; its supervisor starts another."""
    place.stack.kill_children(place.choose("worker"))
    yield


@fault("worker.kill-all", 0.5, 2)
def kill_worker_and_supervisor(place: Place) -> Iterator[None]:
    """kill -9 of both, and nobody starts it again for a while."""
    member = place.choose("worker")
    member.rest = 2.0
    place.stack.kill(member)
    yield
    member.rest = 0.2


@fault("worker.orphan")
def kill_supervisor(place: Place) -> Iterator[None]:
    """kill -9 of the supervisor alone."""
    place.stack.kill(place.choose("worker"), alone=True)
    yield


@fault("worker.freeze", LEASE_SECONDS + 0.5, LEASE_SECONDS + 2)
def freeze_worker(place: Place) -> Iterator[None]:
    """SIGSTOP past its leases, then SIGCONT: a zombie comes back."""
    process = place.choose("worker").process
    if process is not None:
        process.pause()
    yield
    if process is not None:
        process.resume()


@fault("worker.term")
def stop_worker(place: Place) -> Iterator[None]:
    process = place.choose("worker").process
    if process is not None:
        process.signal(process.stop_signal)
    yield


@fault("dispatcher.kill")
def kill_dispatcher(place: Place) -> Iterator[None]:
    place.stack.kill(place.choose("dispatcher"))
    yield


@fault("dispatcher.freeze", 0.5, 2)
def freeze_dispatcher(place: Place) -> Iterator[None]:
    process = place.choose("dispatcher").process
    if process is not None:
        process.pause()
    yield
    if process is not None:
        process.resume()


@fault("dispatcher.term")
def stop_dispatcher(place: Place) -> Iterator[None]:
    process = place.choose("dispatcher").process
    if process is not None:
        process.signal(process.stop_signal)
    yield


@fault("api.kill")
def kill_api(place: Place) -> Iterator[None]:
    place.stack.kill(place.choose("api"))
    yield


@fault("api.term")
def stop_api(place: Place) -> Iterator[None]:
    process = place.choose("api").process
    if process is not None:
        process.signal(process.stop_signal)
    yield


# Handlers that misbehave.


@fault("handler.poison")
def poison(place: Place) -> Iterator[None]:
    """A request that kills its process, once or for ever."""
    place.clients.want("chaos.poison", exits=place.dice.choice([1, 9]))
    yield


@fault("handler.overtime")
def overtime(place: Place) -> Iterator[None]:
    place.clients.want("chaos.overtime")
    place.clients.want("chaos.reject")
    yield


@fault("handler.hang")
def hang(place: Place) -> Iterator[None]:
    """A request whose handler cannot be interrupted."""
    place.clients.want("chaos.hang", ms=7000)
    yield


# RabbitMQ.


def channel(place: Place) -> pika.adapters.blocking_connection.BlockingChannel:
    parameters = pika.URLParameters(place.stack.rabbitmq.url)
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = 5
    return pika.BlockingConnection(parameters).channel()


def user_queues(place: Place) -> dict[int, str]:
    """The RabbitMQ queue of each user's queue, by the name that it has now."""
    with place.stack.database() as database:
        rows = database.execute("SELECT id, generation FROM queues_userqueue ORDER BY id").fetchall()
    return {id_: f"user.{id_}.{generation}" if generation else f"user.{id_}" for id_, generation in rows}


def token_queue(place: Place) -> str:
    """The queue that tokens go to now."""
    with place.stack.database() as database:
        [(generation,)] = database.execute("SELECT max(generation) FROM queues_tokenqueue").fetchall()
    return f"{TOKEN_QUEUE}.{generation}" if generation else TOKEN_QUEUE


@fault("rabbitmq.queue-delete")
def delete_queues(place: Place) -> Iterator[None]:
    """Somebody deletes the queues of a few users, with what is in them."""
    names = user_queues(place)
    chosen = place.dice.sample(list(names), min(4, len(names)))
    place.detail = " ".join(map(str, chosen))
    with channel(place) as ours:
        for queue in chosen:
            ours.queue_delete(names[queue])
    yield


@fault("rabbitmq.queue-purge")
def purge_queues(place: Place) -> Iterator[None]:
    """The messages of a few users are lost, their queues stay."""
    names = list(user_queues(place).values())
    for name in place.dice.sample(names, min(4, len(names))):
        with suppress(AMQPError), channel(place) as ours:
            ours.queue_purge(name)
    yield


@fault("rabbitmq.tokens-purge")
def purge_tokens(place: Place) -> Iterator[None]:
    with channel(place) as ours:
        ours.queue_purge(token_queue(place))
    yield


@fault("rabbitmq.tokens-delete")
def delete_tokens(place: Place) -> Iterator[None]:
    with channel(place) as ours:
        ours.queue_delete(token_queue(place))
    yield


@fault("rabbitmq.restart", 0, 2)
def restart_broker(place: Place) -> Iterator[None]:
    place.stack.rabbitmq.stop()
    yield
    place.stack.start_again(place.stack.rabbitmq)


@fault("rabbitmq.kill", 0, 1)
def kill_broker(place: Place) -> Iterator[None]:
    place.stack.rabbitmq.kill()
    yield
    place.stack.start_again(place.stack.rabbitmq)


@fault("rabbitmq.wipe")
def wipe_broker(place: Place) -> Iterator[None]:
    """It comes back without any queue or message."""
    place.stack.wipe_broker()
    yield
    place.stack.start_again(place.stack.rabbitmq)


@fault("rabbitmq.alarm", 1, 4)
def raise_alarm(place: Place) -> Iterator[None]:
    """No memory is left, says RabbitMQ: nobody may publish."""
    place.stack.rabbitmq.control.run("set_vm_memory_high_watermark", "0")
    yield
    place.stack.rabbitmq.control.run("set_vm_memory_high_watermark", "0.4")


@fault("rabbitmq.close")
def close_connections(place: Place) -> Iterator[None]:
    place.stack.rabbitmq.control.run("close_all_connections", "chaos")
    yield


@fault("rabbitmq.half-open", 1, 5)
def half_open_broker(place: Place) -> Iterator[None]:
    """Nothing arrives any more, in either direction; then the connections go on, or are reset."""
    place.stack.tell_proxy("hold", "rabbitmq")
    yield
    place.stack.tell_proxy("release", "rabbitmq", reset=place.dice.random() < 0.5)


@fault("rabbitmq.refuse", 0.5, 3)
def refuse_broker(place: Place) -> Iterator[None]:
    place.stack.tell_proxy("refuse", "rabbitmq")
    yield
    place.stack.tell_proxy("accept", "rabbitmq")


@fault("rabbitmq.reset")
def reset_broker(place: Place) -> Iterator[None]:
    """A part of the connections is reset."""
    place.stack.tell_proxy("reset", "rabbitmq", share=place.dice.choice([0.2, 0.5]))
    yield


# PostgreSQL.


@fault("postgresql.restart", 0, 1)
def restart_database(place: Place) -> Iterator[None]:
    place.stack.postgresql.stop()
    yield
    place.stack.start_again(place.stack.postgresql)


@fault("postgresql.kill")
def kill_database(place: Place) -> Iterator[None]:
    """kill -9 of all of it: it recovers from its log."""
    place.stack.postgresql.kill()
    yield
    place.stack.start_again(place.stack.postgresql)


@fault("postgresql.terminate")
def terminate_backends(place: Place) -> Iterator[None]:
    with place.stack.database() as database:
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
    yield


@fault("postgresql.exhaust", 1, 1.5)
def exhaust_connections(place: Place) -> Iterator[None]:
    """Every connection is taken, and half of ours have just been lost."""
    taken: list[psycopg.Connection] = []
    place.stack.tell_proxy("reset", "postgresql", share=0.5)
    with suppress(psycopg.OperationalError):
        while len(taken) < MOST_CONNECTIONS:
            taken.append(psycopg.connect(place.stack.postgresql.url, connect_timeout=5))
    place.detail = f"{len(taken)} taken"
    yield
    for connection in taken:
        connection.close()


@fault("postgresql.half-open", 0.5, 3)
def half_open_database(place: Place) -> Iterator[None]:
    place.stack.tell_proxy("hold", "postgresql")
    yield
    place.stack.tell_proxy("release", "postgresql", reset=place.dice.random() < 0.5)


@fault("postgresql.refuse", 0.5, 2)
def refuse_database(place: Place) -> Iterator[None]:
    place.stack.tell_proxy("refuse", "postgresql")
    yield
    place.stack.tell_proxy("accept", "postgresql")


@fault("postgresql.reset")
def reset_database(place: Place) -> Iterator[None]:
    place.stack.tell_proxy("reset", "postgresql", share=place.dice.choice([0.2, 0.5]))
    yield


@fault("postgresql.lost-answers")
def lose_answers(place: Place) -> Iterator[None]:
    """What some connections ask next is done (a commit, too), but they never hear of it."""
    place.stack.tell_proxy("deafen", "postgresql", count=place.dice.choice([5, 10]))
    yield


# Redis.


@fault("redis.restart", 0.2, 2)
def restart_redis(place: Place) -> Iterator[None]:
    place.stack.redis.kill()
    yield
    place.stack.start_again(place.stack.redis)


@fault("redis.flush")
def flush_redis(place: Place) -> Iterator[None]:
    with redis.connect(place.stack.redis.url) as client:
        client.flushall()
    yield


@fault("redis.freeze", 0.5, 2)
def freeze_redis(place: Place) -> Iterator[None]:
    """SIGSTOP: its connections stay, nobody answers."""
    place.stack.redis.pause()
    yield
    place.stack.redis.resume()
