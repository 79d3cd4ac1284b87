"""A limit lets exactly so many pass, whoever comes at the same time, and goes on without Redis as it says it does."""

import threading
import time
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import RequestFactory

from project import redis
from project.rest.problems import TooManyRequests
from project.web import rate_limit
from project.web.client_ip import address_key, client_address
from project.web.rate_limit import Limit, give_back, take
from tests.accounts.people import at_once

_keys = count()


@pytest.fixture
def key() -> str:
    return f"somebody-{next(_keys)}"


@pytest.fixture
def without_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> Any:
        raise redis.RedisUnavailable

    monkeypatch.setattr(redis, "call", gone)
    monkeypatch.setattr(rate_limit, "_local", rate_limit._Local())


def passes(limit: Limit, key: str, cost: int = 1) -> bool:
    try:
        take(SimpleNamespace(rate_limits=[]), limit.claim(key, cost))
    except TooManyRequests:
        return False
    return True


def test_of_200_at_once_exactly_the_quota_passes(key: str) -> None:
    limit = Limit("test", 50)
    assert sum(at_once(200, lambda _: passes(limit, key))) == 50


def test_keys_and_names_are_counted_apart(key: str) -> None:
    limit = Limit("test", 1)
    assert passes(limit, key)
    assert passes(limit, key + "x")
    assert passes(Limit("other", 1), key)
    assert not passes(limit, key)


def test_no_window_ever_holds_more_than_the_quota(key: str) -> None:
    limit = Limit("test", 5, window=1)
    times: list[float] = []
    until = time.monotonic() + 4.5
    while time.monotonic() < until:
        before = time.time()
        if passes(limit, key):
            times.append(before)
        time.sleep(0.01)
    assert len(times) >= 10
    assert all(later - earlier > 1 for earlier, later in zip(times, times[5:], strict=False))


def test_retry_after_is_when_it_fits_again_and_not_before(key: str) -> None:
    limit = Limit("test", 1, window=1)
    assert passes(limit, key)
    with pytest.raises(TooManyRequests) as caught:
        take(SimpleNamespace(rate_limits=[]), limit.claim(key))
    wait = int(caught.value.headers["Retry-After"])
    assert 1 <= wait <= 2
    time.sleep(wait)
    assert passes(limit, key)


def test_a_batch_is_counted_whole_or_not_at_all(key: str) -> None:
    limit = Limit("test", 10)
    assert passes(limit, key, 8)
    assert not passes(limit, key, 3)
    assert passes(limit, key, 2)
    assert not passes(limit, key, 1)
    assert not passes(limit, key + "x", 11)


def test_several_limits_are_taken_together_or_not_at_all(key: str) -> None:
    wide, narrow = Limit("wide", 10), Limit("narrow", 1)
    take(SimpleNamespace(rate_limits=[]), wide.claim(key), narrow.claim(key))
    for _ in range(5):
        with pytest.raises(TooManyRequests):
            take(SimpleNamespace(rate_limits=[]), wide.claim(key), narrow.claim(key))
    assert sum(passes(wide, key) for _ in range(20)) == 9


def test_what_is_given_back_can_be_taken_again(key: str) -> None:
    limit = Limit("test", 1)
    for _ in range(3):
        give_back(take(SimpleNamespace(rate_limits=[]), limit.claim(key)))
    assert passes(limit, key)
    assert not passes(limit, key)


def test_the_headers_say_what_is_left(key: str) -> None:
    request = SimpleNamespace(rate_limits=[])
    take(request, Limit("test", 5).claim(key, 2))
    (taken,) = request.rate_limits
    assert taken.policy == '"test";q=5;w=60'
    assert taken.state == f'"test";r=3;t={taken.reset}'


def test_one_limit_costs_one_round_trip(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = Limit("test", 5)
    passes(limit, key)
    commands = []
    real = redis.call

    def counted(*command: Any, **how: Any) -> Any:
        commands.append(command)
        return real(*command, **how)

    monkeypatch.setattr(redis, "call", counted)
    passes(limit, key)
    assert len(commands) == 1


def test_of_several_callers_each_is_counted_alone(key: str) -> None:
    limit = Limit("test", 2)
    other = f"{key}-other"
    counted = rate_limit.count_each([limit.claim(key), limit.claim(other), limit.claim(key), limit.claim(key)])
    assert [(fits, taken[0].remaining) for fits, taken in counted] == [(True, 1), (True, 1), (True, 0), (False, 0)]
    assert passes(limit, other)
    assert not passes(limit, other)


@pytest.mark.parametrize("broken", [("SET", "no hash"), ("HSET", "n", "1.5"), ("HSET", "a", "x", "n", "y")])
def test_what_redis_makes_nothing_of_is_nobody_elses_trouble(key: str, broken: tuple[str, ...]) -> None:
    limit = Limit("test", 2)
    command, *value = broken
    redis.call(command, limit.claim(f"{key}-broken").redis_key, *value)
    counted = rate_limit.count_each([limit.claim(name) for name in (key, f"{key}-broken", f"{key}-other")])
    assert [fits for fits, _ in counted] == [True, False, True]
    assert passes(limit, key)
    assert not passes(limit, key)
    redis.call("DEL", limit.claim(f"{key}-broken").redis_key)


def test_counts_are_forgotten_by_themselves(key: str) -> None:
    claim = Limit("test", 5).claim(key)
    take(SimpleNamespace(rate_limits=[]), claim)
    assert 0 < redis.call("TTL", claim.redis_key) <= 62


def test_submissions_go_on_without_redis(without_redis: None, key: str) -> None:
    assert rate_limit.SUBMIT.without_redis == "open"
    assert all(passes(Limit("test", 1, without_redis="open"), key) for _ in range(3))


def test_guessing_is_limited_without_redis_too(without_redis: None, key: str) -> None:
    assert rate_limit.FAILED_LOGINS.without_redis == rate_limit.LOGINS.without_redis == "local"
    limit = Limit("test", 3, window=1, without_redis="local")
    assert sum(at_once(20, lambda _: passes(limit, key))) == 3
    give_back(take(SimpleNamespace(rate_limits=[]), Limit("test2", 1, without_redis="local").claim(key)))
    assert passes(Limit("test2", 1, without_redis="local"), key)
    time.sleep(1.01)
    assert passes(limit, key)


def test_what_is_counted_without_redis_stays_small(without_redis: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "LOCAL_KEYS", 10)
    for number in range(50):
        passes(Limit("test", 3, without_redis="local"), str(number))
    assert len(rate_limit._local.times) <= 10


def counted(limit: Limit, key: str, seconds: dict[int, int]) -> None:
    """As if so many had passed so many seconds from now."""
    now = int(redis.call("TIME")[0])
    row = {now + second: number for second, number in seconds.items()}
    fields = [part for field in row.items() for part in field]
    redis.call("HSET", limit.claim(key).redis_key, *fields, "n", sum(row.values()), "a", min(row), "z", max(row))


def test_what_is_older_than_the_window_does_not_count(key: str) -> None:
    limit = Limit("test", 3)
    counted(limit, key, {-75: 7, -70: 2, -10: 1, -1: 1})
    assert [passes(limit, key) for _ in range(3)] == [True, False, False]
    assert redis.call("HGET", limit.claim(key).redis_key, "n") == b"3"


def test_retry_after_names_the_second_in_which_enough_is_over(key: str) -> None:
    limit = Limit("test", 10)
    counted(limit, key, {-50: 2, -30: 3, -5: 5})
    for cost, wait in ((2, 11), (5, 31), (6, 56)):
        with pytest.raises(TooManyRequests) as caught:
            take(SimpleNamespace(rate_limits=[]), limit.claim(key, cost))
        assert wait - 1 <= int(caught.value.headers["Retry-After"]) <= wait


def test_a_clock_that_was_set_back_forgets_nothing(key: str) -> None:
    limit = Limit("test", 2, window=1)
    counted(limit, key, {2: 1})
    assert passes(limit, key)
    time.sleep(2.1)
    assert not passes(limit, key)


FORWARDED = "198.51.100.66, 203.0.113.5, 10.0.0.2"


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, FORWARDED, "192.0.2.1"),
        (1, FORWARDED, "10.0.0.2"),
        (2, FORWARDED, "203.0.113.5"),
        (3, FORWARDED, "198.51.100.66"),
        (4, FORWARDED, "192.0.2.1"),
        (1, "", "192.0.2.1"),
        (1, "nonsense", "192.0.2.1"),
        (1, "203.0.113.5\x00", "192.0.2.1"),
        (2, "203.0.113.5, ", "203.0.113.5"),
        (1, "2001:DB8::1", "2001:db8::1"),
    ],
)
def test_an_address_is_vouched_for_by_so_many_proxies(
    settings: Any, monkeypatch: pytest.MonkeyPatch, proxies: int, forwarded: str, address: str
) -> None:
    monkeypatch.setattr(settings.ENV, "trusted_proxies", proxies)
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR=forwarded)
    assert client_address(request) == address


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix:", ""),
        ("", ""),
    ],
)
def test_one_customer_is_one_key(address: str, key: str) -> None:
    assert address_key(RequestFactory().get("/", REMOTE_ADDR=address)) == key


def test_a_limit_is_exact_across_threads_and_seconds(key: str) -> None:
    """What the script subtracts for a second that is over, it subtracts once."""
    limit = Limit("test", 30, window=1)
    passed = 0
    lock = threading.Lock()

    def knock(_: int) -> None:
        nonlocal passed
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            if passes(limit, key):
                with lock:
                    passed += 1
            time.sleep(0.005)

    at_once(8, knock)
    n, *_ = redis.call("HMGET", limit.claim(key).redis_key, "n")
    row = redis.call("HGETALL", limit.claim(key).redis_key)
    fields = dict(zip(row[::2], row[1::2], strict=True))
    assert int(n) == sum(int(value) for name, value in fields.items() if name.isdigit())
    assert 30 <= passed <= 30 * 3
