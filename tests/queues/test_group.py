"""What several threads ask at the same time is asked once."""

import threading
from collections.abc import Callable, Sequence

import pytest

from queues.lifecycle import group
from queues.lifecycle.group import Group
from tests.waiting import until


class Server:
    """Answers with the squares of what it is asked, as soon as it may."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.may_answer = threading.Event()
        self.error: BaseException | None = None
        self.group: Group[int, int] = Group(self._answer)

    def _answer(self, items: Sequence[int]) -> list[int]:
        self.asked.append(list(items))
        assert self.may_answer.wait(10)
        if self.error is not None:
            raise self.error
        return [item * item for item in items]

    def ask_beside(self, *wanted: Sequence[int]) -> tuple[list[threading.Thread], list[object]]:
        """Each in a thread of its own, the first before all others."""
        told: list[object] = [None] * len(wanted)
        threads = [threading.Thread(target=self._note, args=(told, n, items)) for n, items in enumerate(wanted)]
        threads[0].start()
        until(lambda: self.asked)
        for n, thread in enumerate(threads[1:], 1):
            thread.start()
            until(lambda n=n: len(self.group._waiting) == n)  # type: ignore[misc]
        return threads, told

    def _note(self, told: list[object], n: int, items: Sequence[int]) -> None:
        try:
            told[n] = list(self.group.ask(items))
        except ZeroDivisionError as error:
            told[n] = error


def ended(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "it waits for ever"


def test_who_comes_while_others_ask_shares_the_next_statement() -> None:
    server = Server()
    threads, told = server.ask_beside([1, 2], [3], [4, 5])
    server.may_answer.set()
    ended(threads)
    assert told == [[1, 4], [9], [16, 25]]
    assert server.asked == [[1, 2], [3, 4, 5]]
    assert server.group.ask([6]) == [36], "who is alone waits for nobody"


def test_an_error_is_everybodys_and_the_next_ask_is_asked() -> None:
    server = Server()
    server.error = ZeroDivisionError("as asked for")
    threads, told = server.ask_beside([1], [2], [3])
    server.may_answer.set()
    ended(threads)
    assert [type(one) for one in told] == [ZeroDivisionError] * 3
    assert server.asked == [[1], [2, 3]]
    server.error = None
    assert server.group.ask([4]) == [16]


def test_a_statement_has_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "LARGEST_GROUP", 3)
    server = Server()
    threads, told = server.ask_beside([1], [2, 3], [4], [5, 6, 7, 8], [9])
    server.may_answer.set()
    ended(threads)
    assert told == [[1], [4, 9], [16], [25, 36, 49, 64], [81]]
    assert server.asked == [[1], [2, 3, 4], [5, 6, 7, 8], [9]]


def test_many_threads_at_once_each_have_their_own_answers() -> None:
    server = Server()
    server.may_answer.set()
    wrong: list[int] = []

    def ask(n: int) -> None:
        wrong.extend(item for item in range(n, n + 300) if server.group.ask([item, -item]) != [item * item] * 2)

    tasks: list[Callable[[], None]] = [lambda n=n: ask(n * 1000) for n in range(8)]  # type: ignore[misc]
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    ended(threads)
    assert wrong == []
