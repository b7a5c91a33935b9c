"""Fixtures of the server's tests; whatever a test does, the file system must be whole after it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

from tmpfs_core import pageout
from tmpfs_core.mount import Mount
from tmpfs_core.swap import read_in, write_out

from .oldpeer import OldPeer
from .peer import MakePeer, Peer, peers_of
from .spilling import Gate, Spilling, spilling


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Sockets are tested on the loop that the command uses."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def mount() -> Iterator[Mount]:
    """A file system of 16 MiB and 1000 inodes."""
    mount = Mount(size=16 << 20, nr_inodes=1000)
    yield mount
    mount.check()


@pytest.fixture
def peers(mount: Mount) -> Iterator[MakePeer]:
    """Makes peers of one file system; arguments: msize, lock_wait, begin, limits."""
    with peers_of(mount) as make:
        yield make


@pytest.fixture
def peer(peers: MakePeer) -> Peer:
    """A peer that has agreed on 1 MiB and attached fid ROOT."""
    return peers()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Spilling]:
    """A server with plenty of RAM and swap: only what a test pages out is in swap."""
    async with spilling(tmp_path, 8192, 2048) as world:
        yield world


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Spilling]:
    """A server with 1 MiB of RAM and 4 MiB of swap."""
    async with spilling(tmp_path, 256, 1024) as world:
        yield world


@pytest.fixture
async def reads(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    """Holds all reading from swap until it is opened."""
    gate = Gate(read_in)
    monkeypatch.setattr(pageout, "read_in", gate)
    monkeypatch.setattr(pageout, "read_now", lambda _: False, raising=False)
    yield gate
    gate.open()


@pytest.fixture
async def writes(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    """Holds all writing to swap until it is opened."""
    gate = Gate(write_out)
    monkeypatch.setattr(pageout, "write_out", gate)
    yield gate
    gate.open()


@pytest.fixture
def linux(peers: MakePeer) -> Peer:
    """A client of 9P2000.L."""
    return peers()


@pytest.fixture
def plain(peers: MakePeer) -> OldPeer:
    """A client of 9P2000."""
    return OldPeer(peers(begin=False), unix=False).begin()


@pytest.fixture
def unix(peers: MakePeer) -> OldPeer:
    """A client of 9P2000.u."""
    return OldPeer(peers(begin=False), unix=True).begin()


@pytest.fixture(params=["plain", "unix"])
def client(request: pytest.FixtureRequest) -> OldPeer:
    """A client of 9P2000, then one of 9P2000.u."""
    made: OldPeer = request.getfixturevalue(request.param)
    return made
