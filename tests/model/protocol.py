"""A model of the whole protocol: several users, dispatchers that lead by lease, workers that lease and record many.

    PostgreSQL  a row for each user: last >= pub >= done, a state, the holder of its lease, the generation of its queue
    RabbitMQ    a queue for each user and generation: its pointers, and whether it is silent for ever
    dispatcher  reads what is unpublished, publishes, marks; only the leader begins, but one who was leader may go on
    worker      leases many queues in one statement, runs their heads one after another, records many in one statement;
                beside a handler that hangs its watch gives back what it leased and has not begun

Fences have no numbers here: of each lease it is only known whether it is still the newest. Tokens are not modelled, as
the sweep replaces any. `Rules` names every rule of the protocol; a model with one of them taken out must break.

Checked in every state that is reached:

    S1  `done` moves from n to n + 1, recorded by the holder of the newest fence
    S2  no two handlers of a user run at once, unless a lease ran out under a live worker
    S3  no more handlers run at once than their kind's limit says, with the same exception
    L   every user whose row nobody has locked for ever can still be finished, without another fault, without waiting
        for a lease to run out under a live worker, a silent queue to answer, or somebody frozen to come back
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any, NamedTuple, TypeVar


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol. Each is a field; False takes it out."""

    record_names_fence: bool = True
    sequence_check: bool = True
    republish_what_was_lost: bool = True
    reconcile: bool = True  # a worker gives back leases in its name that it does not know ..
    reconcile_spares_the_young: bool = True  # .. but none whose answer may still come
    catch_up: bool = True  # a record whose answer was lost is looked up before anything else
    rename_the_silent: bool = True
    skip_locked: bool = True  # what serves many waits for no row
    set_silent_aside: bool = True  # one silent queue does not fail the batch of the others
    succeed_the_frozen: bool = True  # leadership is a lease that only progress renews
    sweep_dead_leases: bool = True
    wake_the_waiting: bool = True
    recheck_before_idle: bool = True
    each_row_its_own_guard: bool = True  # of many records in one statement one that is refused fails no other
    give_back_beside_a_slow_one: bool = True  # what has not begun in a run does not wait for a handler that is slow ..
    begin_nothing_that_may_be_given_back: bool = True  # .. and does not begin any more, if the answer to that was lost
    ask_for_a_permit: bool = True  # of a kind with a limit nothing begins before one is free ..
    decide_one_after_another: bool = True  # .. and of two who ask at once one sees what the other was given
    permits_end_with_the_lease: bool = True  # nobody has to give them back: who dies, or is let go, has none
    call_those_held_back: bool = True


@dataclass(frozen=True)
class Size:
    """How much there is of everything."""

    users: int = 2
    requests: int = 1
    dispatchers: int = 2
    workers: int = 2
    faults: int = 1
    failures: int = 1  # attempts that fail; a user's second one blocks the queue
    limit: int = 0  # how many may run at once of the kind that all ask for; 0: it has none


class Row(NamedTuple):
    """A user's queue in PostgreSQL. `attempt` is of the head."""

    last: int = 0
    pub: int = 0
    done: int = 0
    state: str = "idle"
    holder: int = -1
    alive: bool = False  # whether the lease's holder lives and its lease has not run out
    gen: int = 0
    paused: bool = False
    locked: bool = False  # by somebody who never lets go
    attempt: int = 0
    permit: bool = False  # under this lease
    held_back: bool = False  # waiting, until it is called


class Hold(NamedTuple):
    """A lease as its worker knows it."""

    newest: bool
    gen: int
    done: int
    message: int = 0  # received and not acked ..
    begun: bool = False  # .. and its handler was called
    outcome: str = ""  # of that message, not recorded yet
    seen: int = -1  # pub at the last look into an empty queue
    leaving: bool = False  # nothing of it begins any more: it is given back
    allowed: bool = False  # it saw a permit that was free


class Worker(NamedTuple):
    step: str = "idle"  # idle, asking, working, unsure
    holds: tuple[Hold | None, ...] = ()
    unsure: tuple[int, ...] = ()  # users whose record may have been committed


class Dispatcher(NamedTuple):
    step: str = "idle"  # idle, publish, mark
    batch: tuple[tuple[int, int, int, int], ...] = ()  # user, generation, pub as read, target
    published: tuple[int, ...] = ()
    frozen: bool = False


class State(NamedTuple):
    rows: tuple[Row, ...]
    queues: tuple[tuple[tuple[int, ...], ...], ...]  # user, generation: pointers
    silent: tuple[int, ...]  # users whose queue of generation 0 never answers
    hung: tuple[int, ...]  # users whose handler does not return
    leader: int
    dispatchers: tuple[Dispatcher, ...]
    workers: tuple[Worker, ...]
    faults: int
    failures: int
    ran_out: bool


class Violation(Exception):
    """A promise is broken."""


class Step(NamedTuple):
    name: str
    state: State
    fault: bool = False


Item = TypeVar("Item")


def put(items: tuple[Item, ...], index: int, item: Item) -> tuple[Item, ...]:
    return (*items[:index], item, *items[index + 1 :])


class Protocol:
    """All that can happen next, from any state."""

    def __init__(self, size: Size, rules: Rules) -> None:
        self.size, self.rules = size, rules
        self.room = size.requests + 1  # of each queue in RabbitMQ: what does not fit is lost, one more thing to survive
        nothing = (None,) * size.users
        self.start = State(
            rows=(Row(),) * size.users,
            queues=(((), ()),) * size.users,
            silent=(),
            hung=(),
            leader=0,
            dispatchers=(Dispatcher(),) * size.dispatchers,
            workers=(Worker(holds=nothing),) * size.workers,
            faults=size.faults,
            failures=size.failures,
            ran_out=False,
        )

    def steps(self, state: State) -> Iterator[Step]:
        """Raises Violation where a promise is broken by what happens next."""
        yield from self.owner(state)
        for index, dispatcher in enumerate(state.dispatchers):
            if not dispatcher.frozen:
                yield from self.dispatcher(state, index, dispatcher)
        yield from self.leading(state)
        for index, worker in enumerate(state.workers):
            yield from self.worker(state, index, worker)
        if state.faults:
            yield from self.faults(state._replace(faults=state.faults - 1))

    def finished(self, state: State) -> bool:
        """Whether every user is served whose row can be had."""
        return all(
            row.locked or user in state.hung or row.done == row.last == self.size.requests
            for user, row in enumerate(state.rows)
        )

    # Whoever asks, and whoever operates.

    def owner(self, state: State) -> Iterator[Step]:
        for user, row in enumerate(state.rows):
            if row.locked:
                continue
            if row.last < self.size.requests:
                yield Step(f"accept for {user}", self.row(state, user, last=row.last + 1))
            if row.state == "blocked":
                yield Step(f"retry of {user}", self.row(state, user, state="ready", attempt=0))
            if row.paused:
                yield Step(f"resume {user}", self.row(state, user, paused=False))

    # The dispatcher, and what only the leader does.

    def leading(self, state: State) -> Iterator[Step]:
        leader = state.dispatchers[state.leader]
        if leader.frozen and self.rules.succeed_the_frozen:
            for index, other in enumerate(state.dispatchers):
                if not other.frozen:
                    yield Step(f"d{index} succeeds the leader", state._replace(leader=index))
        if leader.frozen or (self.silent_in(state, leader) and not self.rules.set_silent_aside):
            return
        for user, row in enumerate(state.rows):
            if row.locked:
                if not self.rules.skip_locked and row.state in ("waiting", "draining"):
                    return  # the leader's only thread waits for that row
                continue
            if row.held_back:
                if self.rules.call_those_held_back and self.permit_is_free(state, user):
                    yield Step(f"call {user}", self.row(state, user, state="ready"))
            elif row.state == "waiting" and self.rules.wake_the_waiting:
                yield Step(f"wake {user}", self.row(state, user, state="ready"))
            if row.state == "draining" and not row.alive and self.rules.sweep_dead_leases:
                yield Step(f"sweep {user}", self.fenced(self.row(state, user, state="ready", holder=-1), user))
            if user in state.silent and row.gen == 0 and row.state != "draining" and self.rules.rename_the_silent:
                yield Step(f"rename {user}", self.row(state, user, gen=1, pub=row.done, state="idle"))

    def silent_in(self, state: State, dispatcher: Dispatcher) -> list[int]:
        """Users in what it publishes whose queue never answers."""
        batch = dispatcher.batch if dispatcher.step == "publish" else ()
        return [user for user, gen, _, _ in batch if gen == 0 and user in state.silent]

    def dispatcher(self, state: State, index: int, me: Dispatcher) -> Iterator[Step]:
        def now(me: Dispatcher, base: State = state) -> State:
            return base._replace(dispatchers=put(base.dispatchers, index, me))

        if me.step == "idle" and state.leader == index:
            batch = tuple(
                (user, row.gen, row.pub, row.last) for user, row in enumerate(state.rows) if row.last > row.pub
            )
            if batch:
                yield Step(f"d{index} reads {batch}", now(Dispatcher("publish", batch)))
        elif me.step == "publish":
            silent = self.silent_in(state, me)
            if silent and not self.rules.set_silent_aside:
                return  # it waits for an answer, for ever
            queues, kept = state.queues, []
            for user, gen, pub, target in me.batch:
                if user not in silent:
                    more = (*queues[user][gen], *range(pub + 1, target + 1))[: self.room]
                    queues = put(queues, user, put(queues[user], gen, more))
                    kept.append((user, gen, pub, target))
            yield Step(f"d{index} publishes", now(Dispatcher("mark", tuple(kept)), state._replace(queues=queues)))
        elif me.step == "mark":
            if not self.rules.skip_locked and any(state.rows[user].locked for user, *_ in me.batch):
                return  # it waits
            marked = state
            for user, gen, pub, target in me.batch:
                row = state.rows[user]
                if not row.locked and (row.gen, row.pub) == (gen, pub):
                    new = "ready" if row.state == "idle" else row.state
                    marked = self.row(marked, user, pub=target, state=new)
            yield Step(f"d{index} marks", now(Dispatcher(), marked))

    # A worker process.

    def worker(self, state: State, index: int, me: Worker) -> Iterator[Step]:
        if me.step == "idle" or (me.step == "asking" and not self.rules.reconcile_spares_the_young):
            yield from self.give_back(state, index, me)
        if me.step == "idle":
            yield from self.lease(state, index)
        elif me.step == "asking":
            yield Step(f"w{index} hears what it has", self.at(state, index, me._replace(step="working")))
            if state.faults:
                lost = state._replace(faults=state.faults - 1)
                yield Step(f"w{index} hears nothing and gives up", self.at(lost, index, self.nothing()), True)
        elif me.step == "unsure":
            yield from self.catch_up(state, index, me)
        elif hanging := self.hanging(state, index):
            yield Step(f"the handler of {hanging} returns", state._replace(hung=()), True)
            yield from self.give_back(state, index, me)
            if self.rules.give_back_beside_a_slow_one:
                yield from self.give_rest_back(state, index, me, hanging)
        else:
            yield from self.run(state, index, me)
            yield from self.record(state, index, me)

    def nothing(self) -> Worker:
        return Worker(holds=(None,) * self.size.users)

    def lease(self, state: State, index: int) -> Iterator[Step]:
        """Any of the ready queues at once: one statement, which skips what is locked."""
        ready = [u for u, row in enumerate(state.rows) if row.state == "ready" and not (row.locked or row.paused)]
        for users in chain.from_iterable(combinations(ready, count) for count in range(1, len(ready) + 1)):
            after, holds = state, self.nothing().holds
            for user in users:
                row = state.rows[user]
                after = self.fenced(self.row(after, user, state="draining", holder=index, alive=True), user)
                holds = put(holds, user, Hold(True, row.gen, row.done))
            yield Step(f"w{index} leases {users}", self.at(after, index, Worker("asking", holds)))

    def give_back(self, state: State, index: int, me: Worker) -> Iterator[Step]:
        if not self.rules.reconcile:
            return
        for user, row in enumerate(state.rows):
            known = me.step != "asking" and me.holds[user] is not None
            if row.state == "draining" and row.holder == index and row.alive and not row.locked and not known:
                given = self.row(state, user, state="ready", holder=-1, alive=False)
                yield Step(f"w{index} gives back {user}, which it does not know", given)

    def hanging(self, state: State, index: int) -> list[int]:
        """Users whose handler hangs in this worker; one at a time does."""

        def begun(worker: Worker, user: int) -> bool:
            hold = worker.holds[user]
            return hold is not None and hold.begun and not hold.outcome and worker.step == "working"

        return [
            user
            for user in state.hung
            if begun(state.workers[index], user) and not any(begun(w, user) for w in state.workers[:index])
        ]

    def give_rest_back(self, state: State, index: int, me: Worker, hanging: list[int]) -> Iterator[Step]:
        """What the watch does beside a handler that hangs: the others' outcomes are recorded, and they may go on."""
        rest = [
            u for u, h in enumerate(me.holds) if h and u not in hanging and not h.leaving and not state.rows[u].locked
        ]
        if not rest:
            return
        given, told = state, state
        for user in rest:
            hold = me.holds[user]
            assert hold is not None
            if self.mine(state, user, hold):
                given = self.recorded(given, user, hold) if hold.outcome else given
                if given.rows[user].state == "draining":
                    given = self.row(given, user, state="ready", holder=-1, alive=False)
        told = given
        for user in rest:
            hold = me.holds[user]
            assert hold is not None
            told = self.hold(told, index, user, None)
            if hold.outcome != "succeeded" or not self.mine(state, user, hold):
                told = self.unacked(told, user, hold)
        yield Step(f"w{index} gives back {rest} beside {hanging}", told)
        if state.faults:
            lost = given._replace(faults=state.faults - 1)
            if self.rules.begin_nothing_that_may_be_given_back:
                for user in rest:
                    hold = me.holds[user]
                    assert hold is not None
                    lost = self.hold(lost, index, user, hold._replace(leaving=True))
            yield Step(f"w{index} gives back {rest} beside {hanging}, answer lost", lost, True)

    def mine(self, state: State, user: int, hold: Hold) -> bool:
        return state.rows[user].state == "draining" and (hold.newest or not self.rules.record_names_fence)

    def run(self, state: State, index: int, me: Worker) -> Iterator[Step]:
        """Each queue by itself: its next message, its handler, or that it is empty."""
        for user, hold in enumerate(me.holds):
            if hold is None:
                continue
            if state.rows[user].locked and self.rules.skip_locked:  # its lease will run out; the thread is free
                given_up = self.unacked(self.hold(state, index, user, None), user, hold)
                if self.rules.permits_end_with_the_lease:  # which nobody renews
                    given_up = self.row(given_up, user, permit=False)
                yield Step(f"w{index} gives up {user}, whose row is locked", given_up)
            row, queue = state.rows[user], state.queues[user][hold.gen]
            name = f"w{index}: {user}"
            if hold.leaving:  # it makes sure, and leaves
                if not row.locked:
                    after = self.leave(state, index, user, hold, "ready")
                    yield Step(f"{name} is left", self.unacked(after, user, hold))
                continue
            if hold.outcome:
                continue
            if hold.message and not hold.begun:
                if not any(h and h.begun and not h.outcome for h in me.holds):  # one thread
                    yield from self.begin(state, index, user, hold)
            elif hold.message:
                others = (w.holds[user] for i, w in enumerate(state.workers) if i != index and w.step != "asking")
                if not state.ran_out and any(other and other.begun and not other.outcome for other in others):
                    raise Violation(f"S2: two handlers of user {user} run at once")
                yield Step(f"{name} succeeds", self.hold(state, index, user, hold._replace(outcome="succeeded")))
                if state.failures:
                    fewer = state._replace(failures=state.failures - 1)
                    yield Step(f"{name} fails", self.hold(fewer, index, user, hold._replace(outcome="failed")))
            elif hold.gen == 0 and user in state.silent:
                yield Step(f"{name} is silent", self.leave(state, index, user, hold, "waiting"))
            elif queue:
                rest = state._replace(queues=put(state.queues, user, put(state.queues[user], hold.gen, queue[1:])))
                got = queue[0] if queue[0] == hold.done + 1 or not self.rules.sequence_check else 0
                yield Step(f"{name} gets {queue[0]}", self.hold(rest, index, user, hold._replace(message=got)))
            elif not self.mine(state, user, hold) or row.locked:
                if not self.mine(state, user, hold):
                    yield Step(f"{name} is fenced out", self.hold(state, index, user, None))
            elif row.pub == hold.done or not self.rules.recheck_before_idle:
                yield Step(f"{name} goes idle", self.leave(state, index, user, hold, "idle"))
            elif hold.seen != row.pub:
                yield Step(f"{name} looks again", self.hold(state, index, user, hold._replace(seen=row.pub)))
            elif self.rules.republish_what_was_lost:
                lost = self.row(self.leave(state, index, user, hold, "idle"), user, pub=row.done)
                yield Step(f"{name} was lost by RabbitMQ", lost)

    def begin(self, state: State, index: int, user: int, hold: Hold) -> Iterator[Step]:
        """Its handler is called, if its kind lets it."""
        name = f"w{index}: {user}"
        begun = self.hold(state, index, user, hold._replace(begun=True))
        if not (self.size.limit and self.rules.ask_for_a_permit):
            yield Step(f"{name} begins", self.counted(begun))
        elif not self.mine(state, user, hold):
            yield Step(f"{name} is fenced out", self.unacked(self.hold(state, index, user, None), user, hold))
        elif hold.allowed or (self.rules.decide_one_after_another and self.permit_is_free(state, user)):
            yield Step(f"{name} begins with a permit", self.counted(self.row(begun, user, permit=True)))
        elif self.permit_is_free(state, user):
            yield Step(f"{name} sees a permit", self.hold(state, index, user, hold._replace(allowed=True)))
        elif not state.rows[user].locked:
            left = self.unacked(self.leave(state, index, user, hold, "waiting"), user, hold)
            yield Step(f"{name} is held back", self.row(left, user, held_back=True))

    def permit_is_free(self, state: State, user: int) -> bool:
        """Whether fewer others have one than may. Of a lease that has run out nobody knows more than that."""
        counts = [
            row.permit and (row.alive or not self.rules.permits_end_with_the_lease)
            for other, row in enumerate(state.rows)
            if other != user
        ]
        return sum(counts) < self.size.limit

    def counted(self, state: State) -> State:
        running = sum(bool(h and h.begun and not h.outcome) for worker in state.workers for h in worker.holds)
        if self.size.limit and running > self.size.limit and not state.ran_out:
            raise Violation(f"S3: {running} run at once")
        return state

    def record(self, state: State, index: int, me: Worker) -> Iterator[Step]:
        """All that is over, in one statement; what is locked is left out, and the holder goes on with the rest."""
        over = [u for u, h in enumerate(me.holds) if h and h.outcome and not h.leaving and not state.rows[u].locked]
        if not over or (not self.rules.skip_locked and any(h and state.rows[u].locked for u, h in enumerate(me.holds))):
            return
        if not self.rules.each_row_its_own_guard and any(
            not self.mine(state, user, hold) for user, hold in enumerate(me.holds) if hold and hold.outcome
        ):
            return  # the statement is refused, however often it is tried
        recorded, told = state, state
        for user in over:
            hold = me.holds[user]
            assert hold is not None
            if not self.mine(state, user, hold):
                told = self.unacked(self.hold(told, index, user, None), user, hold)
                continue
            recorded = self.recorded(recorded, user, hold)
            told = self.recorded(told, user, hold)
            after = recorded.rows[user]
            goes_on = after.state == "draining"
            kept = Hold(True, hold.gen, after.done) if goes_on else None
            told = self.hold(told, index, user, kept)
            if hold.outcome == "failed":
                told = self.unacked(told, user, hold)
        yield Step(f"w{index} records {over}", told)
        if state.faults:
            unsure = me._replace(step="unsure", unsure=tuple(over))
            lost = recorded._replace(faults=state.faults - 1)
            yield Step(f"w{index} records {over}, answer lost", self.at(lost, index, unsure), True)
            never = state._replace(faults=state.faults - 1)
            yield Step(f"w{index}'s record of {over} is lost", self.at(never, index, unsure), True)

    def recorded(self, state: State, user: int, hold: Hold) -> State:
        row = state.rows[user]
        if hold.outcome == "failed":
            new = "waiting" if row.attempt == 0 else "blocked"
            return self.row(state, user, state=new, holder=-1, alive=False, attempt=row.attempt + 1)
        if hold.message != row.done + 1:
            raise Violation(f"S1: {hold.message} of user {user} is recorded after {row.done}")
        pub = max(row.pub, row.done + 1)
        goes_on = pub > row.done + 1
        new = "draining" if goes_on else "idle"
        holder, alive = (row.holder, row.alive) if goes_on else (-1, False)
        return self.row(state, user, done=row.done + 1, pub=pub, state=new, holder=holder, alive=alive, attempt=0)

    def catch_up(self, state: State, index: int, me: Worker) -> Iterator[Step]:
        after = self.at(state, index, me._replace(step="working", unsure=()))
        for user in me.unsure:
            hold, row = me.holds[user], state.rows[user]
            assert hold is not None
            if not self.rules.catch_up:
                continue
            if not (hold.newest and row.state == "draining"):
                after = self.unacked(self.hold(after, index, user, None), user, hold)
            elif row.done > hold.done:
                after = self.hold(after, index, user, Hold(True, hold.gen, row.done))
        yield Step(f"w{index} catches up", after)

    # Faults. Each is one of a bounded number.

    def faults(self, state: State) -> Iterator[Step]:
        for index, dispatcher in enumerate(state.dispatchers):
            if dispatcher.frozen:
                thawed = put(state.dispatchers, index, dispatcher._replace(frozen=False))
                yield Step(f"d{index} comes back", state._replace(dispatchers=thawed), True)
            elif sum(not other.frozen for other in state.dispatchers) > 1:
                frozen = put(state.dispatchers, index, dispatcher._replace(frozen=True))
                yield Step(f"d{index} freezes", state._replace(dispatchers=frozen), True)
        for index, worker in enumerate(state.workers):
            if worker.step != "idle":
                yield Step(f"w{index} dies", self.died(state, index, worker), True)
        for user, row in enumerate(state.rows):
            if row.state == "draining" and row.alive:
                yield Step(f"{user}'s lease runs out", self.row(state, user, alive=False)._replace(ran_out=True), True)
            if not row.locked:
                yield Step(f"{user}'s row is locked for ever", self.row(state, user, locked=True), True)
            if not row.paused:
                yield Step(f"{user} is paused", self.row(state, user, paused=True), True)
            if self.size.workers > 1 and not state.hung and not self.size.limit:
                yield Step(f"{user}'s handlers hang", state._replace(hung=(user,)), True)
            if user not in state.silent:
                yield Step(f"{user}'s queue falls silent", state._replace(silent=(*state.silent, user)), True)
            if state.queues[user][row.gen]:
                empty = put(state.queues, user, put(state.queues[user], row.gen, ()))
                yield Step(f"RabbitMQ loses {user}'s pointers", state._replace(queues=empty), True)

    def died(self, state: State, index: int, worker: Worker) -> State:
        after = self.at(state, index, self.nothing())
        for user, row in enumerate(state.rows):
            hold = worker.holds[user]
            if hold is not None:
                after = self.unacked(after, user, hold)
            if row.state == "draining" and row.holder == index:
                after = self.row(after, user, alive=False)
        return after

    # How a state is changed.

    def row(self, where: State, user: int, **values: Any) -> State:
        before = where.rows[user]
        row = before._replace(**values)
        over = row.done != before.done or row.state in ("idle", "waiting", "blocked")
        if over or (row.state == "ready" and self.rules.permits_end_with_the_lease):
            row = row._replace(permit=False)
        if row.state != "waiting":
            row = row._replace(held_back=False)
        return where._replace(rows=put(where.rows, user, row))

    def at(self, state: State, index: int, worker: Worker) -> State:
        if worker.step == "working" and not any(worker.holds):
            worker = self.nothing()
        return state._replace(workers=put(state.workers, index, worker))

    def hold(self, state: State, index: int, user: int, hold: Hold | None) -> State:
        worker = state.workers[index]
        return self.at(state, index, worker._replace(holds=put(worker.holds, user, hold)))

    def fenced(self, state: State, user: int) -> State:
        """The fence has grown: nobody's is the newest."""
        workers = tuple(
            w._replace(holds=put(w.holds, user, h._replace(newest=False))) if (h := w.holds[user]) else w
            for w in state.workers
        )
        return state._replace(workers=workers)

    def leave(self, state: State, index: int, user: int, hold: Hold, new: str) -> State:
        """The worker has done with the queue; it is in that state from now on, if it is still the worker's."""
        if self.mine(state, user, hold) and not state.rows[user].locked:
            state = self.row(state, user, state=new, holder=-1, alive=False)
        return self.hold(state, index, user, None)

    def unacked(self, state: State, user: int, hold: Hold) -> State:
        """RabbitMQ puts what was not acked back to its place."""
        if not hold.message or (hold.gen == 0 and user in state.silent):
            return state
        queue = state.queues[user]
        back = (hold.message, *queue[hold.gen])[: self.room]
        return state._replace(queues=put(state.queues, user, put(queue, hold.gen, back)))
