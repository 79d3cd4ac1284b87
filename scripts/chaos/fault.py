"""What goes wrong: each fault strikes, lasts for a while and is healed. Which, when and how long, the seed says.

A fault is a generator: what stands before its `yield` is the fault, what stands behind it heals it.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
from pika.exceptions import AMQPError

from scripts.chaos.clients import Clients
from scripts.chaos.member import Member
from scripts.chaos.stack import Stack
from scripts.place import SetupError
from scripts.servers import redis

OVERLAPPING = 0.35  # of the faults begin while the one before is still there
STAY_SECONDS = 30.0, 60.0
STAYING_EVERY = 12  # one in so many faults stays
CALM_SECONDS = 90.0  # the bystanders get so long after other faults until one that stays may come
QUICK = """
    SELECT count(DISTINCT q.user_id) FILTER (WHERE r.finished_at > now() - interval '1.5 s'),
           count(*) FILTER (WHERE r.finished_at IS NULL AND r.created_at < now() - interval '1 s')
    FROM queues_request r JOIN queues_userqueue q ON q.id = r.queue_id WHERE q.user_id::text = ANY(%s)
"""
POISONED = "SELECT EXISTS (SELECT FROM queues_request WHERE kind = 'chaos.poison' AND finished_at IS NULL)"


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
        """Until every process runs, nothing is about to end one, and every bystander's requests are finished at once.

        Raises SetupError.
        """
        deadline, calm = time.monotonic() + CALM_SECONDS, 0
        while calm < 4:
            if time.monotonic() > deadline:
                raise SetupError(f"the bystanders were not served at once within {CALM_SECONDS:g} s before it")
            time.sleep(0.25)
            try:
                with self.stack.database() as database:
                    row = database.execute(QUICK, [list(self.bystanders)]).fetchone()
                    poisoned = database.execute(POISONED).fetchone() != (False,)
            except (psycopg.Error, SetupError):
                row, poisoned = None, True
            quick = (
                row == (len(self.bystanders), 0)
                and not poisoned
                and all(member.alive() for member in self.stack.members)
            )
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
