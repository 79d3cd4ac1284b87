"""A process that makes one hash at a time, on a lower priority than whatever else the machine does.

A thread's own priority counts only among the threads of its session (Linux' autogroup) or container: beside PostgreSQL
a hashing thread of the API counted as much as it. A process can lower its whole session. What it computes also shares
neither the interpreter nor the memory of the process that serves requests.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

NICE = 10  # a tenth of what others get, where nothing is idle: a hash then takes seconds, not for ever


class HashingProcess:
    """Started when it is first asked, and again after it died; it ends with the process that asks."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, *question: Any) -> Any:
        """The answer of the function below that `question` begins with. Raises OSError: it died twice."""
        try:
            return self._ask(question)
        except OSError:
            return self._ask(question)

    def _ask(self, question: Any) -> Any:
        process = self._process = self._process or subprocess.Popen(  # noqa: S603  (our own)
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018  (pipes)
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise BrokenPipeError("the hashing process died")
        except OSError:
            self.close()
            raise
        return json.loads(answer)

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
    """Whether it is the hash of this password."""
    from argon2 import PasswordHasher
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return PasswordHasher().verify(encoded, password)
    except (VerificationError, InvalidHashError):
        return False


def step_back() -> None:
    """Lower the priority of this process and its session; where there is no such thing, nothing happens."""
    with suppress(OSError, AttributeError):
        os.nice(NICE)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICE))


def main() -> None:
    """Answer until whoever asks is gone."""
    step_back()
    for line in sys.stdin.buffer:
        function, *arguments = json.loads(line)
        answer = {"encode": encode, "verify": verify}[function](*arguments)  # type: ignore[operator]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
