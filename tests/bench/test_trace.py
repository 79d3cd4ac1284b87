"""The checks that every peer's runs are put through."""

from pathlib import Path

import pytest

from bench.trace import FOLDER, HeadFailed, Run, Trace, check, perform

JOBS = [{"user": 1, "n": 0}, {"user": 1, "n": 1}, {"user": 2, "n": 0}]
GOOD = [Run(1, 0, 1, 1.0, 2.0), Run(2, 0, 1, 1.5, 3.0), Run(1, 1, 1, 2.0, 3.0)]


def violations(*runs: Run) -> dict[str, int]:
    return {name: count for name, count in vars(check(sorted(runs, key=lambda run: run.began), JOBS)).items() if count}


def test_runs_in_order_have_nothing_against_them() -> None:
    assert violations(*GOOD) == {}


def test_a_job_that_begins_before_the_one_before_it_is_over_is_counted() -> None:
    assert violations(*GOOD[:2], Run(1, 1, 1, 1.9, 3.0)) == {"overtook": 1, "at_once": 1}


def test_a_job_that_passes_one_that_failed_is_counted() -> None:
    failed, passed, again = Run(1, 0, 0, 1.0, 2.0), Run(1, 1, 1, 2.0, 3.0), Run(1, 0, 1, 4.0, 5.0)
    assert violations(failed, passed, again, GOOD[1]) == {"overtook": 1}
    assert violations(failed, Run(1, 0, 1, 2.0, 3.0), Run(1, 1, 1, 3.0, 4.0), GOOD[1]) == {}


def test_a_job_that_nobody_ran_and_one_that_ran_again_are_counted() -> None:
    assert violations(*GOOD[:2], Run(2, 0, 1, 5.0, 6.0)) == {"lost": 1, "repeated": 1}


def test_what_a_worker_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = Trace(tmp_path / "trace")
    monkeypatch.setenv(FOLDER, str(trace.folder))
    trace.clear()
    with pytest.raises(HeadFailed):
        perform({"user": 7, "n": 3, "ms": 0, "fail": True})
    assert perform({"user": 7, "n": 3, "ms": 1, "fail": True}) == {"n": 3}
    first, second = trace.runs()
    assert (first.user, first.n, first.succeeded) == (7, 3, 0)
    assert second.succeeded
    assert second.ended - second.began >= 0.001
    assert (trace.count(), trace.succeeded()) == (2, 1)
    trace.clear()
    assert trace.count() == 0
