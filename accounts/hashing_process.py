"""A process that makes one hash at a time, on a lower priority than whatever else the machine does.

A thread's own priority counts only among the threads of its session (Linux' autogroup) or container: beside PostgreSQL
a hashing thread of the API counted as much as it. A process can lower its whole session. What it computes also shares
neither the interpreter nor the memory of the process that serves requests.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

NICE = 10  # a tenth of what others get, where nothing is idle: a hash then takes seconds, not for ever
HUNG_SECONDS = 30.0  # who has not answered by then is killed: a hash takes 0.35 s of a core
NOT_FOUND_OUT = (-22, -33)  # of argon2.h: ARGON2_MEMORY_ALLOCATION_ERROR, ARGON2_THREAD_FAIL
SESSION_SECONDS = 3.0  # the kernel takes a session's priority from one process in 100 ms; the others try again so long


class HashingProcess:
    """Started when it is first asked, and again after it died; it ends with the process that asks."""

    def __init__(self, hung_seconds: float = HUNG_SECONDS) -> None:
        self.hung_seconds = hung_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, *question: Any) -> Any:
        """The answer of the function below that `question` begins with. Raises OSError: it died or hung twice."""
        try:
            return self._ask(question)
        except OSError:
            return self._ask(question)

    def _ask(self, question: Any) -> Any:
        process = self._process = self._process or subprocess.Popen(  # noqa: S603  (our own)
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018  (pipes)
        hung = threading.Timer(self.hung_seconds, process.kill)
        hung.daemon = True
        hung.start()
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer.endswith(b"\n"):
                raise BrokenPipeError("the hashing process died")
            return json.loads(answer)
        except BaseException:  # its answer would be taken for the next question's
            self.close()
            raise
        finally:
            hung.cancel()

    def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(OSError), process:  # closes the pipes, one of which may be broken
                process.wait()


def encode(password: str, salt: str, time_cost: int, memory_cost: int, parallelism: int, length: int) -> str:
    """The hash, with its parameters."""
    from argon2.low_level import Type, hash_secret

    return hash_secret(
        password.encode(), salt.encode(), time_cost, memory_cost, parallelism, length, Type.ID
    ).decode("ascii")  # fmt: skip


def verify(password: str, encoded: str) -> bool:
    """Whether it is the hash of this password. Raises VerificationError: there is no memory or thread to find out."""
    from argon2 import PasswordHasher
    from argon2.exceptions import InvalidHashError, VerificationError
    from argon2.low_level import error_to_str

    try:
        return PasswordHasher().verify(encoded, password)
    except InvalidHashError:
        return False
    except VerificationError as error:
        if str(error) in map(error_to_str, NOT_FOUND_OUT):
            raise
        return False


ANSWERS: dict[str, Callable[..., Any]] = {"encode": encode, "verify": verify}


def step_back() -> None:
    """Lower the priority of this process and its session; where there is no such thing, nothing happens."""
    with suppress(OSError, AttributeError):
        os.nice(NICE)
    deadline = time.monotonic() + SESSION_SECONDS
    with suppress(OSError):
        while not _lower_session() and time.monotonic() < deadline:
            time.sleep(0.02)


def _lower_session() -> bool:
    """False: another process did so within the last 100 ms (EAGAIN, see sched/autogroup.c of Linux). Raises OSError."""
    try:
        Path("/proc/self/autogroup").write_text(str(NICE))
    except BlockingIOError:
        return False
    return True


def main() -> None:
    """Answer until whoever asks is gone. What raises ends this process: who asked sees that there is no answer."""
    step_back()
    for line in sys.stdin.buffer:
        function, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(ANSWERS[function](*arguments)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
