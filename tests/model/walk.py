"""Walks a model: every state of a small one, or at random through a large one."""

from collections import deque
from dataclasses import dataclass
from random import Random

from tests.model.protocol import Protocol
from tests.model.state import State, Violation


@dataclass(frozen=True)
class Walked:
    """What came of it: how many states there are, and, where a promise is broken, which one and what led there."""

    states: int
    broken: str = ""
    trail: tuple[str, ...] = ()


def everywhere(protocol: Protocol, most: int = 5_000_000) -> Walked:
    """Every reachable state: whether S1 and S2 hold in each, and L: each can reach one where all is finished."""
    start = protocol.start
    parent: dict[State, tuple[State, str] | None] = {start: None}
    before: dict[State, list[State]] = {}
    todo = deque([start])
    while todo:
        state = todo.popleft()
        try:
            steps = list(protocol.steps(state))
        except Violation as violation:
            return Walked(len(parent), str(violation), trail(state, parent))
        for step in steps:
            if step.state not in parent:
                parent[step.state] = (state, step.name)
                todo.append(step.state)
            if not step.fault:
                before.setdefault(step.state, []).append(state)
        if len(parent) > most:
            return Walked(len(parent), f"more than {most} states")
    good = deque(state for state in parent if protocol.finished(state))
    can_finish = set(good)
    while good:
        for state in before.get(good.popleft(), ()):
            if state not in can_finish:
                can_finish.add(state)
                good.append(state)
    for state in parent:
        if state not in can_finish:
            return Walked(len(parent), f"L: {len(parent) - len(can_finish)} states never finish", trail(state, parent))
    return Walked(len(parent))


def trail(state: State, parent: dict[State, tuple[State, str] | None]) -> tuple[str, ...]:
    names: list[str] = []
    while found := parent[state]:
        state, name = found
        names.append(name)
    return tuple(reversed(names))


def at_random(protocol: Protocol, seed: int, walks: int, longest: int = 2000) -> Walked:
    """So many walks, faults first seldom, then never: S1 and S2 hold all the way, and each walk comes to its end."""
    random = Random(seed)
    seen = 0
    for _ in range(walks):
        state, names = protocol.start, []
        for _ in range(longest):
            if protocol.finished(state) and not state.faults:
                break
            try:
                steps = list(protocol.steps(state))
            except Violation as violation:
                return Walked(seen, str(violation), tuple(names))
            good = [step for step in steps if not step.fault]
            bad = [step for step in steps if step.fault]
            step = random.choice(bad if bad and (not good or random.random() < 0.1) else good or steps)
            state, seen = step.state, seen + 1
            names.append(step.name)
        else:
            return Walked(seen, "L: a walk did not come to its end", tuple(names))
    return Walked(seen)
