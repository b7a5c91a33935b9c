"""A real, small disk under the swap file: full is no space for the client, never SIGBUS.

The disks are ext4 images, mounted through a loop device; that needs root.
"""

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.config import Tcp
from server.limits import Limits
from server.listener import Server
from server.wire import messages as m
from server.wire.constants import O_RDWR
from tests.server.peer import SocketPeer, store_of
from tests.server.test_main import run
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
        chunk = os.urandom(64 * 1024)
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


async def test_a_full_disk_is_no_space_and_loses_nothing(tmp_path: Path) -> None:
    with disk(tmp_path, 100) as top:
        swap = Swap([SwapFile(f"{top}/swap", 200 * MIB // FRAME)])
        memory = Memory(8 * MIB // FRAME, swap)
        mount = Mount(256 * MIB, 100, memory=memory)
        server = Server(store_of(mount), 1 << 20, Limits())
        peer = await SocketPeer.connect(server.listen(Tcp("127.0.0.1", 0)))
        await peer.begin(1 << 20)
        fid = await peer.create(b"file", flags=O_RDWR)
        chunks = await fill(peer, fid)
        assert 64 * MIB < sum(map(len, chunks)) < 100 * MIB
        offset = 0
        for chunk in chunks:
            reply = await peer.call(m.Tread(fid, offset, len(chunk)))
            assert bytes(reply.data) == chunk
            offset += len(chunk)
        await peer.call(m.Tremove(fid))
        assert (mount.blocks.used, memory.ram.used, swap.used) == (0, 0, 0)
        again = await peer.create(b"again", flags=O_RDWR)
        assert (await peer.call(m.Twrite(again, 0, b"works"))).count == 5
        mount.check()
        await peer.close()
        await server.stop()
        swap.close()
