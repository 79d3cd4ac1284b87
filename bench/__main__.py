"""`python -m bench [name ..] [--quick]`: the measurements by name, or all of them; each side by side with its peers."""

import argparse
import os
import sys
from collections.abc import Sequence

from bench.names import NAMES, PEERS, groups
from scripts.place import ROOT
from scripts.servers.process import launch, signals_interrupt

GRACE = 60.0  # seconds an interrupted measurement has to put everything away


def main(arguments: list[str]) -> int:
    """Run what is asked for, each group in a place of its own; 0 unless one could not be measured at all."""
    asked = _parse(arguments)
    signals_interrupt()
    worst = 0
    try:
        for group in [] if asked.only_docs else groups(asked.name or list(NAMES)):
            worst = max(worst, _run(group, asked))
    except KeyboardInterrupt:
        return 130
    if asked.write_docs or asked.only_docs:
        from bench.document import write

        write(asked.quick)
    return worst


def _run(group: Sequence[str], asked: argparse.Namespace) -> int:
    """One group in a process of its own, which is told of an interruption and waited for."""
    command = [sys.executable, "-m", "bench.one", *group, "--peers", asked.peers]
    command += ["--quick"] if asked.quick else []
    sys.stdout.flush()
    process = launch(command, environment=dict(os.environ), output=sys.stdout.buffer, folder=ROOT)
    try:
        while not process.wait(3600):
            pass
    finally:
        process.stop(GRACE)
    assert process.child
    status = process.child.returncode
    if status:
        print(f"{', '.join(group)}: ended with status {status}", file=sys.stderr)
    return 1 if status else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    listed = "\n".join(f"  {name:14}{about}" for name, about in NAMES.items())
    parser = argparse.ArgumentParser(
        "./run bench", description=__doc__, epilog=listed, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*", choices=[*NAMES, []], metavar="name", help="which; all without")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that it works, not to trust")
    parser.add_argument("--peers", type=_peers, default=",".join(PEERS), help=f"of {', '.join(PEERS)}; all without")
    parser.add_argument("--write-docs", action="store_true", help="then write the figures into docs/performance.md")
    parser.add_argument("--only-docs", action="store_true", help="measure nothing: write the figures of earlier runs")
    return parser.parse_args(arguments)


def _peers(text: str) -> str:
    unknown = set(text.split(",")) - set(PEERS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no such peer: {', '.join(sorted(unknown))}")
    return ",".join(name for name in PEERS if name == "ours" or name in text.split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
