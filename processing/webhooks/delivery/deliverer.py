"""Delivers messages: in order for each webhook, many webhooks side by side, none at another's cost.

    record what was sent, see what is new, take what is due, send it in threads

is the whole of it. One thread speaks with PostgreSQL, in statements for many webhooks that wait for nobody's row; the
others speak with receivers. Any number of processes may do so: a webhook is sent to by whoever holds its lease.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

import orjson
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from processing.webhooks import metrics, retention
from processing.webhooks.delivery.sending import Answer, Message, send
from processing.webhooks.delivery.turn import Turn
from processing.webhooks.messages import bodies
from processing.webhooks.statements import ANNOUNCE, DUE, FRESH, HELD, LAG, LEASE, NEXT, RECORD, RELEASE
from queues.sql.statement import left_out

LOOK_SECONDS = 0.2  # between two looks for what is due
EACH = 10  # messages that are sent to one receiver in a row, before others have their turn ..
TURN_SECONDS = 5.0  # .. or begun within so many seconds
FRESH_WEBHOOKS = 1000
ANNOUNCED = 5_000  # messages of one round, however many are new: in equal shares for its webhooks
AWAY_SECONDS = 1.0
PRUNE_SECONDS, LAG_SECONDS = 30.0, 5.0
PRUNED = 1000  # rows at once
NOBODY = UUID(int=0)

log = structlog.get_logger()


class Deliverer:
    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or settings.ENV.webhook_threads
        # Slow receivers never hold all threads, and quick ones leave some to them. Nor does one user hold many.
        self.most_slow = max(1, self.threads // 2)
        self.most_quick = max(1, self.threads - max(1, self.threads // 4))
        self.most_of_a_user = max(1, self.threads // 4)
        self.looked = self._announced = time.monotonic()
        self.held: dict[tuple[UUID, int], Turn] = {}
        self._done: SimpleQueue[Turn] = SimpleQueue()
        self._unrecorded: list[Turn] = []
        self._stopping, self._over = threading.Event(), threading.Event()
        self._senders = ThreadPoolExecutor(self.threads, "send")
        self._after = NOBODY
        self._pruned = self._measured = 0.0

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; what is being sent then is ended within STOP_GRACE_SECONDS, and recorded."""
        while not stop.is_set():
            self._step(stop)
        self._stopping.set()
        deadline = time.monotonic() + settings.ENV.stop_grace_seconds
        while self.held and time.monotonic() < deadline:
            self._step(stop)
        self._over.set()  # whoever still waits for a receiver gives it up
        self._senders.shutdown()
        self._step(stop)

    def _step(self, stop: threading.Event) -> None:
        try:
            self.step()
        except (OperationalError, InterfaceError) as error:
            log.warning("webhooks wait for PostgreSQL", error=str(error).strip().partition("\n")[0])
            connection.close()
            self.looked = time.monotonic()
            stop.wait(AWAY_SECONDS)

    def step(self) -> None:
        """One round; it lasts LOOK_SECONDS at most, but for PostgreSQL's answers."""
        self._wait()
        self._in_time(self.record)
        if not self._stopping.is_set():
            for part in (self.announce, self.take, self.prune, self.measure):
                self._in_time(part)
        self.looked = time.monotonic()

    def _in_time(self, part: Callable[[], None]) -> None:
        """Do a part of a round. One that takes too long is tried again in the next round, and keeps up no other."""
        try:
            part()
        except OperationalError as error:
            if not left_out(error):
                raise
            log.warning("left out what is locked or too slow", what=part.__name__, error=str(error).strip())

    def _wait(self) -> None:
        try:
            if not self._over.is_set():
                self._unrecorded.append(self._done.get(timeout=LOOK_SECONDS))
            while True:
                self._unrecorded.append(self._done.get_nowait())
        except Empty:
            pass

    def record(self) -> None:
        """Write down what was sent and give the webhooks back. One whose row is locked has its turn the next time."""
        turns = {(turn.webhook, turn.lease): turn for turn in self._unrecorded}
        if not turns:
            return
        with transaction.atomic():
            asked = [{"id": webhook, "lease": lease} for webhook, lease in turns]
            ours = [turns[row.id, row.lease] for row in HELD.rows(held=_json(asked))]
            outcomes = [outcome for turn in ours for outcome in turn.outcomes()]
            if outcomes:
                RECORD.rows(outcomes=_json(outcomes))
            released = RELEASE.rows(
                released=_json([turn.released() for turn in ours]),
                give_up=self.give_up_seconds,
                give_up_text=f"{settings.ENV.webhook_give_up_hours:g} hours",
            )
        for turn in ours:
            self._forget(turn)
            _count(turn)
        for row in released:
            if row.switched_off:
                metrics.SWITCHED_OFF.inc()
                log.error("webhook_switched_off", webhook=str(row.id), queue=row.queue_id, why=row.disabled_reason)
        for turn in [turn for turn in self._unrecorded if time.monotonic() - turn.taken > self.lease_seconds]:
            self._forget(turn)  # somebody else has it by now, or nobody: its messages are sent again

    def announce(self) -> None:
        """Have webhooks due that have new messages."""
        rows = FRESH.rows(after=self._after, count=FRESH_WEBHOOKS)
        self._after = rows[-1].id if len(rows) == FRESH_WEBHOOKS else NOBODY
        if rows:
            ANNOUNCE.rows(ids=[row.id for row in rows], each=max(1, ANNOUNCED // len(rows)))
        self._announced = time.monotonic()

    def take(self) -> None:
        """Lease as many webhooks as there are threads for, and send to them."""
        chosen = self._choose()
        if not chosen:
            return
        leased = LEASE.rows(ids=chosen, seconds=self.lease_seconds, give_up=self.give_up_seconds)
        turns = {row.id: Turn(row.id, row.queue_id, row.url, row.lease, row.slow, row.failures) for row in leased}
        if not turns:
            return
        by_id = {row.id: row for row in leased}
        wanted = _wanted(turns, NEXT.rows(ids=list(turns), each=EACH))
        written = bodies(wanted)
        for row in wanted:
            turn, webhook = turns[row.webhook_id], by_id[row.webhook_id]
            if row.id in written:
                secrets = (webhook.secret, webhook.old_secret)
                turn.messages.append(Message(row.id, row.uid, turn.url, secrets, written[row.id]))
            else:
                turn.dropped.append(row.id)
        for turn in turns.values():
            self.held[turn.webhook, turn.lease] = turn
            self._senders.submit(self._send, turn)
        metrics.SENDING.set(len(self.held))

    @property
    def lease_seconds(self) -> float:
        """Longer than a turn lasts: its last attempt begins within TURN_SECONDS."""
        return TURN_SECONDS + settings.ENV.webhook_timeout_seconds + 15.0

    @property
    def give_up_seconds(self) -> float:
        return settings.ENV.webhook_give_up_hours * 3600

    def _choose(self) -> list[UUID]:
        """The webhooks to take: the longest due first, within each user's share, quick and slow ones apart."""
        of_user = Counter(turn.queue for turn in self.held.values())
        slow_held = sum(turn.slow for turn in self.held.values())
        quick_held = len(self.held) - slow_held
        free = self.threads - len(self.held)
        chosen: list[UUID] = []
        for slow, room in ((False, self.most_quick - quick_held), (True, self.most_slow - slow_held)):
            room = min(room, free - len(chosen))
            if room <= 0:
                continue
            full = [queue for queue, count in of_user.items() if count >= self.most_of_a_user]
            for row in DUE.rows(slow=slow, full=full, count=4 * room):
                if room > 0 and of_user[row.queue_id] < self.most_of_a_user:
                    of_user[row.queue_id] += 1
                    room -= 1
                    chosen.append(row.id)
        return chosen

    def _send(self, turn: Turn) -> None:
        """In a thread of its own: send in order, until one fails or others are to have their turn."""
        try:
            for message in turn.messages:
                if self._stopping.is_set() or time.monotonic() - turn.taken > TURN_SECONDS:
                    break
                answer = send(message, self._over.is_set)
                if answer is None:
                    break
                turn.answers.append((message.id, answer))
                if not answer.delivered:
                    break
        except Exception as error:
            log.exception("a message could not be sent; it is tried again", webhook=str(turn.webhook))
            failed = turn.messages[len(turn.answers)]
            turn.answers.append((failed.id, Answer(None, 0.0, error=f"It could not be sent: {type(error).__name__}.")))
        finally:
            self._done.put(turn)

    def _forget(self, turn: Turn) -> None:
        self._unrecorded.remove(turn)
        self.held.pop((turn.webhook, turn.lease), None)
        metrics.SENDING.set(len(self.held))

    def prune(self) -> None:
        """Now and then: remove what was kept long enough."""
        now = time.monotonic()
        if now - self._pruned > PRUNE_SECONDS:
            self._pruned = now
            if retention.prune(PRUNED):
                self._pruned = float("-inf")

    def measure(self) -> None:
        """Now and then: how far behind this is, with sending or with looking for what is new."""
        now = time.monotonic()
        if now - self._measured > LAG_SECONDS:
            self._measured = now
            row = LAG.row()
            metrics.LAG.set(max(row.seconds if row else 0.0, self.looked - self._announced))


def _wanted(turns: Mapping[UUID, Turn], rows: Iterable[Any]) -> list[Any]:
    """What is sent in this turn: to a slow receiver one message, as the others may well not get to it."""
    begun: set[UUID] = set()
    wanted = []
    for row in rows:
        if not turns[row.webhook_id].slow or row.webhook_id not in begun:
            begun.add(row.webhook_id)
            wanted.append(row)
    return wanted


def _count(turn: Turn) -> None:
    metrics.ATTEMPTS.labels(metrics.DROPPED).inc(len(turn.dropped))
    for _, answer in turn.answers:
        silent = metrics.SILENT if answer.status is None else metrics.REFUSED
        metrics.ATTEMPTS.labels(metrics.DELIVERED if answer.delivered else silent).inc()
        metrics.SECONDS.observe(answer.seconds)


def _json(values: list[dict[str, Any]]) -> str:
    return orjson.dumps(values).decode()
