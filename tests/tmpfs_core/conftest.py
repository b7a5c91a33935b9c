"""Fixtures of the core's tests; every mount is checked for its invariants after the test."""

import os
import stat
from collections.abc import Iterator

import pytest

from tmpfs_core import swap as swap_module
from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.mount import Mount
from tmpfs_core.node import vref

from .paging import Calls, Spill
from .support import Clock, World, put


@pytest.fixture
def mount() -> Iterator[Mount]:
    """A mount of 1 MiB (256 frames) and 64 inodes."""
    mount = Mount(size=1 << 20, nr_inodes=64)
    yield mount
    mount.check()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def world(mount: Mount) -> World:
    root = mount.root
    file = vnops.create(root, b"file", 0o644, ROOT, 0)
    put(file.node, b"hello")
    full = vnops.mkdir(root, b"full", 0o755, ROOT, 0)
    world = World(
        mount=mount,
        root=root,
        file=file,
        other=vnops.link(file.node, root, b"other", ROOT),
        empty=vnops.mkdir(root, b"empty", 0o755, ROOT, 0),
        full=full,
        inner=vnops.create(full.node, b"inner", 0o644, ROOT, 0),
        symlink=vnops.symlink(root, b"symlink", b"to/where", ROOT, 0),
        fifo=vnops.mknod(root, b"fifo", stat.S_IFIFO | 0o644, 0, ROOT, 0),
        gone=vnops.create(root, b"gone", 0o644, ROOT, 0),
        gone_dir=vnops.mkdir(root, b"gone_dir", 0o755, ROOT, 0),
    )
    for entry in (world.gone, world.gone_dir):
        vref(entry.node)
        vnops.remove(entry, ROOT)
    return world


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A swap file grows by 1 MiB, so that the tests are quick."""
    monkeypatch.setattr(swap_module, "STEP", 256)


@pytest.fixture
def spill(small_steps: None) -> Iterator[Spill]:
    """256 frames of RAM and 1024 of swap; in the end all files are deleted, and nothing is left."""
    spill = Spill(ram=256, swap=(1024,))
    yield spill
    spill.end()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """(offset, bytes) of each write to swap."""
    return watched(monkeypatch, "pwritev")


@pytest.fixture
def was_read(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """(offset, bytes) of each read from swap."""
    return watched(monkeypatch, "preadv")


def watched(monkeypatch: pytest.MonkeyPatch, name: str) -> Calls:
    calls: Calls = []
    call = getattr(os, name)

    def note(fd: int, views: list[memoryview], offset: int) -> int:
        done: int = call(fd, views, offset)
        calls.append((offset, done))
        return done

    monkeypatch.setattr(os, name, note)
    return calls
