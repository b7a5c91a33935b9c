"""nodes: what they are on the server, and whether they still are."""

import errno
import os

import pytest

from client.filesystem import FileSystem
from client.fuse.directories import Directories
from client.fuse.nodes import Node, Nodes
from client.session import ROOT
from server.wire.constants import GETATTR_ALL
from server.wire.messages import Tgetattr
from tests.server.peer import raises_errno


@pytest.fixture
async def nodes(fs: FileSystem) -> Nodes:
    """Those of a file system in which there is the file ``a``."""
    await fs.write_bytes("/a", b"data")
    session = await fs._session()
    return Nodes(fs, session, await session.call(Tgetattr, ROOT, GETATTR_ALL))


def has_fid(node: Node) -> bool:
    return node.session is not None


@pytest.fixture
async def listed(nodes: Nodes) -> Node:
    """``a``, which was found in a listing, and has no fid."""
    await Directories(nodes, 60.0).begin(nodes.root)
    node = nodes.named(nodes.root, b"a")
    assert not has_fid(node)
    return node


async def test_what_was_listed_can_be_opened(nodes: Nodes, listed: Node) -> None:
    session = await nodes.fs._session()
    _, found, head = await nodes.opened(listed, session, os.O_RDONLY, 100)
    assert (found.st_size, head) == (4, b"data")
    assert not has_fid(listed)
    await nodes.fid(listed, session)
    assert has_fid(listed)
    _, found, head = await nodes.opened(listed, session, os.O_RDWR, 0)
    assert (found.st_size, head) == (4, None)


@pytest.mark.parametrize("replaced", [False, True])
async def test_what_is_not_there_any_more_is_stale(
    nodes: Nodes, listed: Node, replaced: bool
) -> None:
    await nodes.fs.unlink("/a")
    if replaced:
        await nodes.fs.write_bytes("/a", b"data")
    session = await nodes.fs._session()
    with raises_errno(errno.ESTALE):
        await nodes.opened(listed, session, os.O_RDONLY, 0)
    with raises_errno(errno.ESTALE):
        await nodes.fid(listed, session)
