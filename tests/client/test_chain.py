"""chain: requests that need one another, at servers that do them in any order."""

import errno
import os
from collections.abc import Sequence
from typing import Any

import pytest

from client import chain
from client.filesystem import FileSystem
from client.session import ROOT, Session
from server.wire.constants import (
    GETATTR_ALL,
    O_CREAT,
    O_EXCL,
    O_RDWR,
    SETATTR_MODE,
    SETATTR_SIZE,
)
from server.wire.messages import Tgetattr, Tmkdir
from tests.server.peer import raises_errno

#: Orders in which a server may do what was asked of it together.
ORDERS = pytest.mark.parametrize("backwards", [False, True])


@pytest.fixture
async def session(fs: FileSystem, backwards: bool, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Of a server that does requests which are made together in their order, or the other way."""
    session = await fs._session()
    batch = session.connection.batch

    async def reversed_batch(requests: Sequence[tuple[Any, ...]]) -> list[Any]:
        replies = []
        for request in reversed(requests):
            replies += await batch([request])
        return replies[::-1]

    if backwards:
        monkeypatch.setattr(session.connection, "batch", reversed_batch)
    return session


@ORDERS
async def test_what_has_a_name_is_entered(fs: FileSystem, session: Session) -> None:
    await fs.write_bytes("/f", b"12345")
    fid, found = await chain.enter(session, ROOT, b"f")
    assert found.st_size == 5
    assert found.st_ino == (await session.call(Tgetattr, fid, GETATTR_ALL)).st_ino
    with raises_errno(errno.ENOENT):
        await chain.enter(session, ROOT, b"none")


@ORDERS
async def test_several_names_at_a_time(fs: FileSystem, session: Session) -> None:
    for number in range(5):
        await fs.write_bytes(f"/{number}", bytes(number))
    found = await chain.enter_all(session, ROOT, [b"3", b"none", b"4"])
    assert isinstance(found[1], FileNotFoundError)
    assert [one[1].st_size for one in (found[0], found[2]) if isinstance(one, tuple)] == [3, 4]


@ORDERS
async def test_a_copy_is_opened_and_read(fs: FileSystem, session: Session) -> None:
    await fs.write_bytes("/f", b"12345")
    fid, _ = await chain.enter(session, ROOT, b"f")
    _, found, head = await chain.open_copy(session, fid, [], os.O_RDONLY, 3)
    assert (found.st_size, head) == (5, b"123")
    _, found, head = await chain.open_copy(session, fid, [], os.O_RDWR)
    assert (found.st_size, head) == (5, None)


@ORDERS
async def test_a_directory_is_listed(fs: FileSystem, session: Session) -> None:
    await fs.write_bytes("/f", b"")
    assert [name for *_, name in await chain.records(session, ROOT)] == [b"f"]


@pytest.mark.parametrize("backwards", [False])
async def test_a_directory_is_listed_with_attributes(
    fs: FileSystem, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        await fs.write_bytes(f"/{number:02}", bytes(number))
    names = await fs.listdir("/")
    every = [chain.Listed(os.fsencode(name), await fs.stat(name), False) for name in names]
    assert await chain.listed(session, ROOT, 100) == (every, 0)
    monkeypatch.setattr(chain, "PLUS", 2000)  # some 12 names
    assert await chain.listed(session, ROOT, 100) == (every, 0)
    some, rest = await chain.listed(session, ROOT, 15)
    assert some == every[: len(some)]
    others = [os.fsdecode(name) for *_, name in await chain.records(session, ROOT, rest)]
    assert others == names[len(some) :]
    assert 15 <= len(some) < 30


@ORDERS
async def test_a_file_is_created(fs: FileSystem, session: Session) -> None:
    flags = O_RDWR | O_CREAT | O_EXCL
    made = await chain.create(session, ROOT, b"f", flags, 0o640, 0)
    assert made.found.st_ino == (await fs.stat("/f")).st_ino
    assert made.found.st_mode == 0o100640
    assert made.above is None or made.above == await fs.stat("/")
    with raises_errno(errno.EEXIST):
        await chain.create(session, ROOT, b"f", flags, 0o640, 0)


@ORDERS
async def test_anything_else_is_made(fs: FileSystem, session: Session) -> None:
    made = await chain.make(session, ROOT, Tmkdir, b"d", 0o750, 0)
    assert made.found == await fs.stat("/d")
    assert made.above is None or made.above == await fs.stat("/")
    with raises_errno(errno.EEXIST):
        await chain.make(session, ROOT, Tmkdir, b"d", 0o750, 0)


@ORDERS
async def test_a_file_is_as_it_was_changed(fs: FileSystem, session: Session) -> None:
    await fs.write_bytes("/f", b"12345")
    fid, _ = await chain.enter(session, ROOT, b"f")
    fields = SETATTR_MODE | SETATTR_SIZE, 0o600, 0, 0, 2, 0, 0, 0, 0
    found = await chain.change(session, fid, fields)
    assert (found.st_mode, found.st_size) == (0o100600, 2)
    with raises_errno(errno.EISDIR):
        await chain.change(session, ROOT, (SETATTR_SIZE, 0, 0, 0, 2, 0, 0, 0, 0))


@pytest.mark.parametrize("backwards", [False])
async def test_fids_that_nobody_gets_are_used_again(session: Session) -> None:
    for _ in range(50):
        with raises_errno(errno.ENOENT):
            await chain.enter(session, ROOT, b"none")
        with raises_errno(errno.EISDIR):
            await chain.open_copy(session, ROOT, [], os.O_RDWR)
    assert session._last < 10
