"""What apt-get can bring, where this is Debian or Ubuntu and we are root or may become it without a password."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from scripts.place import LOCAL, SetupError, lock

# Debian starts a server as soon as its package is there; exit status 101 forbids it. Ours goes as it came.
INSTALL = """
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT INT TERM HUP
    printf '#!/bin/sh\\nexit 101\\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@"
"""


def why_not() -> str | None:
    """Why nothing can be installed here; None when it can."""
    if not shutil.which("apt-get") or not Path("/etc/debian_version").exists():
        return "this is neither Debian nor Ubuntu"
    if os.geteuid() == 0:
        return None
    if (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
    ):
        return None
    return "not root, and sudo asks for a password"


def programs(wanted: Mapping[str, str]) -> dict[str, str]:
    """Where each program is; `wanted` says which package has it. apt-get installs all that is missing at once.

    Raises SetupError: which are missing and how to get them.
    """
    missing = sorted({package for name, package in wanted.items() if not shutil.which(name)})
    why = (why_not() or install(*missing)) if missing else None
    found = {name: shutil.which(name) for name in wanted}
    absent = [name for name, path in found.items() if path is None]
    if absent:
        raise SetupError(
            f"Not on the PATH: {', '.join(absent)}; apt-get did not help: {why}. Install {', '.join(missing)}."
        )
    return {name: path for name, path in found.items() if path}


def install(*packages: str) -> str | None:
    """Installs `packages`. Says why it failed, with the end of the log; None when they are there."""
    log = LOCAL / "apt.log"
    with lock("apt"), log.open("ab") as output:
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        started = time.monotonic()
        print(f"  installing {', '.join(packages)} (apt-get) ..", end=" ", flush=True)
        done = subprocess.run(
            [*sudo, "sh", "-c", INSTALL, "install", *packages],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
        print(f"{'done' if done.returncode == 0 else 'failed'} ({time.monotonic() - started:.0f} s)")
    if done.returncode == 0:
        return None
    last = " | ".join(log.read_text(errors="replace").strip().splitlines()[-2:])
    return f"apt-get install {' '.join(packages)} failed, see {log}: {last}"
