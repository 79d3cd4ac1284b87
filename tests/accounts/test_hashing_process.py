"""The processes that make hashes: each answers, dies, hangs or lacks memory, and no login pays for it."""

import os
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from accounts import hashers
from accounts.hashing_process import NICE, HashingProcess, step_back
from accounts.models import User
from project.telemetry.multiprocess import VARIABLE
from tests.accounts.people import PASSWORD, Api, at_once
from tests.waiting import until


def login(user: User) -> Any:
    return Api().post("auth/token", {"username": user.username, "password": PASSWORD})


@pytest.fixture
def process() -> Iterator[HashingProcess]:
    process = HashingProcess()
    yield process
    process.close()


def test_a_hash_is_made_in_a_process_that_steps_back_behind_everything_else(process: HashingProcess) -> None:
    encoded = process.ask("encode", PASSWORD, "saltsaltsalt", 1, 8, 1, 32)
    assert process.ask("verify", PASSWORD, encoded) is True
    assert process.ask("verify", "a-guess", encoded) is False
    assert process.ask("verify", PASSWORD, "$argon2id$broken") is False
    assert process._process is not None
    pid = process._process.pid
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(ours + NICE, 19)
    assert os.getsid(pid) == pid, "the priority of a session counts among sessions"
    with suppress(FileNotFoundError):  # a kernel without autogroup
        assert Path(f"/proc/{pid}/autogroup").read_text().endswith(f" nice {NICE}\n")


def test_a_hashing_process_that_dies_is_started_again(process: HashingProcess) -> None:
    encoded = process.ask("encode", PASSWORD, "saltsaltsalt", 1, 8, 1, 32)
    assert process._process is not None
    process._process.kill()
    process._process.wait(10)
    assert process.ask("verify", PASSWORD, encoded) is True


def test_a_hashing_process_that_hangs_is_killed_and_another_answers() -> None:
    process = HashingProcess(hung_seconds=5)
    encoded = process.ask("encode", PASSWORD, "saltsaltsalt", 1, 8, 1, 32)
    hung = process._process
    assert hung is not None
    os.kill(hung.pid, signal.SIGSTOP)
    answers: list[bool] = []
    threading.Thread(target=lambda: answers.append(process.ask("verify", PASSWORD, encoded)), daemon=True).start()
    try:
        until(lambda: answers, 30, "it answers")
    finally:
        hung.kill()
    assert answers == [True]
    assert hung.returncode == -signal.SIGKILL
    process.close()


def test_who_asks_after_an_interrupted_question_gets_their_own_answer(
    process: HashingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = process.ask("encode", PASSWORD, "saltsaltsalt", 1, 8, 1, 32)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(process._process, "stdout", Mock(readline=Mock(side_effect=KeyboardInterrupt)))
        with pytest.raises(KeyboardInterrupt):
            process.ask("verify", "a-guess", encoded)
    assert process.ask("verify", PASSWORD, encoded) is True


def test_half_an_answer_is_none(process: HashingProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = process.ask("encode", PASSWORD, "saltsaltsalt", 1, 8, 1, 32)
    with monkeypatch.context() as half:
        half.setattr(process._process, "stdout", Mock(readline=Mock(return_value=b"1")))  # a number: no True
        assert process.ask("verify", PASSWORD, encoded) is True


def test_a_session_steps_back_although_another_did_just_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses the unprivileged a second write within 100 ms."""
    refusals = iter([BlockingIOError(), BlockingIOError(), None])
    written: list[str] = []

    def write(_: Path, text: str) -> None:
        if refusal := next(refusals):
            raise refusal
        written.append(text)

    monkeypatch.setattr(os, "nice", lambda _: NICE)
    monkeypatch.setattr(Path, "write_text", write)
    step_back()
    assert written == [str(NICE)]


def test_several_hashing_processes_answer_at_once() -> None:
    processes = [HashingProcess() for _ in range(4)]
    try:
        salts = [f"saltsaltsalt{n}" for n in range(4)]
        encoded = at_once(4, lambda n: processes[n].ask("encode", PASSWORD, salts[n], 1, 8, 1, 32))
        assert at_once(4, lambda n: processes[n].ask("verify", PASSWORD, encoded[n])) == [True] * 4
        assert len({process._process.pid for process in processes if process._process}) == 4
    finally:
        for process in processes:
            process.close()


def test_nobody_without_memory_for_a_hash_is_told_that_the_password_is_wrong(
    process: HashingProcess, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.password = "argon2" + process.ask("encode", PASSWORD, "saltsaltsalt", 1, 100 * 1024, 1, 32)
    user.save()
    start = subprocess.Popen

    def small(*args: Any, **kwargs: Any) -> Any:
        child = start(*args, **kwargs)
        resource.prlimit(child.pid, resource.RLIMIT_AS, (100 * 1024 * 1024, 100 * 1024 * 1024))
        return child

    monkeypatch.setattr(hashers, "_queue", hashers.HashingQueue(1))
    monkeypatch.setattr("accounts.hashing_process.subprocess.Popen", small)
    assert login(user).status_code == 503


def test_where_no_hashing_process_can_be_started_logins_are_told_503(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError("too many processes")

    monkeypatch.setattr(hashers, "_queue", hashers.HashingQueue(1))
    monkeypatch.setattr("accounts.hashing_process.subprocess.Popen", refused)
    answer = login(user)
    assert (answer.status_code, answer["Retry-After"]) == (503, "3")


def test_a_hashing_process_ends_with_whoever_asked_it(process: HashingProcess) -> None:
    process.ask("encode", PASSWORD, "saltsaltsalt", 1, 8, 1, 32)
    child = process._process
    assert child is not None
    assert child.stdin is not None
    child.stdin.close()  # as the kernel does when its parent dies
    assert child.wait(10) == 0


def test_all_api_processes_of_a_server_share_half_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(hashers, "AT_ONCE", 1)
    entered = threading.Event()

    def another() -> None:
        with hashers.turn():
            entered.set()

    looks = Mock(side_effect=hashers._taken)
    monkeypatch.setattr(hashers, "_taken", looks)
    monkeypatch.setattr(hashers, "TURN_SECONDS", 60)
    waiting = threading.Thread(target=another)
    with hashers.turn():
        waiting.start()
        until(lambda: looks.call_count > 3)
        assert not entered.is_set()
        monkeypatch.setattr(hashers, "TURN_SECONDS", 0)
        with hashers.turn():
            pass  # a sibling that is stuck with its turn keeps nobody from logging in
    waiting.join(5)
    assert entered.is_set()
