"""directories: what is believed to be in them, and for how long."""

import asyncio
import errno
import os
import time
from typing import Any

import pytest

from client import chain
from client.filesystem import FileSystem
from client.fuse.directories import MISSES, WALKED, WALKED_AHEAD, Directories
from client.fuse.nodes import Look, Node, Nodes
from client.session import ROOT
from server.wire.codec import Message
from server.wire.constants import GETATTR_ALL
from server.wire.messages import Tgetattr, Treaddir, Twalk
from server.wire.own import Treaddirplus

from ..cable import Cable

TRUST = 60.0


@pytest.fixture(params=[True, False], ids=["own", "L"])
async def nodes(request: pytest.FixtureRequest, fs: FileSystem) -> Nodes:
    """Of a server of this project, and of another."""
    for name in ("a", "b", "c"):
        await fs.write_bytes(f"/{name}", b"data")
    session = await fs._session()
    session.connection.plus = request.param
    return Nodes(fs, session, await session.call(Tgetattr, ROOT, GETATTR_ALL))


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


async def test_a_look_that_ends_leaves_others_going_on(
    nodes: Nodes, directories: Directories
) -> None:
    other = Look()
    nodes.root.listing.looking.append(other)
    await directories.look(nodes.root, [b"a"])
    await directories.names(nodes.root)
    (left,) = nodes.root.listing.looking
    assert left is other


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


async def test_what_is_read_is_known_then(
    nodes: Nodes, directories: Directories, cable: Cable
) -> None:
    names = await directories.begin(nodes.root)
    await directories.know(nodes.root, names)
    known = nodes.root.listing.known
    assert sorted(known) == [b"a", b"b", b"c"]
    for name, one in known.items():
        assert one is not None
        assert one.found == await nodes.fs.stat(name)
    own = (await nodes.fs._session()).connection.plus
    asked = cable.requests[Treaddirplus.TYPE], cable.requests[Treaddir.TYPE]
    assert asked == ((1, 0) if own else (0, 2))


async def test_what_has_no_extended_attributes_is_known_if_the_server_tells(
    nodes: Nodes, directories: Directories
) -> None:
    await nodes.fs.setxattr("/b", "user.a", b"value")
    names = await directories.begin(nodes.root)
    await directories.know(nodes.root, names)
    own = (await nodes.fs._session()).connection.plus
    a, b = (nodes.named(nodes.root, name) for name in (b"a", b"b"))
    assert (a.is_plain, b.is_plain) == (own, False)
    directories.touched(nodes.root, b"a")
    assert not a.is_plain
    assert not nodes.root.is_plain


async def test_of_a_large_directory_the_first_names_are_known(
    nodes: Nodes, directories: Directories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "PLUS", 2000)  # some 12 names
    for number in range(40):
        await nodes.fs.write_bytes(f"/{number}", b"")
    names = await directories.names(nodes.root, 15)
    assert sorted(names) == sorted(map(os.fsencode, await nodes.fs.listdir("/")))
    known = [name for name in names if nodes.root.listing.known[name] is not None]
    assert known == names[: len(known)]
    own = (await nodes.fs._session()).connection.plus
    assert (15 <= len(known) < 30) if own else not known
    await directories.know(nodes.root, names)
    assert all(nodes.root.listing.known.values())


async def test_what_may_not_be_searched_is_listed_by_name(
    nodes: Nodes, directories: Directories, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await nodes.fs._session()
    call = session.call

    async def refused(kind: type[Message], *fields: Any) -> Any:
        if kind is Treaddirplus:
            raise PermissionError(errno.EACCES, "it may not be searched")
        return await call(kind, *fields)

    monkeypatch.setattr(session, "call", refused)
    assert sorted(await directories.begin(nodes.root)) == [b"a", b"b", b"c"]


@pytest.fixture
async def beside(nodes: Nodes, directories: Directories) -> list[Node]:
    """Directories in the root, each with a file in it; the kernel was told of them."""
    for number in range(8):
        await nodes.fs.mkdir(f"/{number}")
        await nodes.fs.write_bytes(f"/{number}/in", b"data")
    names = await directories.begin(nodes.root)
    await directories.know(nodes.root, names)
    found = [one.node for one in nodes.root.listing.known.values() if one and one.found.is_dir]
    for node in found:
        node.lookups += 1
    return found


def read_ahead(beside: list[Node]) -> list[Node]:
    return [node for node in beside if node.listing.ahead is not None]


async def test_who_reads_one_directory_after_the_other_has_the_next_read_ahead(
    directories: Directories, beside: list[Node], cable: Cable
) -> None:
    for node in beside[:WALKED]:
        assert not read_ahead(beside)
        assert await directories.begin(node) == [b"in"]
    assert read_ahead(beside) == beside[WALKED : WALKED + WALKED_AHEAD]
    await asyncio.gather(*directories._tasks)
    asked = dict(cable.requests)
    directories.trust = 0.0  # no more is read ahead
    assert await directories.begin(beside[WALKED]) == [b"in"]
    await directories.know(beside[WALKED], [b"in"])
    assert asked == cable.requests


async def test_each_that_was_read_has_another_read_ahead(
    directories: Directories, beside: list[Node]
) -> None:
    for node in beside[: WALKED + 1]:
        await directories.begin(node)
    assert read_ahead(beside) == beside[WALKED + 1 :][:WALKED_AHEAD]


@pytest.mark.parametrize("late", [False, True], ids=["changed", "late"])
async def test_what_was_read_ahead_is_not_told_if_it_may_be_wrong(
    nodes: Nodes, directories: Directories, beside: list[Node], late: bool
) -> None:
    for node in beside[:WALKED]:
        await directories.begin(node)
    await asyncio.gather(*directories._tasks)
    node = beside[WALKED]
    await nodes.fs.write_bytes(node.path + b"/new", b"")
    if late:
        node.listing.whole = 0.0
    else:
        directories.touched(node, b"new")
    assert sorted(await directories.begin(node)) == [b"in", b"new"]


async def test_what_could_not_be_read_ahead_is_read_when_somebody_asks(
    directories: Directories, beside: list[Node]
) -> None:
    async def refused() -> list[bytes]:
        raise PermissionError

    beside[0].listing.ahead = directories._in_background(refused())
    assert await directories.begin(beside[0]) == [b"in"]


async def test_an_empty_directory_is_read_ahead(
    nodes: Nodes, directories: Directories, beside: list[Node]
) -> None:
    node = beside[WALKED]
    await nodes.fs.unlink(node.path + b"/in")
    for other in beside[:WALKED]:
        await directories.begin(other)
    assert node.listing.ahead is not None
    assert await directories.begin(node) == []


async def test_what_the_kernel_has_forgotten_is_not_read_ahead(
    directories: Directories, beside: list[Node]
) -> None:
    beside[WALKED].lookups -= 1
    for node in beside[:WALKED]:
        await directories.begin(node)
    assert read_ahead(beside) == beside[WALKED + 1 :][:WALKED_AHEAD]


async def test_what_is_distrusted_is_not_known_even_if_it_was_on_its_way(
    nodes: Nodes, directories: Directories, cable: Cable
) -> None:
    root = nodes.root
    await nodes.fs.mkdir("/empty")
    empty, _ = await nodes.enter(await nodes.fs._session(), root, b"empty")
    assert await directories.names(empty) == []
    assert is_known_to_be_missing(empty, b"new")
    going_on = asyncio.gather(directories.look(root, [b"a"]), directories.names(root))
    await cable.passed(Twalk)
    directories.distrust()
    await going_on
    assert not is_known_to_be_missing(empty, b"new")
    assert not root.listing.known.get(b"a")
    assert not is_known_to_be_missing(root, b"d")
    nodes.let_go(empty)


async def test_without_trust_nothing_is_known(nodes: Nodes) -> None:
    directories = Directories(nodes, 0.0)
    await directories.look(nodes.root, [b"a"])
    await directories.names(nodes.root)
    directories.missed(nodes.root, False)
    assert not nodes.root.listing.known
    assert not is_known_to_be_missing(nodes.root, b"d")
