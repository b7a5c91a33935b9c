"""Legacy: what 9P2000 and 9P2000.u have instead of the requests of 9P2000.L.

How what they say is meant where Linux says it differently:

* Permissions are checked here, for whom is trusted too: Plan 9 leaves that to servers.
* A directory is read as the stat of its entries, whole ones, from offset 0 on or where the read
  before ended (read(5)).  ``.`` and ``..`` are not among them.
* In 9P2000, a new file gets of its permissions what its directory has (create(5)), and the group
  of that if the user is in it; a name that is taken is no new name (stat(5)).  In 9P2000.u both
  are as POSIX has them.
* A wstat does all that it says, or nothing.  What nobody can change (type, dev, qid, muid, and the
  extension) is not looked at.
* DMAPPEND and DMEXCL are refused with EOPNOTSUPP; DMTMP means nothing, as all files are temporary.
  9P2000 can say neither what kind a special file is, nor the bits of a mode above its permissions,
  and leaves these as they are.

Rules of this file:

* Handlers keep the rules of :mod:`.handlers`; what does not differ is used from there.
"""

import errno
import os
import stat
from abc import ABC, abstractmethod
from typing import ClassVar, Final, NamedTuple

from tmpfs_core import vnops
from tmpfs_core.access import Cred
from tmpfs_core.directory import Dirent
from tmpfs_core.errors import refuse
from tmpfs_core.node import Node, SymlinkNode
from tmpfs_core.permissions import EXECUTE, READ, require_removal

from .errors import text_of
from .fids import REMOVED_ON_CLUNK, Client, Fid
from .handlers import (
    SECOND,
    Handlers,
    Reply,
    attach_as,
    auth,
    clunk,
    handles,
    open_fid,
    qid_of,
    read,
    remove,
    walk,
    wanted_by,
    write,
)
from .identity import group_name, group_named, user_name, user_named
from .wire import legacy as old
from .wire import messages as m
from .wire.constants import (
    DMDEVICE,
    DMDIR,
    DMLINK,
    DMNAMEDPIPE,
    DMSETGID,
    DMSETUID,
    DMSETVTX,
    DMSOCKET,
    DMSYMLINK,
    DMTMP,
    IOHDRSZ,
    KEEP32,
    KEEP64,
    NONUNAME,
    O_APPEND,
    O_RDONLY,
    O_TRUNC,
    OAPPEND,
    OCEXEC,
    OEXEC,
    ORCLOSE,
    OTRUNC,
)
from .wire.primitives import Malformed

#: The bits of a mode that say what kind of file it is.
KINDS: Final = DMDIR | DMSYMLINK | DMLINK | DMDEVICE | DMNAMEDPIPE | DMSOCKET
#: The one of a file's type (S_IFMT).
KIND_OF: Final = {
    stat.S_IFREG: 0,
    stat.S_IFDIR: DMDIR,
    stat.S_IFLNK: DMSYMLINK,
    stat.S_IFCHR: DMDEVICE,
    stat.S_IFBLK: DMDEVICE,
    stat.S_IFIFO: DMNAMEDPIPE,
    stat.S_IFSOCK: DMSOCKET,
}


class Listing(Fid):
    """A directory that is being read.

    Attributes:
        offset: where the next read goes on, in bytes of its data.
        cookie: of the entry before that.
    """

    __slots__ = ("cookie", "offset")

    def __init__(self, entry: Dirent, cred: Cred) -> None:
        super().__init__(entry, cred)
        self.offset = 0
        self.cookie = 0


class Wish(NamedTuple):
    """What a wstat is to change; None where it stays, and a name that is empty."""

    mode: int | None
    atime: int | None
    mtime: int | None
    size: int | None
    name: bytes
    uid: int | None
    gid: int | None


class Legacy(ABC):
    """What both dialects have.

    Attributes:
        MODE_BITS: all that the mode of Topen and Tcreate may have.
        PERM_BITS: all that a file's mode may have.
    """

    MODE_BITS: ClassVar[int] = 0x03 | OTRUNC | OCEXEC | ORCLOSE
    PERM_BITS: ClassVar[int] = DMDIR | DMTMP | 0o777

    def handlers(self) -> Handlers:
        """What answers its requests."""
        table: Handlers = {}
        handles(m.Twalk, table)(walk)
        handles(m.Tread, table)(self.read)
        handles(m.Twrite, table)(write)
        handles(m.Tclunk, table)(clunk)
        handles(m.Tremove, table)(remove)
        handles(old.Topen, table)(self.open)
        handles(old.Tstat, table)(self.stat)
        handles(old.Twstat, table)(self.wstat)
        return table

    # Opening and data

    def open(self, client: Client, tag: int, fid: int, mode: int) -> Reply:
        """Opens; to execute is to read what may be executed (open(5)).

        Raises:
            OSError: as Tlopen; EINVAL, a mode that is none; EISDIR, a directory for more than to
                read it.
        """
        held = client.get(fid)
        flags = self._flags_of(mode)
        if held.flags is not None:
            refuse(errno.EINVAL)
        if held.node.is_dir and mode & ~OCEXEC:
            refuse(errno.EISDIR)
        if mode & ORCLOSE:
            require_removal(vnops.parent_of(held.entry), held.node, held.cred)
        wanted = wanted_by(flags)
        if mode & 0x03 == OEXEC:
            wanted = wanted & ~READ | EXECUTE
        self._enter_open(client, fid, held.entry, held.cred, flags, wanted)
        return old.Ropen.pack(tag, qid_of(held.node), 0)

    def read(self, client: Client, tag: int, fid: int, offset: int, count: int) -> Reply:
        """Of a directory, the stats of its entries, and none of them in part.

        Raises:
            OSError: as Tread; ESPIPE, neither the beginning nor where it goes on; EINVAL, not one
                of them fits into ``count``.
        """
        held = client.fids.get(fid)
        if not isinstance(held, Listing):
            return read(client, tag, fid, offset, count)
        if offset and offset != held.offset:
            refuse(errno.ESPIPE)
        cookie = held.cookie if offset else 0
        room = min(count, client.msize - IOHDRSZ)
        told: list[bytes] = []
        size = 0
        for entry in vnops.readdir(held.node, cookie):
            stat_of_it = self._stat_of(entry)
            if size + len(stat_of_it) > room:
                if not told:
                    refuse(errno.EINVAL)
                break
            told.append(stat_of_it)
            size += len(stat_of_it)
            cookie = entry.cookie
        held.offset = offset + size
        held.cookie = cookie
        return m.Rread.pack(tag, b"".join(told))

    def _flags_of(self, mode: int) -> int:
        """The flags that Tlopen has for this mode.

        Raises:
            OSError: EINVAL, it is none.
        """
        if mode & ~self.MODE_BITS:
            refuse(errno.EINVAL)
        access = mode & 0x03
        flags = O_RDONLY if access == OEXEC else access
        if mode & OTRUNC:
            flags |= O_TRUNC
        if mode & OAPPEND:
            flags |= O_APPEND
        if mode & ORCLOSE:
            flags |= REMOVED_ON_CLUNK
        return flags

    def _enter_open(
        self, client: Client, fid: int, entry: Dirent, cred: Cred, flags: int, wanted: int
    ) -> None:
        """Let a fid that there is stand for this place, opened to do what is ``wanted``."""
        opened = Listing(entry, cred) if entry.node.is_dir else Fid(entry, cred)
        open_fid(opened, flags, wanted)
        client.enter(fid, opened)

    # Names

    def _create(
        self,
        client: Client,
        tag: int,
        fid: int,
        name: bytes,
        perm: int,
        mode: int,
        extension: bytes,
    ) -> Reply:
        """Makes a file and opens it, if it is one that can be opened (create(5)).

        Raises:
            OSError: as what makes one of its kind; EINVAL, a mode that is none, or a directory for
                more than to read it; EOPNOTSUPP, bits that no file here has.
        """
        held = client.get(fid)
        flags = self._flags_of(mode)
        if held.flags is not None or (perm & DMDIR and mode & ~OCEXEC):
            refuse(errno.EINVAL)
        if perm & ~self.PERM_BITS:
            refuse(errno.EOPNOTSUPP)
        entry = self._make(client, held, name, perm, extension)
        if perm & KINDS & ~DMDIR:
            client.enter(fid, Fid(entry, held.cred))
        else:
            self._enter_open(client, fid, entry, held.cred, flags, 0)
        return old.Rcreate.pack(tag, qid_of(entry.node), 0)

    @abstractmethod
    def _make(
        self, client: Client, parent: Fid, name: bytes, perm: int, extension: bytes
    ) -> Dirent:
        """Make a file in the directory ``parent``."""

    # Attributes

    def stat(self, client: Client, tag: int, fid: int) -> Reply:
        return old.Rstat.pack(tag, self._stat_of(client.get(fid).entry))

    def wstat(self, client: Client, tag: int, fid: int, stat: bytes) -> Reply:
        """Changes what is to be changed; nothing at all is fsync(2), for which there is no need.

        Raises:
            OSError: as Tsetattr and Trename; EPERM, between files and directories; EOPNOTSUPP, bits
                that no file here has.
        """
        if len(stat) < 2 or int.from_bytes(stat[:2], "little") != len(stat) - 2:
            raise Malformed("a stat whose size is wrong")
        held = client.get(fid)
        node, entry, cred = held.node, held.entry, held.cred
        wish = self._wish_of(node, stat)
        mode, size = wish.mode, wish.size
        if mode is not None:
            if mode & ~self.PERM_BITS:
                refuse(errno.EOPNOTSUPP)
            if bool(mode & DMDIR) != node.is_dir:
                refuse(errno.EPERM)
            mode = self._mode_after(node, mode)
        if node.is_dir and size == 0:
            size = None  # it is what every directory has
        renamed = wish.name not in (b"", _name_of(entry))
        if renamed:
            self._require_rename(entry, wish.name, cred)
        if (mode, wish.atime, wish.mtime, size, wish.uid, wish.gid) != (None,) * 6:
            vnops.setattr(
                node,
                cred,
                mode=mode,
                uid=wish.uid,
                gid=wish.gid,
                size=size,
                atime=wish.atime,
                mtime=wish.mtime,
                writable=held.writable,
            )
        if renamed:
            vnops.rename(entry, vnops.parent_of(entry), wish.name, cred)
        return old.Rwstat.pack(tag)

    @abstractmethod
    def _stat_of(self, entry: Dirent) -> bytes:
        """What is told of a file."""

    @abstractmethod
    def _wish_of(self, node: Node, stat: bytes) -> Wish:
        """What the stat of a wstat wishes of this node.

        Raises:
            Malformed: it is no stat.
        """

    @abstractmethod
    def _mode_after(self, node: Node, mode: int) -> int:
        """The permissions that a node has after this mode was set."""

    @abstractmethod
    def _require_rename(self, entry: Dirent, name: bytes, cred: Cred) -> None:
        """Refuse a name that the file can not get."""


class Plain(Legacy):
    """9P2000."""

    @staticmethod
    def error(tag: int, code: int) -> bytes:
        return old.Rerror.pack(tag, text_of(code))

    def handlers(self) -> Handlers:
        table = super().handlers()
        handles(old.TauthPlain, table)(self.auth)
        handles(old.TattachPlain, table)(self.attach)
        handles(old.Tcreate, table)(self.create)
        return table

    def auth(self, client: Client, tag: int, afid: int, uname: bytes, aname: bytes) -> Reply:
        return auth(client, tag, afid, uname, aname, NONUNAME)

    def attach(
        self, client: Client, tag: int, fid: int, afid: int, uname: bytes, aname: bytes
    ) -> Reply:
        return attach_as(client, tag, fid, afid, uname, aname, NONUNAME, vouched=False)

    def create(
        self, client: Client, tag: int, fid: int, name: bytes, perm: int, mode: int
    ) -> Reply:
        return self._create(client, tag, fid, name, perm, mode, b"")

    def _make(
        self, client: Client, parent: Fid, name: bytes, perm: int, extension: bytes
    ) -> Dirent:
        directory = parent.node
        if perm & DMDIR:
            mode = perm & (0o777 & directory.mode)
            return vnops.mkdir(directory, name, mode, parent.cred, directory.gid)
        mode = perm & (0o111 | 0o666 & directory.mode)
        return vnops.create(directory, name, mode, parent.cred, directory.gid)

    def _stat_of(self, entry: Dirent) -> bytes:
        node = entry.node
        mode = node.mode & 0o777 | (DMDIR if node.is_dir else 0)
        return old.Stat.pack(0, 0, qid_of(node), mode, *_told_of(entry))

    def _wish_of(self, node: Node, stat: bytes) -> Wish:
        _, _, _, mode, atime, mtime, length, name, uid, gid, _ = old.Stat.unpack(stat, 2, len(stat))
        return _wish(node, mode, atime, mtime, length, name, uid, gid)

    def _mode_after(self, node: Node, mode: int) -> int:
        return mode & 0o777 | node.mode & 0o7000

    def _require_rename(self, entry: Dirent, name: bytes, cred: Cred) -> None:
        if vnops.require_rename(entry, vnops.parent_of(entry), name, cred) is not None:
            refuse(errno.EEXIST)


class Unix(Legacy):
    """9P2000.u."""

    MODE_BITS: ClassVar[int] = Legacy.MODE_BITS | OAPPEND
    PERM_BITS: ClassVar[int] = Legacy.PERM_BITS | KINDS | DMSETUID | DMSETGID | DMSETVTX

    @staticmethod
    def error(tag: int, code: int) -> bytes:
        return old.RerrorUnix.pack(tag, text_of(code), code)

    def handlers(self) -> Handlers:
        table = super().handlers()
        handles(m.Tauth, table)(auth)
        handles(m.Tattach, table)(self.attach)
        handles(old.TcreateUnix, table)(self.create)
        return table

    def attach(
        self,
        client: Client,
        tag: int,
        fid: int,
        afid: int,
        uname: bytes,
        aname: bytes,
        n_uname: int,
    ) -> Reply:
        return attach_as(client, tag, fid, afid, uname, aname, n_uname, vouched=False)

    def create(
        self,
        client: Client,
        tag: int,
        fid: int,
        name: bytes,
        perm: int,
        mode: int,
        extension: bytes,
    ) -> Reply:
        return self._create(client, tag, fid, name, perm, mode, extension)

    def _make(
        self, client: Client, parent: Fid, name: bytes, perm: int, extension: bytes
    ) -> Dirent:
        """A link's extension is the fid of what it is a link to, a device's its type and numbers,
        a symbolic link's what it leads to.
        """
        directory, cred = parent.node, parent.cred
        mode = _permissions(perm)
        kind = perm & KINDS
        if kind == 0:
            return vnops.create(directory, name, mode, cred, cred.gid)
        if kind == DMDIR:
            return vnops.mkdir(directory, name, mode, cred, cred.gid)
        if kind == DMSYMLINK:
            return vnops.symlink(directory, name, extension, cred, cred.gid)
        if kind == DMLINK:
            return vnops.link(client.get(_number(extension)).node, directory, name, cred)
        rdev = 0
        if kind == DMNAMEDPIPE:
            mode |= stat.S_IFIFO
        elif kind == DMSOCKET:
            mode |= stat.S_IFSOCK
        elif kind == DMDEVICE:
            which, rdev = _device(extension)
            mode |= which
        else:
            refuse(errno.EINVAL)
        return vnops.mknod(directory, name, mode, rdev, cred, cred.gid)

    def _stat_of(self, entry: Dirent) -> bytes:
        node = entry.node
        kind = stat.S_IFMT(node.mode)
        mode = node.mode & 0o777 | KIND_OF[kind]
        if node.mode & stat.S_ISUID:
            mode |= DMSETUID
        if node.mode & stat.S_ISGID:
            mode |= DMSETGID
        if node.mode & stat.S_ISVTX:
            mode |= DMSETVTX
        told = _told_of(entry)
        return old.StatUnix.pack(
            0, 0, qid_of(node), mode, *told, _extension(node), node.uid, node.gid, node.uid
        )

    def _wish_of(self, node: Node, stat: bytes) -> Wish:
        _, _, _, mode, atime, mtime, length, name, uid, gid, _, _, n_uid, n_gid, _ = (
            old.StatUnix.unpack(stat, 2, len(stat))
        )
        wish = _wish(node, mode, atime, mtime, length, name, uid, gid)
        return wish._replace(
            uid=wish.uid if n_uid == KEEP32 else n_uid, gid=wish.gid if n_gid == KEEP32 else n_gid
        )

    def _mode_after(self, node: Node, mode: int) -> int:
        return _permissions(mode)

    def _require_rename(self, entry: Dirent, name: bytes, cred: Cred) -> None:
        vnops.require_rename(entry, vnops.parent_of(entry), name, cred)


def _name_of(entry: Dirent) -> bytes:
    return b"/" if entry.node is entry.node.mount.root else entry.name


def _told_of(entry: Dirent) -> tuple[int, int, int, bytes, bytes, bytes, bytes]:
    """What both dialects tell of a file: atime, mtime, length, name, uid, gid, muid."""
    node = entry.node
    user = user_name(node.uid)
    length = 0 if node.is_dir else node.size
    times = _seconds(node.atime), _seconds(node.mtime)
    return *times, length, _name_of(entry), user, group_name(node.gid), user


def _seconds(time: int) -> int:
    """A time as 32 bits can say it; the last of them says that it is to stay."""
    return min(max(time // SECOND, 0), KEEP32 - 1)


def _wish(
    node: Node,
    mode: int,
    atime: int,
    mtime: int,
    length: int,
    name: bytes,
    uid: bytes,
    gid: bytes,
) -> Wish:
    """What a wstat of these values is to change; who a file belongs to already is no change."""
    return Wish(
        None if mode == KEEP32 else mode,
        None if atime == KEEP32 else atime * SECOND,
        None if mtime == KEEP32 else mtime * SECOND,
        None if length == KEEP64 else length,
        name,
        None if uid in (b"", user_name(node.uid)) else user_named(uid),
        None if gid in (b"", group_name(node.gid)) else group_named(gid),
    )


def _permissions(mode: int) -> int:
    """The permissions of st_mode in a mode of 9P2000.u."""
    permissions = mode & 0o777
    if mode & DMSETUID:
        permissions |= stat.S_ISUID
    if mode & DMSETGID:
        permissions |= stat.S_ISGID
    if mode & DMSETVTX:
        permissions |= stat.S_ISVTX
    return permissions


def _extension(node: Node) -> bytes:
    """What else is told of a file in 9P2000.u: where it leads, which device it is; of others the
    number of its names, as QEMU tells and fs/9p understands.
    """
    if isinstance(node, SymlinkNode):
        return node.target
    kind = stat.S_IFMT(node.mode)
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        letter = b"c" if kind == stat.S_IFCHR else b"b"
        return b"%s %d %d" % (letter, os.major(node.rdev), os.minor(node.rdev))
    return b"HARDLINKCOUNT %d" % node.nlink


def _device(extension: bytes) -> tuple[int, int]:
    """The type and the number of a device, from "c 1 3" or "b 8 0".

    Raises:
        OSError: EINVAL, it is neither.
    """
    words = extension.split()
    if len(words) != 3 or words[0] not in (b"b", b"c"):
        refuse(errno.EINVAL)
    major, minor = _number(words[1]) & 0xFFFFF, _number(words[2]) & 0xFFFFF
    return stat.S_IFBLK if words[0] == b"b" else stat.S_IFCHR, os.makedev(major, minor)


def _number(text: bytes) -> int:
    digits = text.strip()
    if not digits.isdigit() or len(digits) > 10:
        refuse(errno.EINVAL)
    return int(digits)
