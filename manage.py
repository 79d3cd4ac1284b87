#!/usr/bin/env python3
"""Django's command line: `manage.py help` lists the commands."""

import os
import sys

from django.core.management import execute_from_command_line

from project.start import set_up

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    set_up()
    execute_from_command_line(sys.argv)
