"""A model of the whole protocol: several users, dispatchers that lead by lease, workers that lease and record many.

    PostgreSQL  a row for each user: last >= pub >= done, a state, the holder of its lease, the generation of its queue
    RabbitMQ    a queue for each user and generation: its pointers, each of one request or of several that come one
                after another, and whether it is silent for ever
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

from tests.model.state import Dispatcher, State, Step, Worker, put
from tests.model.workers import Workers


class Protocol(Workers):
    """All that can happen next, from any state."""

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
                yield Step(f"sweep {user}", self.fenced(self.row(state, user, state="ready", worker_id=-1), user))
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
                    more = (*queues[user][gen], (pub + 1, target))[: self.room]
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
            if row.state == "draining" and row.worker_id == index:
                after = self.row(after, user, alive=False)
        return after
