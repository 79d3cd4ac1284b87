"""A Redis that is dead, hangs or comes back costs others next to nothing."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import structlog

from project import redis as redis_client
from project.redis import RedisUnavailable, Script, call, hint

Answer = Callable[[socket.socket], None]


@pytest.fixture
def elsewhere(another_redis: Callable[[str], None]) -> Callable[[int], None]:
    """Points the client at another port."""
    return lambda port: another_redis(f"redis://127.0.0.1:{port}/0")


@pytest.fixture
def hanging() -> Iterator[int]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def seconds(act: Callable[[], Any]) -> float:
    started = time.monotonic()
    act()
    return time.monotonic() - started


def test_a_command_gets_its_reply() -> None:
    call("SET", "test:key", "väl", "PX", 10_000)
    assert call("GET", "test:key") == "väl".encode()


def test_a_dead_redis_is_unavailable_and_not_asked_again_at_once(elsewhere: Callable[[int], None]) -> None:
    elsewhere(free_port())
    with pytest.raises(RedisUnavailable):
        call("PING")

    def many() -> None:
        for _ in range(1000):
            assert not hint("channel")

    assert seconds(many) < 0.5


def test_a_hanging_redis_costs_one_timeout(elsewhere: Callable[[int], None], hanging: int) -> None:
    elsewhere(hanging)
    assert seconds(lambda: hint("channel")) < 4 * redis_client.TIMEOUT
    assert seconds(lambda: hint("channel")) < 0.05


def test_while_it_hangs_one_thread_at_a_time_finds_out(
    elsewhere: Callable[[int], None], hanging: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(hanging)
    hint("channel")
    monkeypatch.setattr(redis_client._breaker, "next_try", 0)
    took: list[float] = []
    threads = [threading.Thread(target=lambda: took.append(seconds(lambda: hint("x")))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one > redis_client.TIMEOUT / 2 for one in took) == 1


def test_a_redis_that_comes_back_is_used_again(
    elsewhere: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_client, "PAUSE", 0.05)
    real = redis_client._connection
    elsewhere(free_port())
    assert not hint("channel")
    monkeypatch.setattr(redis_client, "_connection", real)
    time.sleep(0.06)
    assert hint("channel")
    assert redis_client._breaker.closed


def test_a_connection_that_the_server_closed_is_no_error() -> None:
    call("CLIENT", "SETNAME", "test-victim")
    own = call("CLIENT", "ID")
    with redis.Redis.from_url(redis_client.settings.ENV.redis_url) as other:
        other.client_kill_filter(_id=own)
    assert call("PING") == b"PONG"


def test_a_call_that_was_interrupted_does_not_answer_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    call("PING")

    class TimeLimit(BaseException):
        pass

    with monkeypatch.context() as interrupted:

        def interrupt(*_: Any, **__: Any) -> Any:
            raise TimeLimit

        interrupted.setattr(redis_client._connection.connection, "read_response", interrupt)
        with pytest.raises(TimeLimit):
            call("ECHO", "left behind")
    assert call("PING") == b"PONG"


def test_a_wrong_command_is_an_error_of_ours_told_once_and_redis_stays_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_client, "_reported", set())
    monkeypatch.setattr(redis_client, "log", structlog.get_logger())
    call("SET", "test:text", "no hash", "PX", 10_000)
    wrong: list[Callable[[], Any]] = [
        lambda: call("HGET", "test:text", "n"),
        lambda: call("NONSENSE"),
        lambda: Script("return nonsense(")([], []),
        lambda: Script("return redis.call('HGET', KEYS[1], 'n')")(["test:text"], []),
        lambda: call("SET", "test:text", None),
    ]
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            for one in wrong:
                with pytest.raises(RedisUnavailable):
                    one()
                assert call("PING") == b"PONG"
    assert [line["log_level"] for line in logs] == ["error"] * len(wrong)


def test_a_script_survives_a_server_that_forgot_it() -> None:
    script = Script("return ARGV[1]")
    for _ in range(2):
        assert script([], ["x"]) == b"x"
        call("SCRIPT", "FLUSH")


def test_who_commits_for_others_never_waits_to_see_whether_redis_is_back(
    elsewhere: Callable[[int], None], hanging: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(hanging)
    monkeypatch.setattr(redis_client, "PAUSE", 0.0)
    script = Script("return 1")
    with pytest.raises(RedisUnavailable):
        script([], [], probe=False)  # the first one finds out

    def many() -> None:
        for _ in range(100):
            with pytest.raises(RedisUnavailable):
                script([], [], probe=False)

    assert seconds(many) < redis_client.TIMEOUT


def test_a_thread_that_leaves_probing_to_others_never_waits_to_see_whether_redis_is_back(
    elsewhere: Callable[[int], None], hanging: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(hanging)
    monkeypatch.setattr(redis_client, "PAUSE", 0.0)
    assert not redis_client.hint("changed")  # the first one finds out
    took: list[float] = []

    def many() -> None:
        redis_client.leave_probing_to_others()
        took.append(seconds(lambda: [redis_client.hint("changed") for _ in range(100)]))

    thread = threading.Thread(target=many)
    thread.start()
    thread.join()
    assert took[0] < redis_client.TIMEOUT


def test_each_thread_has_its_own_connection() -> None:
    ids = {call("CLIENT", "ID")}
    thread = threading.Thread(target=lambda: ids.add(call("CLIENT", "ID")))
    thread.start()
    thread.join()
    assert len(ids) == 2
