"""directories: what is believed to be in them, and for how long."""

import asyncio
import time

import pytest

from client.attributes import stat_of
from client.filesystem import FileSystem
from client.fuse.directories import MISSES, Directories
from client.fuse.nodes import Node, Nodes
from client.session import ROOT
from server.wire.constants import GETATTR_ALL
from server.wire.messages import Tgetattr, Treaddir, Twalk

from ..cable import Cable

TRUST = 60.0


@pytest.fixture
async def nodes(fs: FileSystem) -> Nodes:
    for name in ("a", "b", "c"):
        await fs.write_bytes(f"/{name}", b"data")
    session = await fs._session()
    return Nodes(fs, session, stat_of(await session.call(Tgetattr, ROOT, GETATTR_ALL)))


@pytest.fixture
def directories(nodes: Nodes) -> Directories:
    return Directories(nodes, TRUST)


def is_known_to_be_missing(parent: Node, name: bytes) -> bool:
    return name not in parent.listing.known and time.monotonic() < parent.listing.whole


async def test_what_is_not_listed_is_not_there(nodes: Nodes, directories: Directories) -> None:
    root = nodes.root
    assert not is_known_to_be_missing(root, b"d")
    assert sorted(await directories.names(root)) == [b"a", b"b", b"c"]
    assert is_known_to_be_missing(root, b"d")
    directories.touched(root, b"d")
    assert not is_known_to_be_missing(root, b"d")


async def test_what_was_looked_at_is_known(nodes: Nodes, directories: Directories) -> None:
    await directories.look(nodes.root, [b"a", b"none"])
    known = nodes.root.listing.known
    assert known[b"a"] is not None
    assert known[b"a"].found.st_size == 4
    assert b"none" not in known


async def test_when_attributes_are_old_the_name_is_there_still(
    nodes: Nodes, directories: Directories
) -> None:
    root = nodes.root
    await directories.look(root, [b"a"])
    one = root.listing.known[b"a"]
    assert one is not None
    await directories.names(root)
    directories._unlearn(root, {b"a": one})
    assert not is_known_to_be_missing(root, b"a")
    assert is_known_to_be_missing(root, b"d")
    root.listing.whole = 0.0
    directories._unlearn(root, {})
    assert not root.listing.known


async def test_what_changes_during_a_look_is_not_known(
    nodes: Nodes, directories: Directories, cable: Cable
) -> None:
    root = nodes.root
    looking = asyncio.create_task(directories.look(root, [b"a", b"b"]))
    listing = asyncio.create_task(directories.names(root))
    await cable.passed(Twalk)
    directories.touched(root, b"a")
    directories.touched(root, b"new")
    await asyncio.gather(looking, listing)
    assert root.listing.known[b"a"] is None
    assert root.listing.known[b"b"] is not None
    assert not is_known_to_be_missing(root, b"new")


async def test_who_asks_for_one_name_after_the_other_has_all_looked_at(
    nodes: Nodes, directories: Directories, cable: Cable
) -> None:
    for _ in range(MISSES):
        directories.missed(nodes.root, True)
    await asyncio.gather(*directories._tasks)
    assert all(nodes.root.listing.known.values())
    assert len(nodes.root.listing.known) == 3


async def test_who_asks_for_what_is_not_there_has_the_names_listed(
    nodes: Nodes, directories: Directories, cable: Cable
) -> None:
    for _ in range(MISSES):
        directories.missed(nodes.root, False)
    await asyncio.gather(*directories._tasks)
    assert is_known_to_be_missing(nodes.root, b"d")
    assert not any(nodes.root.listing.known.values())
    assert cable.requests[Treaddir.TYPE] == 2


async def test_without_trust_nothing_is_known(nodes: Nodes) -> None:
    directories = Directories(nodes, 0.0)
    await directories.look(nodes.root, [b"a"])
    await directories.names(nodes.root)
    directories.missed(nodes.root, False)
    assert not nodes.root.listing.known
    assert not is_known_to_be_missing(nodes.root, b"d")
