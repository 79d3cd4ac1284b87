"""The three requirement files, installed by ./run itself from an index that has a newer release of everything."""

import base64
import ensurepip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from scripts.place import LOCAL, ROOT

FILES = ("requirements.txt", "tests/requirements.txt", "bench/requirements.txt")
NEWER = "9999.1"
# Of a pin: its name, extras, version and marker. The hashes follow.
PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(\[[^]]*\])?==([^\s;\\]+)([^\\\n]*)", re.MULTILINE)
PIPS = {  # Python 3.11's own, and the newest when this was written
    "23.2.1": "7ccf472345f20d35bdc9d1841ff5f313260c2c33fe417f48c30ac46cccabf5be",
    "26.3": "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13",
}


def wheel(folder: Path, name: str, version: str) -> str:
    """An empty package that asks for what the true one asks for, as far as that is installed here; its hash."""
    distribution = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    try:
        true = metadata.metadata(name)
        for field in ("Requires-Dist", "Provides-Extra"):
            lines += [f"{field}: {value}" for value in true.get_all(field) or []]
    except metadata.PackageNotFoundError:
        pass
    files = {
        f"{distribution}.dist-info/METADATA": "\n".join(lines) + "\n",
        f"{distribution}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{distribution}.dist-info/RECORD"] = "\n".join([*record, f"{distribution}.dist-info/RECORD,,"]) + "\n"
    path = folder / f"{distribution}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(inside, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def pip_wheel(version: str) -> Path:
    """pip of that version, kept for the next time. Skips where it is not kept and the registry is out of reach."""
    path = LOCAL / "pips" / f"pip-{version}-py3-none-any.whl"
    if not path.exists():
        wanted = path.parent / f"{version}.txt"
        wanted.parent.mkdir(parents=True, exist_ok=True)
        wanted.write_text(f"pip=={version} --hash=sha256:{PIPS[version]}\n")
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes"]
        command += ["--timeout=10", "--retries=1", "-d", str(path.parent), "-r", str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"pip {version} cannot be had here: {done.stderr.strip()[-200:]}")
    return path


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels, of each pinned package the pinned and a newer release, and the files that pin these."""
    folder = tmp_path_factory.mktemp("index")
    hashes: dict[tuple[str, str], str] = {}
    for file in FILES:
        lines = []
        for name, extras, version, marker in PIN.findall((ROOT / file).read_text()):
            if (name, version) not in hashes:
                hashes[name, version] = wheel(folder, name, version)
                wheel(folder, name, NEWER)
            lines.append(f"{name}{extras}=={version}{marker.rstrip()} --hash=sha256:{hashes[name, version]}")
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("version", PIPS)
@pytest.mark.timeout(600)  # two environments of a hundred packages
def test_no_later_release_of_anything_changes_a_set_up(version: str, index: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "scripts" / "run").mkdir(parents=True)
    shutil.copy(ROOT / "run", copy / "run")
    (copy / "scripts" / "__init__.py").touch()
    (copy / "scripts" / "run" / "__main__.py").write_text(
        "from importlib.metadata import distributions as all\n"
        "print(*(f'{one.name}=={one.version}' for one in all()), sep='\\n')\n"
    )
    for file in FILES:
        (copy / file).parent.mkdir(exist_ok=True)
        shutil.copy(index / file, copy / file)
    programs = tmp_path / "bin"
    programs.mkdir()
    this_pip = ":"  # is there already
    if ensurepip.version() != version:
        this_pip = f'"$3/bin/python" {pip_wheel(version)}/pip install -q {pip_wheel(version)}'
    python = Path(sys.executable).resolve()
    (programs / "python3").write_text(
        f'#!/bin/sh\n"{python}" "$@" || exit\ncase "$1 $2" in "-m venv")\n{this_pip}\n;; esac\n'
    )
    (programs / "python3").chmod(0o755)
    ours = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PATH": f"{programs}:{os.environ['PATH']}"}
    for command in ("test", "bench"):
        done = subprocess.run(
            [copy / "run", command], env=os.environ | ours, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    installed = {plain(one) for one in done.stdout.splitlines() if "==" in one}
    assert f"pip=={version}" in installed
    wanted = {
        plain(f"{name}=={pinned}")
        for file in FILES
        for name, _, pinned, marker in PIN.findall((ROOT / file).read_text())
        if not marker.strip()
    }
    assert wanted <= installed
    assert not [one for one in installed if one.endswith(f"=={NEWER}")]


def plain(pin: str) -> str:
    name, _, version = pin.partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"
