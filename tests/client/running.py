"""Running: the commands, in this process or in one of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from server.__main__ import main

PROGRAM = [sys.executable, "-P", "-m", "server"]


class Done(NamedTuple):
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


Tool = Callable[..., Done]


def tool_for(
    address: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Tool:
    """Runs ``tmpfs9p`` with these arguments."""
    monkeypatch.setenv("TMPFS9P_ADDR", address)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["tmpfs9p", *arguments])
        handlers = [(n, signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGHUP)]
        capfd.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            for number, handler in handlers:
                signal.signal(number, handler)
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, *capfd.readouterr())

    return run


def start(
    *arguments: str,
    address: str,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        env={**os.environ, "TMPFS9P_ADDR": address},
        cwd=Path(__file__).parents[2],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )
