"""A real, small disk under the swap file: full is no space for the client, never SIGBUS.

The disks are ext4 images, mounted through a loop device; that needs root.
"""

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from server.address import Tcp
from server.limits import Limits
from server.listener import Server
from server.wire import messages as m
from server.wire.constants import O_RDWR
from tests.server.peer import SocketPeer, store_of
from tests.server.test_main import run
from tests.tmpfs_core.paging import pattern
from tmpfs_core.frames import FRAME
from tmpfs_core.memory import Memory
from tmpfs_core.mount import Mount
from tmpfs_core.swap import Swap, SwapFile

MIB = 1 << 20
TOOLS = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("mkfs.ext4", path=TOOLS),
    reason="needs root, to mount, and Debian's package e2fsprogs",
)


@contextlib.contextmanager
def disk(place: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` MiB, mounted."""
    image, top = place / "image", place / "disk"
    image.touch()
    os.truncate(image, size * MIB)
    top.mkdir()
    environ = {"PATH": TOOLS}
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True, env=environ)
    subprocess.run(["mount", "-o", "loop", image, top], check=True, env=environ)
    try:
        yield top
    finally:
        subprocess.run(["umount", top], check=True, env=environ)


async def fill(peer: SocketPeer, fid: int) -> list[bytes]:
    """What could be written until there was no space."""
    chunks: list[bytes] = []
    offset = 0
    while True:
        chunk = pattern(len(chunks), 64 * 1024)
        try:
            count = (await peer.call(m.Twrite(fid, offset, chunk))).count
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return chunks
        chunks.append(chunk[:count])
        offset += count


def test_no_room_for_the_first_step_is_refused_at_start(tmp_path: Path) -> None:
    with disk(tmp_path, 40) as top:
        swap = f"{top}/swap"
        done = run("serve", "--size", "256m", "--ram", "8m", "--swap", swap)
        assert done.returncode == 2
        assert done.stderr == f"tmpfs9p: --swap: {swap}: No space left on device\n"
        assert sorted(os.listdir(top)) == ["lost+found"]


@contextlib.asynccontextmanager
async def spilling(top: Path) -> AsyncIterator[tuple[Mount, Tcp]]:
    """A server with 8 MiB of RAM, whose swap may grow beyond the disk; it must end empty."""
    swap = Swap([SwapFile(f"{top}/swap", 200 * MIB // FRAME)])
    memory = Memory(8 * MIB // FRAME, swap)
    mount = Mount(256 * MIB, 100, memory=memory)
    server = Server(store_of(mount), 1 << 20, Limits())
    try:
        yield mount, server.listen(Tcp("127.0.0.1", 0))
        assert (mount.blocks.used, memory.ram.used, swap.used) == (0, 0, 0)
        mount.check()
    finally:  # a server that goes on would keep its loop from ending
        await server.stop()
        swap.close()


async def holds(peer: SocketPeer, fid: int, chunks: list[bytes]) -> bool:
    """Whether the file holds these."""
    offset = 0
    for chunk in chunks:
        if (await peer.call(m.Tread(fid, offset, len(chunk)))).data != chunk:
            return False
        offset += len(chunk)
    return True


async def test_a_full_disk_is_no_space_and_loses_nothing(tmp_path: Path) -> None:
    with disk(tmp_path, 100) as top:
        async with spilling(top) as (mount, address):
            peer = await (await SocketPeer.connect(address)).begin(1 << 20)
            fid = await peer.create(b"file", flags=O_RDWR)
            chunks = await fill(peer, fid)
            assert 64 * MIB < sum(map(len, chunks)) < 100 * MIB
            assert await holds(peer, fid, chunks)
            await peer.call(m.Tremove(fid))
            assert mount.blocks.used == 0
            again = await peer.create(b"again", flags=O_RDWR)
            assert (await peer.call(m.Twrite(again, 0, b"works"))).count == 5
            await peer.call(m.Tremove(again))
            await peer.close()


async def test_a_disk_that_gets_full_under_load_fails_nobody_and_loses_nothing(
    tmp_path: Path,
) -> None:
    """Of six clients, each fills what space there is, while the others go on."""
    with disk(tmp_path, 100) as top:
        async with spilling(top) as (_, address):
            peers = [await (await SocketPeer.connect(address)).begin(1 << 20) for _ in range(6)]

            async def work(number: int, peer: SocketPeer) -> int:
                stored = 0
                for _ in range(2):
                    fid = await peer.create(b"%d" % number, flags=O_RDWR)
                    chunks = await fill(peer, fid)
                    assert await holds(peer, fid, chunks)
                    stored += sum(map(len, chunks))
                    await peer.call(m.Tremove(fid))
                return stored

            stored = await asyncio.gather(*itertools.starmap(work, enumerate(peers)))
            assert sum(stored) > 100 * MIB
            for peer in peers:
                await peer.close()
