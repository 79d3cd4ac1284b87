"""`python -m bench.one name ..`: measurements in a place of their own, in a process that ends with them.

`./run bench` starts it once for each group of measurements: one that fails, or is interrupted, leaves the others alone.
"""

import argparse
import importlib
import sys
import traceback

from bench.names import ALONE, COMPARED, result_of
from bench.place import Place, place
from bench.report import Report
from scripts.place import SetupError
from scripts.servers.process import signals_interrupt


def main(arguments: list[str]) -> int:
    """0 when all was measured, 1 when something could not be, 130 when interrupted."""
    parser = argparse.ArgumentParser("python -m bench.one")
    parser.add_argument("name", nargs="+")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", default="")
    asked = parser.parse_args(arguments)
    signals_interrupt()
    report = Report()
    try:
        with place() as here:
            _measure(here, report, asked)
    except SetupError as wrong:
        report.note(str(wrong))
    except KeyboardInterrupt:
        return 130
    report.save(result_of(asked.name, asked.quick), {"names": asked.name, "quick": asked.quick})
    report.close()
    return 1 if report.notes and not report.tables else 0


def _measure(here: Place, report: Report, asked: argparse.Namespace) -> None:
    """What cannot be measured becomes a note in the report."""
    here.peers = asked.peers.split(",")
    try:
        if asked.name[0] in COMPARED:
            compare = importlib.import_module("bench.compare")
            compare.run(here, report, asked.name, asked.quick, here.peers)
        else:
            module = importlib.import_module(f"bench.{ALONE[asked.name[0]][0]}")
            module.run(here, report, asked.name[0], asked.quick)
    except (TimeoutError, RuntimeError, OSError) as wrong:
        traceback.print_exc(file=sys.stderr)
        report.note(f"{', '.join(asked.name)}: could not be measured: {wrong}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
