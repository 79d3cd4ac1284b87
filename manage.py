#!/usr/bin/env python3
"""Django's command line: `manage.py help` lists the commands."""

import os
import sys
from pathlib import Path

HINT = " Or type ./run manage ..: it knows the Python, the servers and the data of this working copy."


def main() -> None:
    """Runs one command. What is missing in the environment is said in a sentence."""
    hint = HINT if Path(__file__).with_name("run").exists() else ""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    try:
        from django.core.management import execute_from_command_line

        from project.start import set_up
    except ModuleNotFoundError as missing:
        if missing.name != "django":
            raise
        sys.exit(f"{sys.executable} has no Django: use a Python that has what requirements.txt pins.{hint}")
    try:
        set_up()
    except SystemExit as wrong:
        sys.exit(f"{wrong}{hint}" if str(wrong).startswith("SECRET_KEY is not set") else wrong.code)
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
