"""Fixtures of the server's tests; whatever a test does, the file system must be whole after it."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

from tmpfs_core.mount import Mount

from .peer import MakePeer, Peer, peers_of


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
    """Makes peers of one file system; arguments: msize, lock_wait, begin."""
    with peers_of(mount) as make:
        yield make


@pytest.fixture
def peer(peers: MakePeer) -> Peer:
    """A peer that has agreed on 1 MiB and attached fid ROOT."""
    return peers()
