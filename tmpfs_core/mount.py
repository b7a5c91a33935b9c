"""Mount: one file system, its limits, its accounting and its root.

Rules of this file:

* Sizes are bytes outside and frames (4 KiB) inside; what is charged is what is held, exactly.
* File data, long symbolic links and extended attributes are charged to ``blocks``; each node, and
  each further hard link, to ``inodes`` (as in Linux' tmpfs: what can not be given up must be
  limited).
* Several mounts may share one memory, which knows pages by the number of their file: no two of
  their files have the same.
"""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .access import ROOT
from .accounting import Blocks, Budget
from .directory import NAME_MAX
from .frames import FRAME
from .memory import Memory
from .node import DirNode, FileNode, Node
from .vnode import check


class Statfs(NamedTuple):
    """statfs(2) of a mount, sizes in units of ``bsize`` bytes."""

    bsize: int
    blocks: int
    bfree: int
    files: int
    ffree: int
    fsid: int
    namelen: int


class Mount:
    """A tmpfs.

    Args:
        size: bytes of file data (and extended attributes) that fit, rounded down to frames.
        nr_inodes: nodes and further hard links that fit.
        mode, uid, gid: of the root directory, as in tmpfs(5).
        memory: RAM and swap for its pages; else it gets RAM for all of its size.
        max_depth: how many directories there may be below one another.

    Raises:
        OSError: ENOMEM, the host refuses the address space.
    """

    def __init__(
        self,
        size: int,
        nr_inodes: int,
        mode: int = 0o1777,
        uid: int = ROOT.uid,
        gid: int = 0,
        memory: Memory | None = None,
        max_depth: int = 2048,
    ) -> None:
        self.memory = memory or Memory(size // FRAME)
        self.blocks = Blocks(size // FRAME)
        self.inodes = Budget(nr_inodes)
        self.max_depth = max_depth
        self._first_gen = int.from_bytes(os.urandom(4), "little")
        #: Nodes without a name that somebody still holds, by ino.
        self.orphans: dict[int, Node] = {}
        #: The directories that keep a listing, the oldest first, and the bytes of these.
        self.listed: dict[DirNode, None] = {}
        self.listed_bytes = 0
        #: Called when so many nodes and pages of files at rest are freed.
        self.on_freed: Callable[[int], None] = lambda _: None
        self.inodes.take(1)
        self.root = DirNode(self, mode & 0o7777, uid, gid)
        self.root.nlink += 1  # its ".." is itself

    def next_identity(self) -> tuple[int, int]:
        """A new (ino, gen).  gen starts at random, so that no two runs of a server agree on one."""
        ino = self.memory.next_ino()
        return ino, (self._first_gen + ino) & 0xFFFFFFFF

    def statfs(self) -> Statfs:
        return Statfs(
            bsize=FRAME,
            blocks=self.blocks.limit,
            bfree=self.blocks.free,
            files=self.inodes.limit,
            ffree=self.inodes.free,
            fsid=self._first_gen,
            namelen=NAME_MAX,
        )

    def clear(self) -> Iterator[None]:
        """Free all but the root, a node at each step; nobody holds any of it, nor comes to."""
        todo: list[DirNode] = [self.root]
        while todo:
            directory = todo.pop()
            for entry in list(directory.entries.after(0)):
                directory.leave(entry)
                node = entry.node
                if isinstance(node, DirNode):
                    todo.append(node)
                    node.nlink = 0
                else:
                    node.nlink -= 1
                if node.nlink:
                    self.inodes.give(1)
                elif not node.is_dir:
                    node.free()
                yield
            if directory is not self.root:
                directory.free()

    def check(self) -> None:
        """Assert the invariants of the whole file system (for tests)."""
        links: dict[int, int] = {}
        nodes = {self.root.ino: self.root, **self.orphans}
        todo: list[Node] = [self.root]
        while todo:
            node = todo.pop()
            if isinstance(node, DirNode):
                node.entries.check()
                children = list(node.entries.after(0))
                assert node.size == 20 * (len(children) + 2)
                below = [child.node for child in children if isinstance(child.node, DirNode)]
                assert node.nlink == 2 + len(below)
                assert node.height == max((child.height + 1 for child in below), default=0)
                assert (node in self.listed) == (node.listing is not None)
                for child in children:
                    assert child.parent is node
                    links[child.node.ino] = links.get(child.node.ino, 0) + 1
                    if child.node.ino not in nodes:
                        nodes[child.node.ino] = child.node
                        todo.append(child.node)
        blocks = swapped = 0
        for node in nodes.values():
            blocks += node.xattr_frames
            if isinstance(node, FileNode):
                check(node.uobj, node.vnode)
                blocks += node.uobj.charged
                swapped += sum(it.mask.bit_count() for it in node.uobj.swapped.values())
            elif not node.is_dir:
                blocks += node.blocks >> 3
            if not node.is_dir:
                assert node.nlink == links.get(node.ino, 0)
        listings = [node.listing[1] for node in self.listed if node.listing]
        assert self.listed_bytes == sum(map(len, listings))
        assert all(node.refs and not node.nlink for node in self.orphans.values())
        assert blocks == self.blocks.used, f"{blocks} frames held, {self.blocks.used} charged"
        assert swapped == self.blocks.swapped, f"{swapped} frames are in swap"
        further_links = sum(count - 1 for count in links.values())
        assert len(nodes) + further_links == self.inodes.used
