"""Any sequence of operations in a small mount does and refuses just what a plain model says.

The mount is small in bytes and inodes, so that both run out all the time.  After each step the
whole file system is compared with the model, and checked for its own invariants.
"""

import stat
from collections.abc import Callable
from random import Random
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tmpfs_core import vnops, xattr
from tmpfs_core.access import ROOT, Cred
from tmpfs_core.directory import Dirent
from tmpfs_core.frames import BLOCK, FRAME
from tmpfs_core.mount import Mount
from tmpfs_core.node import DirNode, FileNode, Node, vref, vrele

from .model import SIZE_MAX, Inode, Model, Name, RefusedError
from .support import DAY, Clock, get, names, peek, put

FRAMES = 80  # 320 KiB: five blocks
INODES = 20
PATTERN = Random(9).randbytes(6 * BLOCK)

T = TypeVar("T")
U = TypeVar("U")

#: Which of the things at hand: its number modulo how many there are.
picks = st.integers(0, 999)
file_names = st.sampled_from([*(bytes([letter]) for letter in b"abcdefab"), b"x" * 255, b"y" * 256])
modes = st.sampled_from([0o644, 0o755, 0o4755, 0o2755, 0o6755, 0o2745, 0o1777, 0])
uids = st.sampled_from([0, 0, 1000])
edges = st.sampled_from(
    [FRAME, 3 * FRAME, BLOCK - FRAME, BLOCK, BLOCK + FRAME, 2 * BLOCK, 1 << 40, SIZE_MAX]
)
offsets = st.integers(0, 200) | st.builds(lambda edge, by: edge + by, edges, st.integers(-3, 3))
lengths = st.integers(0, 50) | st.sampled_from(
    [FRAME - 1, FRAME, FRAME + 1, 3 * FRAME, BLOCK, BLOCK + 5, 5 * BLOCK]
)
xattr_names = st.sampled_from(
    [b"user.a", b"user.b", b"trusted.t", b"security.s", b"system.posix_acl_access", b"other.o"]
)
values = st.builds(
    lambda start, length: PATTERN[start : start + length],
    st.integers(0, 255),
    st.sampled_from([0, 1, 100, FRAME - 10, FRAME, 3 * FRAME, 65536, 65537]),
)


class TmpfsMachine(RuleBasedStateMachine):
    """The core and the model, given the same operations."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.clock = Clock(self.patch)
        self.mount = Mount(FRAMES * FRAME, INODES)
        self.model = Model(FRAMES, INODES, self.clock)
        self.seen_inos = {self.mount.root.ino}
        #: What has a name or a holder.
        self.inodes: list[tuple[Inode, Node]] = [(self.model.root, self.mount.root)]
        assert self.model.root.own is not None
        #: Entries, also such as have been unlinked, of what is in ``inodes``.
        self.entries: list[tuple[Name, Dirent]] = [(self.model.root.own, self.mount.root.entry)]
        #: Those that are held open, each as often as it is.
        self.opened: list[tuple[Inode, Node]] = []
        #: How far a listing came: (directory, place in the model, cookie in the core).
        self.listings: list[tuple[Inode, Node, int, int]] = []

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(length=lengths)
    def populate(self, length: int) -> None:
        """Files, directories and links; some are held, so that they can outlive their names."""
        for where, name in ((0, b"a"), (0, b"b"), (1, b"a"), (2, b"c")):
            self.mkdir(where, name, 0o755, 0, 0)
        for where, name in ((0, b"c"), (1, b"b"), (2, b"a"), (3, b"a")):
            self.create(where, name, 0o6755, 0, 0)
        for what in range(3):
            self.write(what, what * FRAME, what, length, 1000)
        self.symlink(1, b"e", 20, 0)
        self.mknod(0, b"e", stat.S_IFIFO, 0o644, 0)
        self.link(5, 2, b"f")
        self.set_xattr(0, b"user.a", b"value", False, False)
        self.set_xattr(9, b"trusted.t", b"value", False, False)
        for what in (3, 4, 5, 6, 9):
            self.hold(what)

    # What is at hand

    def any_inode(self, pick: int) -> tuple[Inode, Node]:
        return self.inodes[pick % len(self.inodes)]

    def any_entry(self, pick: int) -> tuple[Name, Dirent]:
        return self.entries[pick % len(self.entries)]

    def directory(self, pick: int) -> tuple[Inode, Node]:
        """A directory, seldom something else."""
        fitting = [both for both in self.inodes if both[0].is_dir]
        return self.any_inode(pick) if pick % 16 == 15 else fitting[pick % len(fitting)]

    def file(self, pick: int) -> tuple[Inode, Node]:
        """A regular file if there is one, seldom something else."""
        fitting = [both for both in self.inodes if both[0].is_file]
        if not fitting or pick % 16 == 15:
            return self.any_inode(pick)
        return fitting[pick % len(fitting)]

    def place(self, pick: int, name: bytes, directories: bool) -> tuple[Inode, Node, bytes]:
        """Where an entry is, of a directory or of something else; or where ``name`` would be."""
        fitting = [
            (entry.parent, dirent.parent, entry.name)
            for entry, dirent in self.entries
            if entry.parent is not None
            and dirent.parent is not None
            and entry.inode.is_dir == directories
        ]
        if not fitting or pick % 4 == 3:
            return *self.directory(pick // 4), name
        return fitting[pick // 4 % len(fitting)]

    def attribute(self, pick: int, name: bytes) -> tuple[Inode, Node, bytes]:
        """Something that has an extended attribute and its name; or anything and ``name``."""
        fitting = [(*both, name) for both in self.inodes for name in both[0].xattrs]
        if not fitting or pick % 4 == 3:
            return *self.any_inode(pick // 4), name
        return fitting[pick // 4 % len(fitting)]

    # Doing it twice

    def compare(self, expected: Callable[[], T], actual: Callable[[], U]) -> tuple[T, U] | None:
        """Both results, or None where both refused, for the same reason."""
        try:
            wanted = expected()
        except RefusedError as error:
            refusal = error
        else:
            return wanted, actual()
        with pytest.raises(OSError) as caught:  # noqa: PT011 the errno is looked at below
            actual()
        assert caught.value.errno in refusal.codes
        return None

    def made(self, expected: Callable[[], Name], actual: Callable[[], Dirent]) -> None:
        results = self.compare(expected, actual)
        if results is not None:
            entry, dirent = results
            assert dirent.node.ino not in self.seen_inos
            self.seen_inos.add(dirent.node.ino)
            self.inodes.append((entry.inode, dirent.node))
            self.entries.append((entry, dirent))

    # Names

    @rule(where=picks, name=file_names, mode=modes, uid=uids, gid=uids)
    def create(self, where: int, name: bytes, mode: int, uid: int, gid: int) -> None:
        parent, node = self.directory(where)
        self.made(
            lambda: self.model.make(parent, name, stat.S_IFREG | mode, uid, gid),
            lambda: vnops.create(node, name, mode, Cred(uid), gid),
        )

    @rule(where=picks, name=file_names, mode=modes, uid=uids, gid=uids)
    def mkdir(self, where: int, name: bytes, mode: int, uid: int, gid: int) -> None:
        parent, node = self.directory(where)
        self.made(
            lambda: self.model.make(parent, name, stat.S_IFDIR | mode, uid, gid),
            lambda: vnops.mkdir(node, name, mode, Cred(uid), gid),
        )

    @rule(where=picks, name=file_names, length=st.sampled_from([0, 1, 20, 4095, 4096]), uid=uids)
    def symlink(self, where: int, name: bytes, length: int, uid: int) -> None:
        parent, node = self.directory(where)
        target = b"t" * length
        self.made(
            lambda: self.model.make(parent, name, stat.S_IFLNK | 0o777, uid, 7, target=target),
            lambda: vnops.symlink(node, name, target, Cred(uid), 7),
        )

    @rule(
        where=picks,
        name=file_names,
        kind=st.sampled_from(
            [0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFLNK]
        ),
        mode=modes,
        uid=uids,
    )
    def mknod(self, where: int, name: bytes, kind: int, mode: int, uid: int) -> None:
        parent, node = self.directory(where)
        self.made(
            lambda: self.model.mknod(parent, name, kind | mode, uid, 7, 259),
            lambda: vnops.mknod(node, name, kind | mode, 259, Cred(uid), 7),
        )

    @rule(what=picks, where=picks, name=file_names)
    def link(self, what: int, where: int, name: bytes) -> None:
        inode, node = self.any_inode(what)
        parent, parent_node = self.directory(where)
        results = self.compare(
            lambda: self.model.link(inode, parent, name),
            lambda: vnops.link(node, parent_node, name, ROOT),
        )
        if results is not None:
            self.entries.append(results)

    @rule(where=picks, name=file_names)
    def lookup(self, where: int, name: bytes) -> None:
        parent, node = self.directory(where)
        results = self.compare(
            lambda: self.model.lookup(parent, name), lambda: vnops.lookup(node, name, ROOT)
        )
        assert results is None or results in self.entries

    @rule(where=picks, other=file_names, directories=st.sampled_from([False] * 3 + [True]))
    def unlink(self, where: int, other: bytes, directories: bool) -> None:
        parent, node, name = self.place(where, other, directories)
        self.compare(
            lambda: self.model.unlink(parent, name), lambda: vnops.unlink(node, name, ROOT)
        )

    @rule(where=picks, other=file_names, directories=st.sampled_from([True] * 3 + [False]))
    def rmdir(self, where: int, other: bytes, directories: bool) -> None:
        parent, node, name = self.place(where, other, directories)
        self.compare(lambda: self.model.rmdir(parent, name), lambda: vnops.rmdir(node, name, ROOT))

    @rule(what=picks)
    def remove(self, what: int) -> None:
        entry, dirent = self.any_entry(what)
        self.compare(lambda: self.model.remove(entry), lambda: vnops.remove(dirent, ROOT))

    @rule(what=picks, where=picks, name=file_names)
    def rename(self, what: int, where: int, name: bytes) -> None:
        entry, dirent = self.any_entry(what)
        parent, node = self.directory(where)
        self.compare(
            lambda: self.model.rename(entry, parent, name),
            lambda: vnops.rename(dirent, node, name, ROOT),
        )

    @rule(what=picks, over=picks)
    def rename_over(self, what: int, over: int) -> None:
        """Rename to a name that is there (most of the time)."""
        entry, dirent = self.any_entry(what)
        target, target_dirent = self.any_entry(over)
        if target.parent is not None and target_dirent.parent is not None:
            parent, node = target.parent, target_dirent.parent
            self.compare(
                lambda: self.model.rename(entry, parent, target.name),
                lambda: vnops.rename(dirent, node, target.name, ROOT),
            )

    # Listings

    @rule(where=picks, count=st.integers(1, 4))
    def start_listing(self, where: int, count: int) -> None:
        inode, node = self.directory(where)
        self.list_on(inode, node, 0, 0, count)

    @precondition(lambda self: self.listings)
    @rule(which=picks, count=st.integers(1, 4))
    def continue_listing(self, which: int, count: int) -> None:
        self.list_on(*self.listings.pop(which % len(self.listings)), count)

    def list_on(self, inode: Inode, node: Node, place: int, cookie: int, count: int) -> None:
        results = self.compare(
            lambda: self.model.readdir(inode, place), lambda: list(vnops.readdir(node, cookie))
        )
        if results is not None:
            wanted, listed = results
            assert [entry.name for entry in listed] == [entry.name for entry in wanted]
            for entry, dirent in list(zip(wanted, listed, strict=True))[:count]:
                place, cookie = entry.place, dirent.cookie
            self.listings.append((inode, node, place, cookie))

    # Data

    @rule(what=picks, offset=offsets, start=st.integers(0, 255), length=lengths, uid=uids)
    def write(self, what: int, offset: int, start: int, length: int, uid: int) -> None:
        self.store(what, offset, PATTERN[start : start + length], uid, append=False)

    @rule(what=picks, start=st.integers(0, 255), length=lengths, uid=uids)
    def append(self, what: int, start: int, length: int, uid: int) -> None:
        self.store(what, 0, PATTERN[start : start + length], uid, append=True)

    def store(self, what: int, offset: int, data: bytes, uid: int, append: bool) -> None:
        inode, node = self.file(what)
        version = node.version
        results = self.compare(
            lambda: self.model.write(inode, offset, data, uid, append),
            lambda: put(node, data, offset, Cred(uid), append),
        )
        if results is not None:
            assert results[0] == results[1]
        assert (node.version != version) == (results is not None and bool(data))

    @rule(what=picks, offset=offsets, count=lengths)
    def read(self, what: int, offset: int, count: int) -> None:
        inode, node = self.file(what)
        results = self.compare(
            lambda: self.model.read(inode, offset, count), lambda: get(node, offset, count)
        )
        assert results is None or results[0] == results[1]

    @rule(what=picks)
    def readlink(self, what: int) -> None:
        inode, node = self.any_inode(what)
        results = self.compare(lambda: self.model.readlink(inode), lambda: vnops.readlink(node))
        assert results is None or results[0] == results[1]

    @rule(what=picks, size=offsets, uid=uids)
    def truncate(self, what: int, size: int, uid: int) -> None:
        inode, node = self.file(what)
        self.compare(
            lambda: self.model.truncate(inode, size, uid),
            lambda: vnops.setattr(node, Cred(uid), size=size),
        )

    # Attributes

    @rule(what=picks, mode=modes)
    def chmod(self, what: int, mode: int) -> None:
        inode, node = self.any_inode(what)
        self.model.chmod(inode, mode)
        vnops.setattr(node, Cred(0), mode=mode)

    @rule(what=picks, uid=st.none() | uids, gid=st.none() | uids)
    def chown(self, what: int, uid: int | None, gid: int | None) -> None:
        inode, node = self.any_inode(what)
        self.model.chown(inode, uid, gid)
        vnops.setattr(node, Cred(0), uid=uid, gid=gid)

    @rule(what=picks, atime=st.none() | st.integers(0, 9), mtime=st.none() | st.integers(0, 9))
    def utimes(self, what: int, atime: int | None, mtime: int | None) -> None:
        inode, node = self.any_inode(what)
        self.model.utimes(inode, atime, mtime)
        vnops.setattr(node, Cred(0), atime=atime, mtime=mtime)

    @rule(nanoseconds=st.sampled_from([1, 1, 1, DAY]))
    def time_passes(self, nanoseconds: int) -> None:
        self.clock.tick(nanoseconds)

    # Extended attributes

    @rule(what=picks, name=xattr_names, value=values, create=st.booleans(), replace=st.booleans())
    def set_xattr(self, what: int, name: bytes, value: bytes, create: bool, replace: bool) -> None:
        inode, node = self.any_inode(what)
        self.compare(
            lambda: self.model.setxattr(inode, name, value, create, replace),
            lambda: xattr.setxattr(node, name, value, ROOT, create, replace),
        )

    @rule(what=picks, value=values)
    def replace_xattr(self, what: int, value: bytes) -> None:
        inode, node, name = self.attribute(what, b"user.a")
        self.compare(
            lambda: self.model.setxattr(inode, name, value, False, True),
            lambda: xattr.setxattr(node, name, value, ROOT, replace=True),
        )

    @rule(what=picks, other=xattr_names)
    def get_xattr(self, what: int, other: bytes) -> None:
        inode, node, name = self.attribute(what, other)
        results = self.compare(
            lambda: self.model.getxattr(inode, name), lambda: xattr.getxattr(node, name, ROOT)
        )
        assert results is None or results[0] == results[1]

    @rule(what=picks, other=xattr_names)
    def remove_xattr(self, what: int, other: bytes) -> None:
        inode, node, name = self.attribute(what, other)
        self.compare(
            lambda: self.model.removexattr(inode, name), lambda: xattr.removexattr(node, name, ROOT)
        )

    # Holders

    @rule(what=picks)
    def hold(self, what: int) -> None:
        inode, node = self.any_inode(what)
        self.model.hold(inode)
        vref(node)

    @rule(what=picks)
    def open(self, what: int) -> None:
        """Open a file, and so hold it."""
        inode, node = self.file(what)
        if self.compare(lambda: self.model.open(inode), lambda: vnops.open(node)) is not None:
            vref(node)
            self.opened.append((inode, node))

    @precondition(lambda self: self.opened)
    @rule(which=picks)
    def close(self, which: int) -> None:
        inode, node = self.opened.pop(which % len(self.opened))
        vnops.close(node)
        self.model.let_go(inode)
        vrele(node)

    @precondition(lambda self: self.only_held())
    @rule(what=picks)
    def let_go(self, what: int) -> None:
        held = self.only_held()
        inode, node = held[what % len(held)]
        self.model.let_go(inode)
        vrele(node)

    def only_held(self) -> list[tuple[Inode, Node]]:
        """What is held more often than it is open."""
        opened = [inode for inode, _ in self.opened]
        return [both for both in self.inodes if both[0].refs > opened.count(both[0])]

    # After each step

    @invariant()
    def the_whole_file_system_is_as_the_model_says(self) -> None:
        self.forget_what_is_gone()
        self.mount.check()
        numbers = self.mount.statfs()
        assert (numbers.blocks, numbers.bfree) == (FRAMES, self.model.free_frames)
        assert (numbers.files, numbers.ffree) == (INODES, self.model.free_inodes)
        assert {node.ino for inode, node in self.inodes if not inode.names} == {*self.mount.orphans}
        for inode, node in self.inodes:
            self.compare_inode(inode, node)

    def forget_what_is_gone(self) -> None:
        live = set(map(id, self.model.live))
        self.inodes = [both for both in self.inodes if id(both[0]) in live]
        self.entries = [both for both in self.entries if id(both[0].inode) in live]
        self.listings = [it for it in self.listings if id(it[0]) in live]

    def compare_inode(self, inode: Inode, node: Node) -> None:
        for field in ("mode", "uid", "gid", "rdev", "nlink", "refs", "size", "is_dir"):
            assert getattr(node, field) == getattr(inode, field), field
        for field in ("atime", "mtime", "ctime"):
            assert getattr(node, field) == getattr(inode, field), field
        assert node.blocks == 8 * inode.data_frames
        if isinstance(node, FileNode):
            assert (node.vnode is not None) == ((inode, node) in self.opened)
        assert sorted(xattr.listxattr(node, ROOT).split(b"\0")[:-1]) == sorted(inode.xattrs)
        if isinstance(node, DirNode):
            assert names(node) == [entry.name for entry in inode.listed()]
        for number, data in inode.frames.items():
            offset = number * FRAME
            assert peek(node, offset, FRAME) == data[: max(0, inode.length - offset)]


TestTmpfs = TmpfsMachine.TestCase
TestTmpfs.settings = settings(
    derandomize=True,
    deadline=None,
    max_examples=250,
    stateful_step_count=80,
    suppress_health_check=[HealthCheck.too_slow],
)
