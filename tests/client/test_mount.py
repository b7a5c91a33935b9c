"""mount: what its options say."""

import subprocess
import sys

import pytest

from client.mount import Options, options_of

from .running import Tool


def test_options() -> None:
    assert options_of([]) == Options()
    given = "ro,aname=a/b,uid=5,gid=6,uname=me,msize=8192,cache=loose,patience=3,driver=fuse"
    assert options_of([given, "allow_other"]) == Options(
        ro=True,
        aname="a/b",
        uname="me",
        uid=5,
        gid=6,
        msize=8192,
        cache="loose",
        driver="fuse",
        patience=3,
        allow_other=True,
    )


def test_options_of_fstab() -> None:
    assert options_of(["rw,_netdev,x-systemd.automount,nofail,nosuid,nodev"]) == Options(
        passed=("nosuid", "nodev")
    )


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("cache=big", "-o cache=big: allowed are none, mmap, loose"),
        ("uid=me", "-o uid=me: it takes a number"),
        ("ro=1", "-o ro=1: allowed are ro, "),
        ("uid", "-o uid: allowed are ro, "),
        ("nonsense", "-o nonsense: allowed are ro, "),
    ],
)
def test_options_that_are_none(tool: Tool, word: str, told: str) -> None:
    done = tool("mount", "-o", word, "tcp://h", "/mnt")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"tmpfs9p mount: {told}")


def test_addresses_that_are_none(tool: Tool) -> None:
    assert tool("mount", "http://h", "/mnt").status == 2


def test_mounting_loads_nothing_that_only_a_server_needs() -> None:
    program = "import sys; from client import mount; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"structlog", "server.config", "server.session", "tmpfs_core"} & set(
        done.stdout.split()
    )
