"""`./run chaos`: a minute of faults, and every promise kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.chaos.command import main
from scripts.chaos.fault import STAY_SECONDS, STAYING_EVERY, plan
from scripts.chaos.faults import FAULTS
from scripts.place import ROOT, SetupError

SHORT = [name for name, fault in FAULTS.items() if not fault.stays]
STAYING = [name for name, fault in FAULTS.items() if fault.stays]
HELD = ("stay.redis-errors", "stay.silent-queue")


def test_a_seed_deals_the_same_faults_again_and_each_kind_as_often() -> None:
    dealt = plan(7, 2 * len(SHORT), stay=0)
    assert dealt == plan(7, 2 * len(SHORT), stay=0)
    assert dealt != plan(8, 2 * len(SHORT), stay=0)
    assert sorted(one.fault.name for one in dealt) == sorted([*SHORT, *SHORT])
    assert {one.fault.thing for one in plan(7, 9, ("redis", "api"))} == {"redis", "api"}


def test_one_in_twelve_faults_stays_for_half_a_minute_and_each_kind_comes_in_turn() -> None:
    dealt = plan(7, STAYING_EVERY * len(STAYING))
    stays = [one for one in dealt if one.fault.stays]
    assert sorted(one.fault.name for one in stays) == sorted(STAYING)
    assert [one.number for one in stays] == [STAYING_EVERY * n for n in range(1, len(STAYING) + 1)]
    assert dealt == plan(7, STAYING_EVERY * len(STAYING))
    for one in stays:
        assert STAY_SECONDS[0] <= one.lasts - one.fault.grace <= STAY_SECONDS[1]
    assert [one.lasts for one in plan(7, 2, ("stay.locked-row",), stay=4)] == [4, 4]


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(SetupError, match=r"no fault is called flood; there are worker\.kill"):
        main(["--only", "flood"])


@pytest.mark.timeout(400)
def test_every_promise_is_kept_whatever_happens(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.json"
    chaos = subprocess.run(
        [
            sys.executable,
            "-m",
            "scripts.run",
            "chaos",
            "--seed",
            "20",
            "--seconds",
            "60",
            "--only",
            ",".join([*SHORT, *HELD]),
            "--stay",
            "8",
            "--rate",
            "80",
            "--json",
            str(ledger),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    said = chaos.stdout + chaos.stderr
    assert chaos.returncode == 0, said
    figures = json.loads(ledger.read_text())
    assert figures["kept"]
    assert set(figures["violations"].values()) == {0}
    assert figures["faults struck"] > len(SHORT) / 4, "one of them stayed"
    assert set(figures["bystanders"]) & set(HELD), said
    assert all(stayed["requests"] > 30 for stayed in figures["bystanders"].values()), said
    assert figures["faults that failed"] == 0, said
    known = figures["accepted"] + figures["refused"] + figures["sent once, without an answer"]
    assert known == figures["attempted"] > 500, said
    assert figures["unresolved"] == 0, said
