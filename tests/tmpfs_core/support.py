"""What the tests of the core share: a clock to turn by hand, and looks that leave no trace."""

import ctypes
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tmpfs_core import node as node_module
from tmpfs_core import vnops
from tmpfs_core import xattr as xattr_module
from tmpfs_core.access import ROOT, Cred
from tmpfs_core.directory import Dirent
from tmpfs_core.frames import FRAME, Arena
from tmpfs_core.mount import Mount
from tmpfs_core.node import DirNode, FileNode, Node, SymlinkNode

USER = Cred(1000)
SECOND = 10**9
DAY = 86_400 * SECOND


class Clock:
    """The time of the file system; it moves only when told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.time = 10**18
        for module in (node_module, vnops, xattr_module):
            patch.setattr(module, "now", self)

    def __call__(self) -> int:
        return self.time

    def tick(self, nanoseconds: int = SECOND) -> int:
        self.time += nanoseconds
        return self.time


@contextmanager
def refused(code: int) -> Iterator[None]:
    """What happens inside must be refused with this errno."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 the errno is looked at below
        yield
    assert caught.value.errno == code


def make_file(mount: Mount, name: bytes = b"file", data: bytes = b"") -> FileNode:
    """A new file in the root that holds ``data``."""
    node = vnops.create(mount.root, name, 0o644, ROOT, 0).node
    assert isinstance(node, FileNode)
    if data:
        assert put(node, data) == len(data)
    return node


def make_dir(parent: Node, name: bytes = b"dir", mode: int = 0o755) -> DirNode:
    node = vnops.mkdir(parent, name, mode, ROOT, 0).node
    assert isinstance(node, DirNode)
    return node


def put(node: Node, data: bytes, offset: int = 0, cred: Cred = ROOT, append: bool = False) -> int:
    """Write ``data``; how much of it was stored."""
    vnops.open(node)
    try:
        return vnops.write(node, offset, memoryview(data), cred, append)
    finally:
        vnops.close(node)


def get(node: Node, offset: int, count: int) -> bytes:
    vnops.open(node)
    try:
        return b"".join(vnops.read(node, offset, count))
    finally:
        vnops.close(node)


def peek(node: Node, offset: int = 0, count: int = vnops.SIZE_MAX) -> bytes:
    """Bytes of a file, read without changing its atime."""
    atime = node.atime
    data = get(node, offset, count)
    node.atime = atime
    return data


def used(mount: Mount) -> int:
    """Frames in use according to statfs."""
    numbers = mount.statfs()
    return numbers.blocks - numbers.bfree


def inodes_used(mount: Mount) -> int:
    numbers = mount.statfs()
    return numbers.files - numbers.ffree


def names(directory: DirNode) -> list[bytes]:
    """The names in a directory, in listing order."""
    return [entry.name for entry in directory.entries.after(0)]


def times(node: Node) -> tuple[int, int, int]:
    return node.atime, node.mtime, node.ctime


def resident() -> int:
    """Bytes of RAM that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * FRAME


def in_core(mem: memoryview) -> int:
    """How many frames of this memory the host holds in RAM (pagemap(5))."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(mem))
    with open("/proc/self/pagemap", "rb") as pagemap:
        pagemap.seek(address // FRAME * 8)
        entries = struct.unpack(f"<{len(mem) // FRAME}Q", pagemap.read(len(mem) // FRAME * 8))
    return sum(entry >> 63 for entry in entries)


def no_berth_is_taken(arena: Arena) -> bool:
    return len(arena._berths) == arena._berthed


def facts(node: Node) -> tuple[object, ...]:
    """Everything that an operation could change in one node, as a value."""
    entries = list(node.entries.after(0)) if isinstance(node, DirNode) else []
    return (
        *(node.ino, node.gen, node.mode, node.uid, node.gid, node.rdev, node.nlink, node.refs),
        *(node.size, node.blocks, node.version, times(node), node.btime),
        dict(node.xattrs or {}),
        peek(node) if isinstance(node, FileNode) else None,
        node.target if isinstance(node, SymlinkNode) else None,
        [(entry.name, entry.cookie, entry.node.ino) for entry in entries],
    )


def snapshot(mount: Mount) -> dict[int, tuple[object, ...]]:
    """The facts of every node, by ino, and under 0 those of the mount."""
    found: dict[int, tuple[object, ...]] = {0: (mount.statfs(), sorted(mount.orphans))}
    todo: list[Node] = [mount.root, *mount.orphans.values()]
    while todo:
        node = todo.pop()
        if node.ino not in found:
            found[node.ino] = facts(node)
            if isinstance(node, DirNode):
                todo += [entry.node for entry in node.entries.after(0)]
    return found


@dataclass(frozen=True, slots=True)
class World:
    """A small tree with one of each kind::

    /file  /other -> file (hard link)  /empty/  /full/inner  /symlink  /fifo
    and, held but without a name: gone (a file), gone_dir.
    """

    mount: Mount
    root: DirNode
    file: Dirent
    other: Dirent
    empty: Dirent
    full: Dirent
    inner: Dirent
    symlink: Dirent
    fifo: Dirent
    gone: Dirent
    gone_dir: Dirent


Make = Callable[[Node, bytes], Dirent]

#: Every way to make a name that was not there.
MAKERS: dict[str, Make] = {
    "create": lambda parent, name: vnops.create(parent, name, 0o644, ROOT, 0),
    "mkdir": lambda parent, name: vnops.mkdir(parent, name, 0o755, ROOT, 0),
    "symlink": lambda parent, name: vnops.symlink(parent, name, b"target", ROOT, 0),
    "fifo": lambda parent, name: vnops.mknod(parent, name, stat.S_IFIFO | 0o644, 0, ROOT, 0),
    "socket": lambda parent, name: vnops.mknod(parent, name, stat.S_IFSOCK | 0o644, 0, ROOT, 0),
    "device": lambda parent, name: vnops.mknod(parent, name, stat.S_IFCHR | 0o644, 259, ROOT, 0),
    "link": lambda parent, name: vnops.link(
        vnops.lookup(parent.mount.root, b"file", ROOT).node, parent, name, ROOT
    ),
}
