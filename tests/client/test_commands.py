"""commands: what they write, and how they end."""

import fcntl
import os
import pty
import signal
import stat
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from client import commands
from client.sync import SyncFileSystem
from server.wire.constants import NONUNAME
from tests.server.peer import GUARD
from tests.tmpfs_core.paging import pattern

from .running import Tool, start
from .serving import Serving


@pytest.fixture
def planted(there: SyncFileSystem) -> SyncFileSystem:
    """Something to list."""
    there.makedirs("/d/e")
    there.write_bytes("/d/f", b"hello\n")
    there.write_bytes("/d/.hidden", b"")
    there.symlink("f", "/d/l")
    there.symlink("none", "/dangling")
    return there


def test_ls(tool: Tool, planted: SyncFileSystem) -> None:
    assert tool("ls") == (0, "d\ndangling\n", "")
    assert tool("ls", "/d") == (0, "e\nf\nl\n", "")
    assert tool("ls", "-a", "d") == (0, ".hidden\ne\nf\nl\n", "")
    assert tool("ls", "-d", "/d", "/d/e") == (0, "/d\n/d/e\n", "")
    assert tool("ls", "/dangling", "/d/f", "/d/e") == (0, "/dangling\n/d/f\n\n/d/e:\n", "")
    assert tool("ls", "-R", "/d") == (0, "/d:\ne\nf\nl\n\n/d/e:\n", "")
    assert tool("ls", "/d/[ef]") == (0, "/d/f\n\n/d/e:\n", "")


def test_ls_follows_links_to_directories(tool: Tool, planted: SyncFileSystem) -> None:
    planted.symlink("d/e", "/to")
    planted.write_bytes("/d/e/x", b"")
    assert tool("ls", "/to").out == "x\n"
    assert tool("ls", "-l", "/to").out.endswith(" /to -> d/e\n")


def test_ls_with_attributes(tool: Tool, planted: SyncFileSystem) -> None:
    planted.chmod("/d/f", 0o640)
    directory, file, link = tool("ls", "-l", "/d").out.splitlines()
    assert directory.startswith("drwxr-xr-x 2 ")
    assert file.startswith("-rw-r----- 1 ")
    assert file.split()[4] == "6"
    assert link.startswith("lrwxrwxrwx 1 ")
    assert link.endswith(" l -> f")


def test_ls_of_what_is_not_there_is_serious(tool: Tool, planted: SyncFileSystem) -> None:
    told = "tmpfs9p ls: /none: No such file or directory\n"
    assert tool("ls", "/none", "/d/e") == (2, "", told)


def test_names_that_are_no_text_are_written_as_they_are(
    serving: Serving, planted: SyncFileSystem
) -> None:
    planted.write_bytes(b"/d/e/\xff\n", b"")
    with start("ls", "/d/e", address=serving.unix, stdout=subprocess.PIPE) as process:
        assert process.communicate()[0] == b"\xff\n\n"


def test_cat(tool: Tool, planted: SyncFileSystem) -> None:
    planted.write_bytes("/d/g", b"more\n")
    assert tool("cat", "/d/[fg]", "/d/f") == (0, "hello\nmore\nhello\n", "")
    assert tool("cat", "/d", "/none", "/d/f") == (
        1,
        "hello\n",
        "tmpfs9p cat: /d: Is a directory\ntmpfs9p cat: /none: No such file or directory\n",
    )


def test_rm(tool: Tool, planted: SyncFileSystem) -> None:
    assert tool("rm", "/d") == (1, "", "tmpfs9p rm: /d: Is a directory\n")
    assert tool("rm", "/none").status == 1
    assert tool("rm", "-f", "/none") == (0, "", "")
    assert tool("rm", "-v", "/d/[fl]", "/dangling") == (
        0,
        "removed /d/f\nremoved /d/l\nremoved /dangling\n",
        "",
    )
    assert tool("rm", "-r", "/") == (1, "", "tmpfs9p rm: /: Invalid argument\n")
    assert planted.listdir("/d") == ["e", ".hidden"]
    assert tool("rm", "-rf", "/d", "/none").status == 0
    assert planted.listdir() == []


def test_mkdir(tool: Tool, there: SyncFileSystem) -> None:
    assert tool("mkdir", "/a/b").err == "tmpfs9p mkdir: /a/b: No such file or directory\n"
    assert tool("mkdir", "-p", "/a/b", "/a/b") == (0, "", "")
    assert tool("mkdir", "-m", "1770", "/a/c") == (0, "", "")
    assert stat.S_IMODE(there.stat("/a/c").st_mode) == 0o1770
    assert tool("mkdir", "/a/c", "/a/d").status == 1
    assert there.exists("/a/d")
    for mode in ("9", "17777", "-1"):
        assert tool("mkdir", f"-m{mode}", "/x").status == 2


def test_df(tool: Tool, there: SyncFileSystem, serving: Serving) -> None:
    there.write_bytes("/f", bytes(1 << 20))
    _, row = tool("df").out.splitlines()
    assert row.split() == [serving.unix, "65536", "1024", "64512", "2%"]
    _, row = tool("df", "-h").out.splitlines()
    assert row.split() == [serving.unix, "64M", "1.0M", "63M", "2%"]
    _, row = tool("df", "-i").out.splitlines()
    assert row.split()[1:] == ["5000", "2", "4998", "1%"]


def test_stat(tool: Tool, planted: SyncFileSystem) -> None:
    assert tool("stat", "-c", "%n %s %F", "/d/*") == (
        0,
        "/d/e 40 directory\n/d/f 6 regular file\n/d/l 1 symbolic link\n",
        "",
    )
    assert tool("stat", "-L", "-c", "%s", "/d/l").out == "6\n"
    assert tool("stat", "/none").status == 1
    assert f"Inode: {planted.stat('/d/f').st_ino}\t" in tool("stat", "/d/f").out


def test_whose_files_they_are(tool: Tool, there: SyncFileSystem) -> None:
    assert tool("mkdir", "/d").status == 0
    assert there.stat("/d").st_uid == os.geteuid() != NONUNAME


@pytest.mark.parametrize(
    ("address", "status", "told"),
    [
        ("http://x", 2, "'http://x' is none of tcp://"),
        ("unix:///none/there", 1, "unix:///none/there: No such file or directory"),
    ],
)
def test_where_no_server_is(tool: Tool, address: str, status: int, told: str) -> None:
    done = tool("cat", "--addr", address, "/f")
    assert done.status == status
    assert done.err.startswith(f"tmpfs9p cat: {told}")
    assert done.err.count("\n") == 1


def test_where_no_server_is_for_ls(tool: Tool) -> None:
    assert tool("ls", "--addr", "unix:///none").status == 2


def test_an_export_that_is_none(tool: Tool, serving: Serving) -> None:
    told = f"tmpfs9p df: {serving.unix}: No such file or directory\n"
    assert tool("df", "--aname", "none") == (1, "", told)


def test_standard_input_and_output_are_copied(serving: Serving, there: SyncFileSystem) -> None:
    data = pattern(7, 3_000_000)
    with start("cp", "-", ":/f", address=serving.unix, stdin=subprocess.PIPE) as process:
        process.communicate(data)
    assert process.returncode == 0
    assert there.read_bytes("/f") == data
    with start("cp", ":/f", "-", address=serving.unix, stdout=subprocess.PIPE) as process:
        assert process.communicate()[0] == data
    assert process.returncode == 0


@pytest.mark.parametrize("command", [["cat", "/f"], ["cp", ":/f", "-"], ["ls", "/d"]])
def test_a_reader_who_leaves_ends_it(
    serving: Serving, there: SyncFileSystem, command: list[str]
) -> None:
    there.write_bytes("/f", bytes(10_000_000))
    there.mkdir("/d")
    for number in range(100):
        there.write_bytes(f"/d/{number}{'x' * 200}", b"")
    pipe = subprocess.PIPE
    with start(*command, address=serving.unix, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(GUARD) == -signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_an_interrupt_ends_it(serving: Serving, there: SyncFileSystem) -> None:
    pipe = subprocess.PIPE
    with start("cp", "-", ":/f", address=serving.unix, stdin=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        process.stdin.write(bytes(20 << 20))
        process.stdin.flush()  # it has read some of that
        process.send_signal(signal.SIGINT)
        assert process.wait(GUARD) == -signal.SIGINT
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_progress_is_shown_on_a_terminal(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(bytes(20 << 20))
    monkeypatch.setattr(commands, "LONG", 0)
    end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with open(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        assert tool("cp", str(tmp_path / "f"), ":/f").status == 0
        assert b"20.0M/20.0M" in os.read(end, 65536)
    os.close(end)


def test_a_connection_is_carried_over_standard_input_and_output(
    serving: Serving, tmp_path: Path
) -> None:
    pipe = subprocess.PIPE
    with start("connect", serving.unix, address="", stdin=pipe, stdout=pipe) as process:
        request = struct.pack("<IBHIH", 21, 100, 65535, 8192, 8) + b"9P2000.L"
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request)
        process.stdin.flush()
        assert process.stdout.read(21) == request[:4] + b"\x65" + request[5:]
        process.stdin.close()
        assert process.wait(GUARD) == 0


def test_connect_says_what_can_not_be(tool: Tool) -> None:
    assert tool("connect", "unix:///none") == (
        1,
        "",
        "tmpfs9p: unix:///none: No such file or directory\n",
    )
    assert tool("connect", "tcp://h").status == 2
