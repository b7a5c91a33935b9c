"""manager: what the service manager passes, what it is told, and when; it is a socket here."""

import asyncio
import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server import manager as manager_module
from server.manager import Manager
from server.usage import ConfigError

from .peer import GUARD

PID = str(os.getpid())


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[socket.socket]:
    """Where the service manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def said(sock: socket.socket) -> list[str]:
    """The assignments of the next message."""
    return sock.recv(4096).decode().split("\n")


# What it is told


def test_it_is_told_what_the_server_does(notices: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": notices.getsockname(), "HOME": "/"}
    manager = Manager(environ)
    assert environ == {"HOME": "/"}
    manager.ready("exports served: 2")
    assert said(notices) == ["READY=1", "STATUS=exports served: 2"]
    before = time.monotonic_ns() // 1000
    manager.reloading()
    word, moment = said(notices)
    assert word == "RELOADING=1"
    match = re.fullmatch(r"MONOTONIC_USEC=(\d+)", moment)
    assert match is not None
    assert before <= int(match[1]) <= time.monotonic_ns() // 1000
    manager.ready("two\nMAINPID=1")
    assert said(notices) == ["READY=1", "STATUS=two MAINPID=1"]
    manager.stopping()
    assert said(notices) == ["STOPPING=1", "STATUS=stopping"]


def test_it_may_listen_at_an_abstract_address() -> None:
    name = f"tmpfs9p-test-{PID}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        Manager({"NOTIFY_SOCKET": f"@{name}"}).stopping()
        assert said(sock)[0] == "STOPPING=1"


def test_without_one_nobody_is_told() -> None:
    manager = Manager({})
    with capture_logs() as logs:
        manager.ready("")
        manager.stopping()
        manager.close()
    assert not logs


def test_one_that_does_not_listen_is_worth_a_line_and_no_more(tmp_path: Path) -> None:
    with capture_logs() as logs:
        Manager({"NOTIFY_SOCKET": str(tmp_path / "missing")}).ready("")
    assert [line["why"] for line in logs] == ["No such file or directory"]


# The watchdog


@pytest.mark.parametrize("pid", [{}, {"WATCHDOG_PID": PID}])
async def test_the_watchdog_is_fed_from_when_the_server_is_ready_until_it_ends(
    notices: socket.socket, pid: dict[str, str]
) -> None:
    loop = asyncio.get_running_loop()
    environ = {"NOTIFY_SOCKET": notices.getsockname(), "WATCHDOG_USEC": "2000", **pid}
    manager = Manager(environ)
    assert not environ
    with pytest.raises(BlockingIOError):
        said(notices)
    manager.ready("")
    manager.ready("")  # it has been reloaded
    async with asyncio.timeout(GUARD):
        messages = [await loop.sock_recv(notices, 4096) for _ in range(6)]
    assert [text.partition(b"\n")[0] for text in messages] == [
        b"READY=1",
        b"WATCHDOG=1",
        b"READY=1",
        *[b"WATCHDOG=1"] * 3,
    ]
    manager.close()
    assert manager._next is not None
    assert manager._next.cancelled()


async def test_it_is_fed_twice_in_the_time_that_it_bears(notices: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": notices.getsockname(), "WATCHDOG_USEC": "30000000"}
    manager = Manager(environ)
    now = asyncio.get_running_loop().time()
    manager.ready("")
    assert manager._next is not None
    assert 14 < manager._next.when() - now < 16
    manager.close()


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}]
)
async def test_a_watchdog_that_is_not_there_or_not_for_this_process_is_not_fed(
    notices: socket.socket, environ: dict[str, str]
) -> None:
    manager = Manager({"NOTIFY_SOCKET": notices.getsockname(), **environ})
    manager.ready("")
    assert said(notices)[0] == "READY=1"
    with pytest.raises(BlockingIOError):
        said(notices)


# What it passes


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[range]:
    """The descriptors of three sockets that listen; they are the first that are passed."""
    numbers = range(200, 203)
    monkeypatch.setattr(manager_module, "FIRST_FD", numbers[0])
    for number in numbers:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            os.dup2(sock.fileno(), number)
    yield numbers
    for number in numbers:
        with contextlib.suppress(OSError):
            os.close(number)


def environment(count: int, names: str | None = None) -> dict[str, str]:
    told = {"LISTEN_PID": PID, "LISTEN_FDS": str(count)}
    return told if names is None else told | {"LISTEN_FDNAMES": names}


@pytest.mark.parametrize("name", ["a", "b", "c", "unknown", ""])
@pytest.mark.parametrize("names", ["a:b:a", "a", None])
def test_sockets_are_taken_by_name_or_all_that_are_left(
    passed: range, name: str, names: str | None
) -> None:
    environ = environment(3, names)
    manager = Manager(environ)
    assert not environ
    have = ((names or "unknown").split(":") + ["unknown"] * 2)[:3]
    expected = [n for n, it in zip(passed, have, strict=True) if name in ("", it)]
    taken = manager.take(name)
    assert [sock.fileno() for sock in taken] == expected
    assert not manager.take(name)
    rest = manager.take("")
    assert sorted(sock.fileno() for sock in taken + rest) == list(passed)
    for sock in taken + rest:
        assert not sock.get_inheritable()
        sock.close()


def test_what_is_passed_to_another_process_is_not_taken(passed: range) -> None:
    environ = environment(3) | {"LISTEN_PID": "1"}
    assert not Manager(environ).sockets
    assert not environ


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: os.open("/dev/null", os.O_RDONLY), ": Socket operation on non-socket"),
        (lambda: socket.socket().detach(), " is no socket that listens for streams"),
        (None, ": Bad file descriptor"),
    ],
    ids=["file", "socket", "nothing"],
)
def test_what_does_not_listen_is_refused(
    passed: range, make: Callable[[], int] | None, why: str
) -> None:
    os.close(passed[0])
    if make is not None:
        made = make()
        os.dup2(made, passed[0])
        os.close(made)
    with pytest.raises(ConfigError, match=f"LISTEN_FDS: descriptor {passed[0]}{why}"):
        Manager(environment(1))
