"""One statement for what several threads of a process ask at the same time: the first to arrive asks for all.

A statement costs PostgreSQL about the same for one queue as for ten. Who is alone waits for nobody.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

LARGEST_GROUP = 64  # more share no statement, unless one of them asks for as many

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Asked(Generic[Item, Answer]):
    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.answers: Sequence[Answer] | None = None
        self.error: BaseException | None = None
        self.waits = threading.Lock()  # until it has its answers, or is to ask for all who wait
        self.waits.acquire()


class Group(Generic[Item, Answer]):
    """`ask` gets the items of one or more threads, and has an answer for each, in their order."""

    def __init__(self, ask: Callable[[Sequence[Item]], Sequence[Answer]]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._waiting: deque[_Asked[Item, Answer]] = deque()
        self._busy = False  # somebody asks

    def ask(self, items: Sequence[Item]) -> Sequence[Answer]:
        """The answers to these. Raises what `ask` raised: then nobody of the group has an answer."""
        mine: _Asked[Item, Answer] = _Asked(items)
        with self._lock:
            self._waiting.append(mine)
            is_first, self._busy = not self._busy, True
        if not is_first:
            mine.waits.acquire()
        if mine.answers is None and mine.error is None:
            self._ask_for_all()
        if mine.error is not None:
            raise mine.error
        assert mine.answers is not None  # noqa: S101  (for the type checker)
        return mine.answers

    def _ask_for_all(self) -> None:
        """The caller is the first of those who wait; whoever comes meanwhile waits for the next statement."""
        group = self._next_group()
        try:
            answers = self._ask([item for one in group for item in one.items])
            for one in group:
                one.answers, answers = answers[: len(one.items)], answers[len(one.items) :]
        except BaseException as error:  # whatever it is, nobody may wait for ever
            for one in group:
                one.error = error
        with self._lock:
            self._busy = bool(self._waiting)
            others = [*group[1:], *([self._waiting[0]] if self._waiting else [])]
        for one in others:
            one.waits.release()

    def _next_group(self) -> list[_Asked[Item, Answer]]:
        with self._lock:
            group = [self._waiting.popleft()]
            size = len(group[0].items)
            while self._waiting and size + len(self._waiting[0].items) <= LARGEST_GROUP:
                group.append(self._waiting.popleft())
                size += len(group[-1].items)
        return group
