"""A FUSE mount is what QEMU's own 9P server (``-virtfs local``) gives to a guest."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client import SyncFileSystem

from . import fuse
from .qemu import Guest, Served
from .test_qemu import DESCRIBE, MAKE_TREE, SQLITE

pytestmark = pytest.mark.kernel

MODELS = ("none", "mapped-xattr")
#: Cached, as sqlite's memory maps need it.
OPTIONS = "trans=virtio,version=9p2000.L,msize=512000,cache=mmap"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module")
def guest(
    boot: Callable[..., Guest], server: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guest]:
    """It has a directory of the mount for each model."""
    reason = fuse.why_not()
    if reason is not None:
        pytest.skip(reason)
    host = fuse.Host(tmp_path_factory.mktemp("host"))
    with host.mount(fuse.At(server.unix), cache="none") as top:
        words = []
        for model in MODELS:
            Path(top, model).mkdir()
            words += [
                "-virtfs",
                f"local,path={top}/{model},mount_tag={model},security_model={model},id={model}",
            ]
        guest = boot(*words)
        yield guest
        guest.kill()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_tree_is_copied_there_and_back(guest: Guest, model: str) -> None:
    guest.sh(f"{MAKE_TREE}\nrm fifo")  # which QEMU's server can not make, wherever it has its files
    original = guest.sh(DESCRIBE.format("/tmp/tree"))
    with guest.mount(OPTIONS, model) as top:
        guest.sh(f"cp -a /tmp/tree {top}; rm -r /tmp/tree")
        assert guest.sh(DESCRIBE.format(f"{top}/tree")) == original
    with guest.mount(OPTIONS, model) as top:
        guest.sh(f"cp -a {top}/tree /tmp; rm -r {top}/tree")
        assert guest.sh(f"ls -A {top}") == ""
    assert guest.sh(DESCRIBE.format("/tmp/tree")) == original


def test_the_server_has_what_a_guest_writes(guest: Guest, server: Served, model: str) -> None:
    data = os.urandom(100_000)
    with SyncFileSystem(server.unix) as fs, guest.mount(OPTIONS, model) as top:
        guest.sh(f"echo guest >{top}/g; chown 12:34 {top}/g; chmod 4751 {top}/g")
        assert fs.read_bytes(f"/{model}/g") == b"guest\n"
        found = fs.stat(f"/{model}/g")
        if model == "none":
            assert (found.st_uid, found.st_gid, found.st_mode) == (12, 34, 0o104751)
        else:
            assert "user.virtfs.uid" in fs.listxattr(f"/{model}/g")
        assert guest.sh(f"stat -c '%u:%g %a' {top}/g") == "12:34 4751\n"
        fs.write_bytes(f"/{model}/h", data)
        assert int(guest.sh(f"wc -c <{top}/h")) == len(data)
        guest.sh(f"rm {top}/g {top}/h")
        assert not fs.exists(f"/{model}/h")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite(guest: Guest, model: str, mode: str) -> None:
    with guest.mount(OPTIONS, model) as top:
        script = SQLITE.format(mode=mode)
        said = guest.sh(f"sqlite3 {top}/db <<'END'\n{script}\nEND\nrm {top}/db*")
    assert said.startswith(f"{mode}\nok\n1800|")
