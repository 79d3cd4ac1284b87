"""What a state of the model is made of, the rules that may be taken out, and how a state is changed."""

from dataclasses import dataclass
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
    worker_id: int = -1
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
    pub: int  # as it was heard last
    message: tuple[int, ...] = ()  # received and not acked: from which place to which
    place: int = 0  # the request that it runs, which that message names ..
    begun: bool = False  # .. and whose handler was called
    outcome: str = ""  # of that request, not recorded yet
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
    queues: tuple[tuple[tuple[tuple[int, ...], ...], ...], ...]  # user, generation: pointers, each (first, last)
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


class Tables:
    """The rules and the size of a model, and how a state is changed."""

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

    def mine(self, state: State, user: int, hold: Hold) -> bool:
        return state.rows[user].state == "draining" and (hold.newest or not self.rules.record_names_fence)

    def counted(self, state: State) -> State:
        running = sum(bool(h and h.begun and not h.outcome) for worker in state.workers for h in worker.holds)
        if self.size.limit and running > self.size.limit and not state.ran_out:
            raise Violation(f"S3: {running} run at once")
        return state

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
            state = self.row(state, user, state=new, worker_id=-1, alive=False)
        return self.hold(state, index, user, None)

    def unacked(self, state: State, user: int, hold: Hold) -> State:
        """RabbitMQ puts what was not acked back to its place."""
        if not hold.message or (hold.gen == 0 and user in state.silent):
            return state
        queue = state.queues[user]
        back = (hold.message, *queue[hold.gen])[: self.room]
        return state._replace(queues=put(state.queues, user, put(queue, hold.gen, back)))
