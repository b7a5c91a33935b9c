"""How the benches write down what they found."""

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.tools import REPOSITORY

HEAD = ["figure", "measured", "target", "reached"]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown, with columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def verdict(reached: bool) -> str:
    return "yes" if reached else "NO"


def row(what: str, figure: str, target: str, reached: bool) -> list[str]:
    """A line of a table that has the columns of HEAD."""
    return [what, figure, target, verdict(reached)]


def conditions(server: Sequence[str]) -> str:
    """The machine, the software, and how busy the machine is before the first figure."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    rows = [
        ["CPU", f"{os.cpu_count()} x {model[1] if model else platform.machine()}"],
        ["kernel", platform.release()],
        ["Python", platform.python_version()],
        ["server", _output([*server, "--version"])],
        ["commit", _output(["git", "describe", "--always", "--dirty"])],
        ["date", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"],
        ["load average at the start", f"{os.getloadavg()[0]:.2f}"],
    ]
    return table(["condition", ""], rows)


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.check_output(command, text=True, cwd=REPOSITORY).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
