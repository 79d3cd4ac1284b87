"""`./run demo` keeps what it promises, and sees what was not kept."""

import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from scripts.place import ROOT
from scripts.run import demo_checks
from scripts.run.client import ACCEPTED
from scripts.run.crowd import Demonstrator, Program
from scripts.servers import redis
from scripts.servers.marks import Mark, machine
from scripts.servers.redis import Redis

WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')
KEYED = {"DEL", "EXISTS", "EXPIRE", "GET", "HGET", "HGETALL", "HINCRBY", "HMGET", "HSET", "MGET", "PUBLISH", "SET"} | {
    *("HDEL", "SUBSCRIBE", "TTL", "UNSUBSCRIBE")
}
KEYLESS = {"AUTH", "CLIENT", "DBSIZE", "HELLO", "INFO", "PING", "SCAN", "SCRIPT", "SELECT", "TIME"}
WITH_KEYS = {"EVAL", "EVALSHA"}  # number of keys, then they
OF_THE_NUMBER = {redis.MARK, redis.SHARERS}


def test_every_promise_is_kept(environment: dict[str, str], tmp_path: Path) -> None:
    """Also where Redis has no free number: one is shared, and all that is done there is done under a prefix."""
    with Redis(tmp_path / "redis") as server:
        for number in range(15):
            assert redis.own_number(server.url, Mark(f"user-{number}", str(ROOT), machine()))
        with socket.create_connection(("127.0.0.1", server.port)) as monitor:
            monitor.sendall(f"AUTH {server.password}\r\nMONITOR\r\n".encode())
            demo = subprocess.Popen(
                [sys.executable, "-m", "scripts.run", "demo"],
                cwd=ROOT,
                env=environment | {"REDIS_URL": server.url},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            seen: list[str] = []
            reader = threading.Thread(target=lambda: seen.extend(monitor.makefile(errors="replace")))
            reader.start()
            said, _ = demo.communicate()
            monitor.shutdown(socket.SHUT_RDWR)
            reader.join()
        assert demo.returncode == 0, said
        assert "Every promise was kept." in said
        keys = {key for line in seen for key in keys_of(WORD.findall(line)) if key not in OF_THE_NUMBER}
        assert len(keys) > 10
        assert [key for key in keys if not key.startswith("ordered_work_demo_")] == []
        with redis.connect(redis.with_number(server.url, 15)) as client:
            assert client.keys() == [redis.MARK], "it gave back what it had there"


def keys_of(words: list[str]) -> list[str]:
    """The keys and channels of a command as Redis shows it."""
    if not words:  # +OK
        return []
    name, *rest = words
    name = name.upper()
    if name in KEYLESS:
        return []
    if name in WITH_KEYS:
        return rest[2 : 2 + int(rest[1])]
    assert name in KEYED | {"UNLINK", "HKEYS", "HEXISTS"}, f"has {name} keys?"
    return rest if name in ("MGET", "DEL", "SUBSCRIBE", "UNLINK") else rest[:1]


def request(sequence: int, created: float, started: float, finished: float, **more: Any) -> dict[str, Any]:
    times = {"created_at": created, "started_at": started, "finished_at": finished}
    shown = {name: datetime.fromtimestamp(at, UTC).isoformat() for name, at in times.items()}
    return {"sequence": sequence, "status": "succeeded", "attempt": 1, "error": None} | shown | more


def user(name: str, *requests: dict[str, Any], accepted: int | None = None, **others: int) -> Demonstrator:
    answers = Counter({ACCEPTED: len(requests) if accepted is None else accepted} | others)
    work = [{"kind": "demo.echo", "payload": 1}]
    programs = [Program([work] * answers.total(), connections=1)]
    return Demonstrator(name, "some load", programs, answers=answers, requests=list(requests))


FLOOD = user("flo", request(1, 0, 1, 2), request(2, 0, 2, 9))
QUIET = user("sam", request(1, 1, 1.5, 3), request(2, 1, 3.1, 4))


def judge(*users: Demonstrator) -> tuple[int, str]:
    console = Console(width=120, record=True, quiet=True)
    with console.capture():
        status = demo_checks.give(console, list(users), 9.0)
    return status, console.export_text()


def test_a_run_in_which_all_is_well_is_said_to_be_so() -> None:
    status, _ = judge(FLOOD, QUIET)
    assert status == 0


@pytest.mark.parametrize(
    ("quiet", "fault"),
    [
        (user("sam", request(1, 1, 2, 3), request(2, 1, 2.5, 4)), "overlap"),
        (user("sam", request(1, 1, 5, 6), request(2, 1, 2, 3)), "order"),
        (user("sam", request(1, 1, 1.5, 2), request(3, 1, 2, 3)), "order"),
        (user("sam", request(1, 1, 1.5, 2), accepted=2), "count"),
        (user("sam", request(1, 1, 1.5, 2), **{"429 full": 1}), "count"),
        (user("sam", request(1, 1, 1.5, 2, status="failed", error={"type": "x"})), "count"),
    ],
)
def test_what_was_not_kept_is_seen(quiet: Demonstrator, fault: str) -> None:
    assert demo_checks.broken(quiet)[fault]
    assert judge(FLOOD, quiet)[0] == 1


def test_a_quiet_user_who_waited_for_the_flood_is_seen() -> None:
    slow = user("sam", request(1, 1, 5, 6))
    assert demo_checks.quiet_waits([FLOOD, slow]) == ([4.0], 9.0)
    assert judge(FLOOD, slow)[0] == 1


def test_waiting_for_ones_own_requests_is_no_waiting_for_others() -> None:
    patient = user("sam", request(1, 1, 1, 8), request(2, 1, 8.5, 9))
    waits, _ = demo_checks.quiet_waits([FLOOD, patient])
    assert waits == [0.0, 0.5]


def test_a_flood_that_nobody_met_proves_nothing() -> None:
    late = user("sam", request(1, 20, 20, 21))
    assert judge(FLOOD, late)[0] == 1
