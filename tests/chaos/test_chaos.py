"""`./run chaos`: a minute of faults, and every promise kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from project.local.chaos.command import main
from project.local.chaos.faults import FAULTS, plan
from project.local.place import ROOT, SetupError


def test_a_seed_deals_the_same_faults_again_and_each_kind_as_often() -> None:
    dealt = plan(7, 2 * len(FAULTS))
    assert dealt == plan(7, 2 * len(FAULTS))
    assert dealt != plan(8, 2 * len(FAULTS))
    assert sorted(one.fault.name for one in dealt) == sorted([*FAULTS, *FAULTS])
    assert {one.fault.thing for one in plan(7, 9, ("redis", "api"))} == {"redis", "api"}


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
            "project.local",
            "chaos",
            "--seed",
            "20",
            "--seconds",
            "60",
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
    assert figures["faults struck"] > len(FAULTS) / 3
    assert figures["faults that failed"] == 0, said
    known = figures["accepted"] + figures["refused"] + figures["sent once, without an answer"]
    assert known == figures["attempted"] > 500, said
    assert figures["unresolved"] == 0, said
