"""`python -m bench [name ..] [--quick]`: the measurements by name, or all of them; each side by side with its rival."""

import argparse
import importlib
import signal
import sys
from types import FrameType

from bench.place import place
from bench.report import Report
from scripts.place import SetupError

# A module below bench/, imported when Django is set up: its run(here, report, name, quick) measures.
BENCHES = {
    "drain-deep": ("drain", "10,000 requests of 100 users, beside Dramatiq alone"),
    "drain-middle": ("drain", "20,000 requests of 1,000 users, beside Dramatiq alone"),
    "drain-wide": ("drain", "5,000 requests of 5,000 users, beside Dramatiq alone"),
    "accept": ("accept", "submissions over HTTP, beside FastAPI + Celery and Express + BullMQ"),
    "revocation": ("revocation", "what it costs to ask with each submission whether its session lives"),
    "idle": ("idle", "what a million users cost who do nothing"),
    "latency": ("latency", "from accepted to finished for a quiet user, alone and beside users who flood"),
    "logins": ("logins", "submissions alone and beside 24 clients who log in at once"),
    "pages": ("pages", "every page of the admin and the API's lists, with a million users and ten million requests"),
    "recover": ("recover", "kill -9, a deleted queue, purged tokens: the time until the work went on"),
    "restore": ("restore", "PostgreSQL's disk is lost: what is gone, and the time until all goes on"),
}


def main(arguments: list[str]) -> int:
    """Run what is asked for; 0 unless a measurement could not be made."""
    asked = _parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    report = Report()
    try:
        with place() as here:
            for name in asked.name or BENCHES:
                module = importlib.import_module(f"bench.{BENCHES[name][0]}")
                module.run(here, report, name, asked.quick)
    except (SetupError, TimeoutError, RuntimeError) as wrong:
        print(wrong, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    report.close()
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    listed = "\n".join(f"  {name:14}{about}" for name, (_, about) in BENCHES.items())
    parser = argparse.ArgumentParser(
        "./run bench", description=__doc__, epilog=listed, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*", choices=[*BENCHES, []], metavar="name", help="which; all without")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that it works, not to trust")
    return parser.parse_args(arguments)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
