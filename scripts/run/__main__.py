"""`./run COMMAND`. Importing this needs the standard library alone, so that help works before anything is installed."""

import importlib
import sys

COMMANDS = {
    "demo": (
        "scripts.run.demo:main",
        "three users, a flood among them, live: who gets what and when, then the checks",
    ),
    "test": (
        "scripts.run.commands:test",
        "the test suite; what follows goes to pytest: ./run test tests/queues -k order",
    ),
    "up": ("scripts.run.up:main", "the API, a dispatcher and workers in the foreground; Ctrl-C stops them"),
    "stop": (
        "scripts.run.commands:stop",
        "ends what ./run up or demo started and still runs, private servers included",
    ),
    "manage": (
        "scripts.run.commands:manage",
        "any management command, on the servers and data of ./run up: ./run manage changepassword admin",
    ),
    "clean": (
        "scripts.run.clean:main",
        "gives back this working copy's database, virtual host and Redis number, and removes .venv and .local; --yes",
    ),
    "pictures": (
        "scripts.run.pictures:main",
        "takes the documentation's pictures of the live page and the admin, in Chromium, into docs/pictures/",
    ),
    "bench": ("scripts.run.commands:bench", "the measurements; what follows goes to them: ./run bench --help"),
    "chaos": (
        "scripts.chaos.command:main",
        "every fault, tried on servers of its own under load, then a ledger: ./run chaos --faults 100 --seed 7",
    ),
    "shell": ("scripts.run.commands:shell", "a Python shell with Django set up, on the servers and data of ./run up"),
    "help": ("", "this"),
}
SETTINGS = {
    "PORT=8123": "the API's port (else 8000, or a free one when that is taken)",
    "DATABASE_URL= RABBITMQ_URL= REDIS_URL=": "servers to use; else the ones on this machine, else ones started here",
    "SERVERS=private": "start servers for this project alone, even where others answer",
}


def usage() -> str:
    lines = ["./run COMMAND", ""]
    lines += [f"  {name:9}{text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "Set before it, as in PORT=8123 ./run up:", ""]
    lines += [f"  {name}\n         {text}" for name, text in SETTINGS.items()]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Runs one command; its exit status."""
    command, *rest = arguments or ["help"]
    if command in ("help", "-h", "--help"):
        print(usage())
        return 0
    if command not in COMMANDS:
        print(f"./run has no command {command!r}.\n\n{usage()}", file=sys.stderr)
        return 2
    from scripts.place import SetupError

    try:
        module, _, function = COMMANDS[command][0].partition(":")
        return int(getattr(importlib.import_module(module), function)(rest))
    except SetupError as wrong:
        print(wrong, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
