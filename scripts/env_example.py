"""Prints `.env.example`: every setting with its default and what it is for, as project/environment.py declares them.

.venv/bin/python -m scripts.env_example > .env.example
"""

import textwrap

from project.environment import DEVELOPMENT_SECRET, Environment

HEAD = """\
# Every setting, with its default. Set what differs, in the environment or as a file of its name in SECRETS_DIR.
# Made from project/environment.py: python -m scripts.env_example > .env.example
"""


def text() -> str:
    """The file: one commented line for each setting, below what it is for."""
    parts = [HEAD]
    for name, field in Environment.model_fields.items():
        value = int(field.default) if isinstance(field.default, bool) else field.default
        value = "" if value == DEVELOPMENT_SECRET else value
        about = textwrap.fill(field.description or "", 118, initial_indent="# ", subsequent_indent="# ")
        parts.append(f"{about}\n# {name.upper()}={value}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(text(), end="")
