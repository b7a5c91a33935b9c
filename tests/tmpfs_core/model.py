"""A plain model of tmpfs, made of dicts and bytearrays: slow, obvious, and told by the man pages.

Where an operation breaks several rules at once, the man pages do not say which errno comes first;
so the model names all of them.  Lack of space counts only where no rule is broken.
"""

import errno
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

FRAME = 4096
SIZE_MAX = 2**63 - 1
NAME_MAX = 255
DAY = 86_400 * 10**9
VALUE_MAX = 65536


class RefusedError(Exception):
    """An operation that must fail with one of these errnos."""

    def __init__(self, *codes: int) -> None:
        super().__init__(*[errno.errorcode[code] for code in codes])
        self.codes = set(codes)


@dataclass(eq=False)
class Name:
    """A directory entry; ``place`` orders the entries as they came."""

    name: bytes
    inode: "Inode"
    parent: "Inode | None" = None
    place: int = 0


@dataclass(eq=False)
class Inode:
    """Any file.  ``names`` counts its directory entries, ``frames`` are the 4 KiB ever written."""

    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    ctime: int
    rdev: int = 0
    target: bytes = b""
    names: int = 0
    refs: int = 0
    length: int = 0
    frames: dict[int, bytearray] = field(default_factory=dict)
    entries: dict[bytes, Name] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    own: Name | None = None  # a directory's only name

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def nlink(self) -> int:
        if self.is_dir and self.names:
            return 2 + sum(entry.inode.is_dir for entry in self.entries.values())
        return self.names

    @property
    def size(self) -> int:
        if self.is_dir:
            return 40 + 20 * len(self.entries)
        return len(self.target) if stat.S_ISLNK(self.mode) else self.length

    @property
    def data_frames(self) -> int:
        """A long symbolic link takes one, too."""
        return len(self.frames) + (len(self.target) >= 128)

    @property
    def xattr_frames(self) -> int:
        return xattr_frames(self.xattrs)

    def listed(self) -> list[Name]:
        return sorted(self.entries.values(), key=lambda entry: entry.place)


def xattr_frames(xattrs: dict[bytes, bytes]) -> int:
    return -(-sum(len(name) + len(value) for name, value in xattrs.items()) // FRAME)


def refuse_if(codes: set[int]) -> None:
    if codes:
        raise RefusedError(*codes)


class Model:
    """A file system with ``frames`` frames and ``inodes`` inodes; ``now`` tells the time."""

    def __init__(self, frames: int, inodes: int, now: Callable[[], int]) -> None:
        self.max_frames = frames
        self.max_inodes = inodes
        self.now = now
        self.live: list[Inode] = []
        self.places = 0
        self.root = self._inode(stat.S_IFDIR | 0o1777, 0, 0)
        self.root.names = 1
        self.root.own = Name(b"", self.root)

    # Accounting, counted anew each time

    @property
    def free_frames(self) -> int:
        used = sum(inode.data_frames + inode.xattr_frames for inode in self.live)
        return self.max_frames - used

    @property
    def free_inodes(self) -> int:
        further_links = sum(max(0, inode.names - 1) for inode in self.live)
        return self.max_inodes - len(self.live) - further_links

    # Names

    def make(
        self, parent: Inode, name: bytes, mode: int, uid: int, gid: int, **more: int | bytes
    ) -> Name:
        """create, mkdir, symlink and mknod; the type is in ``mode``."""
        codes = self._no_new_name(parent, name)
        target = more.get("target", b"")
        assert isinstance(target, bytes)
        if stat.S_ISLNK(mode) and not target:
            codes.add(errno.ENOENT)
        if len(target) >= 4096:
            codes.add(errno.ENAMETOOLONG)
        refuse_if(codes)
        if not self.free_inodes or (len(target) >= 128 and not self.free_frames):
            raise RefusedError(errno.ENOSPC)
        if parent.mode & stat.S_ISGID:
            gid = parent.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        inode = self._inode(mode, uid, gid)
        inode.target = target
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            rdev = more.get("rdev", 0)
            assert isinstance(rdev, int)
            inode.rdev = rdev
        entry = Name(name, inode)
        if inode.is_dir:
            inode.own = entry
        self._enter(parent, entry)
        inode.names = 1
        return entry

    def mknod(self, parent: Inode, name: bytes, mode: int, uid: int, gid: int, rdev: int) -> Name:
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        if kind in (stat.S_IFLNK, stat.S_IFDIR):
            raise RefusedError(errno.EINVAL, errno.EPERM, *self._no_new_name(parent, name))
        return self.make(parent, name, kind | stat.S_IMODE(mode), uid, gid, rdev=rdev)

    def link(self, inode: Inode, parent: Inode, name: bytes) -> Name:
        codes = self._no_new_name(parent, name)
        if inode.is_dir:
            codes.add(errno.EPERM)
        if not inode.names:
            codes.add(errno.ENOENT)
        refuse_if(codes)
        if not self.free_inodes:
            raise RefusedError(errno.ENOSPC)
        entry = Name(name, inode)
        self._enter(parent, entry)
        inode.names += 1
        inode.ctime = self.now()
        return entry

    def unlink(self, parent: Inode, name: bytes) -> None:
        entry = self.lookup(parent, name)
        if entry.inode.is_dir:
            raise RefusedError(errno.EISDIR)
        self.remove(entry)

    def rmdir(self, parent: Inode, name: bytes) -> None:
        entry = self.lookup(parent, name)
        if not entry.inode.is_dir:
            raise RefusedError(errno.ENOTDIR)
        self.remove(entry)

    def remove(self, entry: Name) -> None:
        codes = self._not_there(entry)
        if entry.inode.entries:
            codes.add(errno.ENOTEMPTY)
        refuse_if(codes)
        self._leave(entry)
        self._lost_a_name(entry.inode)

    def rename(self, entry: Name, parent: Inode, name: bytes) -> None:
        inode = entry.inode
        codes = self._not_there(entry) | self._no_place(parent, name)
        if inode.is_dir and self._is_below(parent, inode):
            codes.add(errno.EINVAL)
        target = parent.entries.get(name)
        if target is not None and target.inode is not inode:
            if inode.is_dir and not target.inode.is_dir:
                codes.add(errno.ENOTDIR)
            if target.inode.is_dir and not inode.is_dir:
                codes.add(errno.EISDIR)
            if target.inode.entries:
                codes.add(errno.ENOTEMPTY)
        refuse_if(codes)
        if target is not None:
            if target.inode is inode:
                return
            self._leave(target)
            self._lost_a_name(target.inode)
        self._leave(entry)
        entry.name = name
        self._enter(parent, entry)
        inode.ctime = self.now()

    def lookup(self, parent: Inode, name: bytes) -> Name:
        if not parent.is_dir:
            raise RefusedError(errno.ENOTDIR)
        if len(name) > NAME_MAX:
            raise RefusedError(errno.ENAMETOOLONG)
        if name not in parent.entries:
            raise RefusedError(errno.ENOENT)
        return parent.entries[name]

    def readdir(self, inode: Inode, place: int) -> list[Name]:
        """The entries that came after ``place``."""
        if not inode.is_dir:
            raise RefusedError(errno.ENOTDIR)
        self._accessed(inode)
        return [entry for entry in inode.listed() if entry.place > place]

    def readlink(self, inode: Inode) -> bytes:
        if not stat.S_ISLNK(inode.mode):
            raise RefusedError(errno.EINVAL)
        self._accessed(inode)
        return inode.target

    # Data

    def open(self, inode: Inode) -> None:
        self._require_file(inode)
        self.hold(inode)

    def read(self, inode: Inode, offset: int, count: int) -> bytes:
        self._require_file(inode)
        if count:
            self._accessed(inode)
        stop = min(offset + count, inode.length)
        data = bytearray()
        while offset < stop:
            start = offset % FRAME
            length = min(FRAME - start, stop - offset)
            frame = inode.frames.get(offset // FRAME, bytes(FRAME))
            data += frame[start : start + length]
            offset += length
        return bytes(data)

    def write(self, inode: Inode, offset: int, data: bytes, uid: int, append: bool) -> int:
        self._require_file(inode)
        if append:
            offset = inode.length
        if not data:
            return 0
        if offset >= SIZE_MAX:
            raise RefusedError(errno.EFBIG)
        data = data[: SIZE_MAX - offset]
        done = 0
        while done < len(data):
            number, start = divmod(offset + done, FRAME)
            if number not in inode.frames:
                if not self.free_frames:
                    break
                inode.frames[number] = bytearray(FRAME)
            piece = data[done : done + FRAME - start]
            inode.frames[number][start : start + len(piece)] = piece
            done += len(piece)
        if not done:
            raise RefusedError(errno.ENOSPC)
        inode.length = max(inode.length, offset + done)
        self._data_changed(inode, uid)
        return done

    # Attributes

    def truncate(self, inode: Inode, size: int, uid: int) -> None:
        self._require_file(inode)
        if size > SIZE_MAX:
            raise RefusedError(errno.EFBIG)
        inode.frames = {n: data for n, data in inode.frames.items() if n * FRAME < size}
        last = inode.frames.get(size // FRAME)
        if last is not None:
            last[size % FRAME :] = bytes(FRAME - size % FRAME)
        inode.length = size
        self._data_changed(inode, uid)

    def chmod(self, inode: Inode, mode: int) -> None:
        inode.mode = stat.S_IFMT(inode.mode) | mode
        inode.ctime = self.now()

    def chown(self, inode: Inode, uid: int | None, gid: int | None) -> None:
        inode.uid = inode.uid if uid is None else uid
        inode.gid = inode.gid if gid is None else gid
        if not inode.is_dir and (uid is not None or gid is not None):
            inode.mode = self._unprivileged(inode.mode)
        inode.ctime = self.now()

    def utimes(self, inode: Inode, atime: int | None, mtime: int | None) -> None:
        inode.atime = inode.atime if atime is None else atime
        inode.mtime = inode.mtime if mtime is None else mtime
        inode.ctime = self.now()

    # Extended attributes

    def getxattr(self, inode: Inode, name: bytes) -> bytes:
        self._require_namespace(inode, name)
        if name not in inode.xattrs:
            raise RefusedError(errno.ENODATA)
        return inode.xattrs[name]

    def setxattr(
        self, inode: Inode, name: bytes, value: bytes, create: bool, replace: bool
    ) -> None:
        self._require_namespace(inode, name)
        codes = self._no_user_xattr(inode, name)
        if len(value) > VALUE_MAX:
            codes.add(errno.E2BIG)
        if create and name in inode.xattrs:
            codes.add(errno.EEXIST)
        if replace and name not in inode.xattrs:
            codes.add(errno.ENODATA)
        refuse_if(codes)
        after = {**inode.xattrs, name: value}
        if xattr_frames(after) - inode.xattr_frames > max(0, self.free_frames):
            raise RefusedError(errno.ENOSPC)
        inode.xattrs = after
        inode.ctime = self.now()

    def removexattr(self, inode: Inode, name: bytes) -> None:
        self._require_namespace(inode, name)
        codes = self._no_user_xattr(inode, name)
        if name not in inode.xattrs and not name.startswith(b"system."):
            codes.add(errno.ENODATA)
        refuse_if(codes)
        if name in inode.xattrs:
            del inode.xattrs[name]
            inode.ctime = self.now()

    # Holders

    def hold(self, inode: Inode) -> None:
        inode.refs += 1

    def let_go(self, inode: Inode) -> None:
        inode.refs -= 1
        self._reap(inode)

    # What the operations share

    def _inode(self, mode: int, uid: int, gid: int) -> Inode:
        now = self.now()
        inode = Inode(mode, uid, gid, now, now, now)
        self.live.append(inode)
        return inode

    def _reap(self, inode: Inode) -> None:
        if not inode.names and not inode.refs:
            self.live.remove(inode)

    def _enter(self, parent: Inode, entry: Name) -> None:
        self.places += 1
        entry.place = self.places
        entry.parent = parent
        parent.entries[entry.name] = entry
        parent.mtime = parent.ctime = self.now()

    def _leave(self, entry: Name) -> None:
        assert entry.parent is not None
        del entry.parent.entries[entry.name]
        entry.parent.mtime = entry.parent.ctime = self.now()
        entry.parent = None

    def _lost_a_name(self, inode: Inode) -> None:
        inode.names -= 1
        inode.ctime = self.now()
        self._reap(inode)

    def _accessed(self, inode: Inode) -> None:
        """relatime, see mount(8)."""
        if inode.atime <= max(inode.mtime, inode.ctime) or self.now() - inode.atime >= DAY:
            inode.atime = self.now()

    def _data_changed(self, inode: Inode, uid: int) -> None:
        inode.mtime = inode.ctime = self.now()
        if uid:
            inode.mode = self._unprivileged(inode.mode)

    @staticmethod
    def _unprivileged(mode: int) -> int:
        lost = stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0)
        return mode & ~lost

    def _not_there(self, entry: Name) -> set[int]:
        if entry.inode is self.root:
            return {errno.EBUSY}
        return set() if entry.parent is not None else {errno.ENOENT}

    @staticmethod
    def _no_place(parent: Inode, name: bytes) -> set[int]:
        """Why ``name`` can not be in ``parent``, whether it is there already or not."""
        codes = set()
        if not parent.is_dir:
            codes.add(errno.ENOTDIR)
        elif not parent.names:
            codes.add(errno.ENOENT)
        if len(name) > NAME_MAX:
            codes.add(errno.ENAMETOOLONG)
        return codes

    def _no_new_name(self, parent: Inode, name: bytes) -> set[int]:
        """Why ``name`` can not be made in ``parent``."""
        codes = self._no_place(parent, name)
        if name in parent.entries:
            codes.add(errno.EEXIST)
        return codes

    @staticmethod
    def _is_below(place: Inode, ancestor: Inode) -> bool:
        """Whether ``place`` is ``ancestor`` or below it."""
        here: Inode | None = place
        while here is not None and here is not ancestor:
            here = here.own.parent if here.own is not None else None
        return here is ancestor

    @staticmethod
    def _require_file(inode: Inode) -> None:
        if not inode.is_file:
            raise RefusedError(errno.EISDIR if inode.is_dir else errno.EINVAL)

    @staticmethod
    def _require_namespace(inode: Inode, name: bytes) -> None:
        """xattr(7): user, trusted, security, and the POSIX ACLs, which a symlink has not."""
        acl = name.startswith(b"system.posix_acl_") and not stat.S_ISLNK(inode.mode)
        if not acl and not name.startswith((b"user.", b"trusted.", b"security.")):
            raise RefusedError(errno.EOPNOTSUPP)

    @staticmethod
    def _no_user_xattr(inode: Inode, name: bytes) -> set[int]:
        """xattr(7): user attributes are for regular files and directories."""
        if name.startswith(b"user.") and not inode.is_file and not inode.is_dir:
            return {errno.EPERM}
        return set()
