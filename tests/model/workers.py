"""What a worker may do next: lease, begin, record, give back."""

from collections.abc import Iterator
from itertools import chain, combinations

from tests.model.state import Hold, State, Step, Tables, Violation, Worker, put


class Workers(Tables):
    """The steps of workers."""

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
                after = self.fenced(self.row(after, user, state="draining", worker_id=index, alive=True), user)
                holds = put(holds, user, Hold(True, row.gen, row.done, row.pub))
            yield Step(f"w{index} leases {users}", self.at(after, index, Worker("asking", holds)))

    def give_back(self, state: State, index: int, me: Worker) -> Iterator[Step]:
        if not self.rules.reconcile:
            return
        for user, row in enumerate(state.rows):
            known = me.step != "asking" and me.holds[user] is not None
            if row.state == "draining" and row.worker_id == index and row.alive and not row.locked and not known:
                given = self.row(state, user, state="ready", worker_id=-1, alive=False)
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
                    given = self.row(given, user, state="ready", worker_id=-1, alive=False)
        told = given
        for user in rest:
            hold = me.holds[user]
            assert hold is not None
            told = self.hold(told, index, user, None)
            if hold.outcome != "succeeded" or not self.mine(state, user, hold) or self.goes_on(hold).message:
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
                first, last = queue[0]
                got = hold._replace(message=queue[0], place=first)
                if self.rules.sequence_check:
                    fits = first <= hold.done + 1 <= last <= hold.pub
                    got = got._replace(place=hold.done + 1) if fits else hold
                yield Step(f"{name} gets {queue[0]}", self.hold(rest, index, user, got))
            elif not self.mine(state, user, hold) or row.locked:
                if not self.mine(state, user, hold):
                    yield Step(f"{name} is fenced out", self.hold(state, index, user, None))
            elif row.pub == hold.done or not self.rules.recheck_before_idle:
                yield Step(f"{name} goes idle", self.leave(state, index, user, hold, "idle"))
            elif hold.seen != row.pub:
                yield Step(
                    f"{name} looks again", self.hold(state, index, user, hold._replace(seen=row.pub, pub=row.pub))
                )
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
            kept = self.goes_on(hold)._replace(done=after.done, pub=after.pub) if goes_on else None
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

    def goes_on(self, hold: Hold) -> Hold:
        """Once that request is over: the message, if it names more than that one, is not acked."""
        if hold.message and hold.message[1] > hold.place:
            return Hold(True, hold.gen, hold.place, hold.pub, hold.message, hold.place + 1)
        return Hold(True, hold.gen, hold.place, hold.pub)

    def recorded(self, state: State, user: int, hold: Hold) -> State:
        row = state.rows[user]
        if hold.outcome == "failed":
            new = "waiting" if row.attempt == 0 else "blocked"
            return self.row(state, user, state=new, worker_id=-1, alive=False, attempt=row.attempt + 1)
        if hold.place != row.done + 1:
            raise Violation(f"S1: {hold.place} of user {user} is recorded after {row.done}")
        pub = max(row.pub, row.done + 1)
        goes_on = pub > row.done + 1
        new = "draining" if goes_on else "idle"
        worker_id, alive = (row.worker_id, row.alive) if goes_on else (-1, False)
        return self.row(state, user, done=row.done + 1, pub=pub, state=new, worker_id=worker_id, alive=alive, attempt=0)

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
                after = self.hold(after, index, user, self.goes_on(hold)._replace(done=row.done, pub=row.pub))
        yield Step(f"w{index} catches up", after)
