"""heap: what deleted files leave behind is given back, when it is worth it."""

import asyncio

import pytest

from server import heap
from server.heap import MANY, Heap
from tmpfs_core import vnops
from tmpfs_core.access import ROOT
from tmpfs_core.frames import BLOCK
from tmpfs_core.mount import Mount
from tmpfs_core.node import Node


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The calls of malloc_trim."""
    calls: list[int] = []
    monkeypatch.setattr(heap, "_malloc_trim", calls.append)
    monkeypatch.setattr(heap, "QUIET", 0)
    return calls


@pytest.fixture
def mount() -> Mount:
    return Mount(MANY * BLOCK, 10 * MANY)


def watching(*mounts: Mount) -> Heap:
    heap = Heap()
    for mount in mounts:
        heap.watch(mount)
    return heap


def create(mount: Mount, count: int) -> None:
    for number in range(count):
        vnops.create(mount.root, b"%d" % number, 0o644, ROOT, 0)


def delete(mount: Mount, count: int) -> None:
    for entry in list(vnops.readdir(mount.root, 0))[:count]:
        vnops.remove(entry, ROOT)


async def look() -> None:
    """Let a timer of no seconds that was set before this one go off."""
    looked = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0, looked.set_result, None)
    await looked


async def test_many_deleted_files_are_given_back_once(mount: Mount, trims: list[int]) -> None:
    watching(mount)
    create(mount, MANY)
    delete(mount, MANY)
    assert trims == []
    await look()
    assert trims == [0]
    create(mount, 1)
    delete(mount, 1)
    await look()
    assert trims == [0]


async def test_few_deleted_files_are_not_worth_it_until_there_are_many(
    mount: Mount, trims: list[int]
) -> None:
    watching(mount)
    create(mount, MANY)
    delete(mount, MANY - 1)
    await look()
    assert trims == []
    delete(mount, 1)
    await look()
    assert trims == [0]


async def test_while_more_files_are_left_than_were_deleted_nothing_is_done(
    mount: Mount, trims: list[int]
) -> None:
    watching(mount)
    create(mount, 2 * MANY + 1)
    delete(mount, MANY)
    await look()
    assert trims == []


async def test_all_mounts_that_are_watched_count_and_their_memory_once(trims: list[int]) -> None:
    one = Mount(MANY * BLOCK, 10 * MANY)
    two = Mount(MANY * BLOCK, 10 * MANY, memory=one.memory)
    heap = watching(one, two)
    create(one, 2 * MANY)
    create(two, MANY)
    delete(two, MANY)
    await look()
    assert trims == []  # more are left
    heap.forget(one)
    create(two, MANY)
    delete(two, MANY)
    await look()
    assert trims == [0]


async def test_the_pages_of_a_large_file_count(mount: Mount, trims: list[int]) -> None:
    watching(mount)
    node: Node = vnops.create(mount.root, b"large", 0o644, ROOT, 0).node
    vnops.open(node)
    for block in range(MANY):
        vnops.write(node, block * BLOCK, memoryview(b"x"), ROOT)
    vnops.close(node)
    vnops.unlink(mount.root, b"large", ROOT)
    await look()
    assert trims == [0]


async def test_a_system_without_malloc_trim_will_do(
    mount: Mount, monkeypatch: pytest.MonkeyPatch, trims: list[int]
) -> None:
    monkeypatch.setattr(heap, "_malloc_trim", None)
    watching(mount)
    create(mount, MANY)
    delete(mount, MANY)
    await look()
    monkeypatch.setattr(heap, "_malloc_trim", trims.append)
    delete(mount, 0)
    await look()
    assert trims == []


async def test_nothing_is_done_after_close(mount: Mount, trims: list[int]) -> None:
    made = watching(mount)
    create(mount, MANY)
    delete(mount, MANY)
    made.close()
    await look()
    assert trims == []
