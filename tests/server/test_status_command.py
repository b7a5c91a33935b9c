"""status_command: ``tmpfs9p status`` with a server in a process of its own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.wire import constants as c
from server.wire import messages as m

from .test_main import Running, ask, run, serving


@pytest.fixture
def control(tmp_path: Path) -> str:
    return str(tmp_path / "control")


@pytest.fixture
def server(control: str) -> Iterator[Running]:
    options = f"--listen tcp://127.0.0.1:0 --ram 4m --export a --control {control}"
    with serving(*options.split()) as server:
        yield server


def test_a_status_for_people(server: Running, control: str) -> None:
    with server.connect() as sock:
        ask(sock, m.Tversion(8192, c.VERSION))
        ask(sock, m.Tattach(0, c.NOFID, b"", b"a", 0))
        done = run("status", "--control", control, COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "1 client   1 files held   0 waiting" in lines[0]
    assert [line.split()[0] for line in lines if line.endswith("1") and "·" in line] == ["a"]
    assert {line.split()[0] for line in lines if line.startswith("T")} == {"Tversion", "Tattach"}
    assert lines[-1].endswith("is the average since the server's start.")
    assert max(map(len, lines)) <= 80


def test_a_status_for_programs(server: Running, control: str) -> None:
    with server.connect() as sock:
        ask(sock, m.Tversion(8192, c.VERSION))
        done = run("status", "--json", TMPFS9P_CONTROL=control)
    status = json.loads(done.stdout)
    assert [export["name"] for export in status["exports"]] == ["/", "a"]
    assert status["requests"]["Tversion"]["count"] == 1
    assert [client["requests"] for client in status["clients"]] == [1]
    assert status["memories"][0]["ram"] == 4 << 20


def test_a_terminal_that_has_only_ascii_gets_that(server: Running, control: str) -> None:
    server.ready()
    done = run("status", "--control", control, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "...." in done.stdout


def test_where_no_server_is_exits_2(tmp_path: Path) -> None:
    for command in ("status", "top"):
        done = run(command, "--control", str(tmp_path / "nowhere"))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("tmpfs9p: ")
    assert run("status").stderr == (
        "tmpfs9p: --control: not given; it takes the control socket of a server\n"
    )


def test_top_takes_a_terminal(server: Running, control: str) -> None:
    server.ready()
    done = run("top", "--control", control)
    assert (done.returncode, done.stderr) == (2, "tmpfs9p: top: this is no terminal; see status\n")


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "often", "1e9"])
def test_an_interval_that_can_not_be_is_refused(interval: str) -> None:
    done = run("top", "--interval", interval, "--control", "/c")
    assert done.returncode == 2
    assert "--interval" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["status", "top"])
def test_help_has_examples(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert f"tmpfs9p {command} --control /run/t9.control" in done.stdout
