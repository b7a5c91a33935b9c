"""export_command: ``tmpfs9p export`` with a server in a process of its own."""

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
    """A server with the default export and ``a``, of 1 MiB each, in 4 MiB of RAM."""
    options = f"--listen tcp://127.0.0.1:0 --ram 4m --export a:ro,squash=all --control {control}"
    with serving(*options.split()) as server:
        yield server


def export(control: str, *arguments: str) -> tuple[int, str, str]:
    """Exit status, output and errors of ``tmpfs9p export``."""
    done = run("export", *arguments, TMPFS9P_CONTROL=control)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_exports_come_and_go_while_it_serves(server: Running, control: str) -> None:
    with server.connect() as sock:
        added = export(control, "add", "x:size=64k,ram=128k")
        assert added == (0, "x: added, 64k; mount it with aname=x\n", "")
        ask(sock, m.Tversion(8192, c.VERSION))
        ask(sock, m.Tattach(0, c.NOFID, b"", b"x", 0))
        statfs = ask(sock, m.Tstatfs(0))
        assert isinstance(statfs, m.Rstatfs)
        assert statfs.blocks == 16
        status, table, _ = export(control, "ls")
        rows = [line.split() for line in table.splitlines()]
        assert rows[0] == ["NAME", "SIZE", "USED", "RAM", "INODES", "CLIENTS", "OPTIONS"]
        assert [[row[0], row[1], row[3], row[5], row[6]] for row in rows[1:]] == [
            ["/", "1m", "shared", "0", "-"],
            ["a", "1m", "shared", "0", "ro,squash=all"],
            ["x", "64k", "64k", "1", "-"],
        ]
        assert status == 0
        listed = json.loads(export(control, "ls", "--json")[1])
        assert [(it["name"], it["clients"]) for it in listed] == [("/", 0), ("a", 0), ("x", 1)]
        busy = export(control, "rm", "x")
        assert busy == (1, "", "tmpfs9p: x: 1 client is attached\n")
        assert export(control, "rm", "x", "--force") == (0, "x: removed\n", "")
        assert ask(sock, m.Tstatfs(0)) == m.Rlerror(116)  # ESTALE


def test_what_the_server_refuses_exits_1(server: Running, control: str) -> None:
    server.ready()
    for arguments, message in (
        (["add", "a"], "tmpfs9p: a: File exists\n"),
        (["add", "b:size=5m"], "tmpfs9p: b: size: 5242880 is more than the RAM (4194304), "),
        (["add", "b:ram=5m"], "tmpfs9p: b: only 4194304 bytes of the server's RAM are not in use"),
        (["rm", "b"], "tmpfs9p: b: No such file or directory\n"),
    ):
        status, output, errors = export(control, *arguments)
        assert (status, output) == (1, "")
        assert errors.startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "x:size=much", "--control", "/c"], "tmpfs9p: add: x: size: 'much' is not allowed"),
        (["add", "..", "--control", "/c"], "tmpfs9p: add: '..' is not allowed"),
        (["rm", "..", "--control", "/c"], "tmpfs9p: rm: '..' is not allowed"),
        (["ls", "--control", "/missing/c"], "tmpfs9p: --control: /missing/c: No such file"),
        (["ls"], "tmpfs9p: --control: not given; it takes the control socket of a server"),
        (["add"], "the following arguments are required: NAME"),
        (["move"], "invalid choice: 'move'"),
        ([], "the following arguments are required: ACTION"),
    ],
)
def test_what_can_not_be_asked_for_exits_2(arguments: list[str], message: str) -> None:
    done = run("export", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_control_socket_goes_with_the_server(server: Running, control: str) -> None:
    server.ready()
    assert Path(control).is_socket()
    assert server.stop() == (0, ["stopping"])
    assert not Path(control).exists()


def test_a_control_socket_that_can_not_be_made_exits_2() -> None:
    done = run("serve", "--size", "1m", "--control", "/missing/c", "--listen", "tcp://127.0.0.1:0")
    assert done.returncode == 2
    assert done.stderr == "tmpfs9p: --control: /missing/c: No such file or directory\n"


@pytest.mark.parametrize("arguments", [["export", "--help"], ["export", "add", "--help"]])
def test_help_has_examples(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 0
    assert "tmpfs9p export add scratch:size=2g,mode=700 --control /run/t9.control" in done.stdout
