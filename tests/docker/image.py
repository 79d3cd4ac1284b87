"""The image of docker/Dockerfile, built by buildah without any engine, and processes started from it."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from scripts.place import ROOT
from scripts.servers.process import Process, launch

# A mount namespace of the process's own: the image's root, which nobody can write to, with what a container gets.
CONTAIN = """
set -e
root=$1 secrets=$2 user=$3 folder=$4
shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o size=64m,mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o size=1m,mode=755 tmpfs "$root/run"
mkdir "$root/run/secrets"
cp "$secrets"/* "$root/run/secrets/"
chmod 644 "$root"/run/secrets/*
mount -o remount,ro "$root/run"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot --userspec="$user" "$root" /usr/bin/env -i -C "$folder" "$@"
"""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def why_not() -> str | None:
    """Why no image can be built here; None when it can."""
    if not os.environ.get("IMAGE_BASE"):
        return (
            "IMAGE_BASE is not set: nothing was built. Name a base image, or a folder made by `debootstrap"
            " --variant=minbase --include=python3,python3-venv,ca-certificates bookworm FOLDER`"
        )
    if not shutil.which("buildah") or os.geteuid() != 0:
        return "building needs root and buildah (Debian: apt-get install buildah)"
    return None


class Builder:
    """buildah with a store of its own in `folder`, which goes with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.buildah = ["buildah", "--storage-driver", "vfs", "--root", f"{folder}/store", "--runroot", f"{folder}/run"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for everything in (["umount", "--all"], ["rm", "--all"], ["rmi", "--all", "--force"]):
            subprocess.run([*self.buildah, *everything], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def base(self, named: str) -> str:
        """The image to build on: `named` itself, or one made of the folder of that name."""
        if not Path(named).is_dir():
            return named
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, named, "/")
        self.run("commit", "--quiet", "--rm", container, "localhost/base")
        return "localhost/base"

    def build(self, target: str, base: str) -> "Image":
        arguments = ["--build-arg", f"BASE={base}", "--build-arg", f"EDGE_BASE={base}", "--target", target]
        if CERTIFICATES.exists():  # this machine's, so that pip trusts what this machine trusts
            arguments += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        dockerfile = str(ROOT / "docker" / "Dockerfile")
        options = ["--isolation", "chroot", "--format", "docker", "--layers=false", "--quiet"]
        self.run("build", *options, *arguments, "--tag", f"localhost/{target}", "--file", dockerfile, str(ROOT))
        container = self.run("from", "--pull-never", f"localhost/{target}")
        return Image(
            json.loads(self.run("inspect", "--type", "image", f"localhost/{target}"))["Docker"]["config"],
            Path(self.run("mount", container)),
        )

    def run(self, *arguments: str) -> str:
        done = subprocess.run([*self.buildah, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"buildah {shlex.join(arguments)}: {done.stderr[-3000:]}"
        return done.stdout.strip().rpartition("\n")[2] if arguments[0] != "inspect" else done.stdout


class Image:
    """What was built: its configuration, and its files at `root`."""

    def __init__(self, configuration: dict[str, Any], root: Path) -> None:
        self.configuration = configuration
        self.root = root

    def command(self, secrets: Path, environment: Mapping[str, str], words: list[str]) -> list[str]:
        given = dict(pair.split("=", 1) for pair in self.configuration["Env"]) | dict(environment)
        inside = [str(self.root), str(secrets), self.configuration["User"], self.configuration["WorkingDir"]]
        pairs = [f"{name}={value}" for name, value in given.items()]
        return ["unshare", "--mount", "sh", "-c", CONTAIN, "contain", *inside, *pairs, *words]

    def start(self, secrets: Path, environment: Mapping[str, str], words: list[str], log: Path) -> Process:
        """A process of the image, as a container runs it; its network is the machine's."""
        with log.open("ab") as output:
            command = self.command(secrets, environment, words)
            return launch(command, environment=dict(os.environ), output=output, folder=ROOT)

    def run(self, secrets: Path, environment: Mapping[str, str], words: list[str]) -> subprocess.CompletedProcess[str]:
        command = self.command(secrets, environment, words)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
