"""volume_plugin: the command, which needs root; nothing is mounted here."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.volumes import OPTIONS

from .engine import Connection, Refused, Site, post, site
from .peer import GUARD
from .test_main import ENVIRON, run

MAIN = "from server.__main__ import main; main()"

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="the command needs root")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as here:
        yield here


@needs_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_end(here: Site, number: signal.Signals) -> None:
    assert here.socket.stat().st_mode & 0o777 == 0o600
    here.ask("Create", Name="v", Opts={})
    with contextlib.closing(Connection(here.socket)) as kept:  # as engines do
        kept.request("POST", "/Plugin.Activate")
        kept.getresponse().read()
        assert here.unplug(number) == 0
    assert not here.socket.exists()
    here.plug()
    assert here.ask("List") == {"Volumes": [{"Name": "v", "Mountpoint": ""}]}


@needs_root
def test_one_that_was_killed_is_replaced(here: Site) -> None:
    here.ask("Create", Name="v", Opts={})
    here.unplug(signal.SIGKILL)
    assert here.socket.exists()
    here.plug()
    here.ask("Remove", Name="v")
    with pytest.raises(Refused, match=r"^v: no such volume$"):
        here.ask("Get", Name="v")


@needs_root
def test_paths_and_methods_that_are_none_of_the_api(here: Site) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(GUARD)
        sock.connect(str(here.socket))
        sock.sendall(b"GET /VolumeDriver.List HTTP/1.0\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.0 405 ")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(GUARD)
        sock.connect(str(here.socket))
        sock.sendall(b"POST /NetworkDriver.Join HTTP/1.0\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.0 404 ")
    assert post(here.socket, "/Plugin.Activate")[0] == 200


@needs_root
def test_a_directory_and_a_socket_are_for_one_alone(here: Site, tmp_path: Path) -> None:
    given = ["volume-plugin", "--control", here.control, "--addr", here.address]
    done = run(*given, "--socket", str(tmp_path / "s"), "--dir", str(here.dir))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tmpfs9p: --dir: {here.dir}: another plugin has it\n"
    done = run(*given, "--socket", str(here.socket), "--dir", str(tmp_path / "d"))
    assert done.returncode == 2
    assert f"--socket: {here.socket}: " in done.stderr
    assert "another server listens there" in done.stderr


@needs_root
@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "--control: not given; it takes the control socket of a server"),
        (["--control", "c", "--addr", "h"], "--addr: 'h' is not allowed; it takes "),
        (["--control", "c", "--log-level", "all"], "--log-level: 'all' is not allowed; it takes "),
        (["--control", "c", "--dir", "/dev/null/d"], "--dir: /dev/null/d: Not a directory\n"),
    ],
)
def test_what_can_not_be_exits_2(given: list[str], why: str) -> None:
    done = run("volume-plugin", *given)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"tmpfs9p: {why}")
    assert len(done.stderr.splitlines()) == 1


@needs_root
def test_a_state_that_is_none_exits_2(tmp_path: Path) -> None:
    (tmp_path / "volumes.json").write_text("{")
    done = run("volume-plugin", "--control", "c", "--dir", str(tmp_path))
    assert done.returncode == 2
    why = f"tmpfs9p: --dir: {tmp_path}/volumes.json: not what was noted: Expecting property name"
    assert done.stderr.startswith(why)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            "import os; os.geteuid = lambda: 5",
            "only root can mount what containers of all users see",
        ),
        (
            "import importlib.util as util; find = util.find_spec;"
            "util.find_spec = lambda name: None if name == 'aiohttp' else find(name)",
            "no module aiohttp; pip install 'tmpfs9p[volumes]'",
        ),
    ],
)
def test_what_is_missing_is_told(changed: str, why: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{changed}; {MAIN}", "volume-plugin", "--control", "c"],
        capture_output=True,
        text=True,
        env=ENVIRON,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tmpfs9p: volume-plugin: {why}\n"


def test_every_option_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "containers.md").read_text()
    for option in re.findall(r"--[a-z-]+(?= [A-Z])", run("volume-plugin", "--help").stdout):
        assert f"`{option} " in text
    for option in OPTIONS:
        assert f"`{option}=" in text


def test_help_has_examples_and_defaults() -> None:
    done = run("volume-plugin", "--help")
    assert done.returncode == 0
    assert "docker volume create --driver tmpfs9p --opt size=2g scratch" in done.stdout
    assert "/run/docker/plugins/tmpfs9p.sock" in done.stdout
