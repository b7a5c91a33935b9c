"""Handlers: one function for each T-message of 9P2000.L that works on fids.

Rules of this file:

* A handler takes the client, the tag and the fields of its message, in the order in which they are
  declared (checked at import), and does all its work before it returns.
* It returns the reply: a frame; or a list, a head and views of live pages, which must be sent
  before anything else happens; or, where it has to wait, a coroutine that returns a frame.
* It refuses by raising ``OSError(errno)``, and then has changed nothing.
"""

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Coroutine, Iterator
from inspect import signature
from typing import Any, Final, NamedTuple, TypeVar

from tmpfs_core import vnops, xattr
from tmpfs_core.access import Cred
from tmpfs_core.cargo import Cargo, cargo_for
from tmpfs_core.directory import DOT, DOTDOT, NAME_MAX, Dirent
from tmpfs_core.errors import refuse
from tmpfs_core.locks import FOREVER, Lock, RangeLocks
from tmpfs_core.node import DirNode, FileNode, Node
from tmpfs_core.permissions import EXECUTE, NOW, READ, WRITE, require

from .fids import Client, Fid, Stale, XattrDraft, XattrValue
from .identity import cred_of
from .limits import WAITING_BYTES
from .wire import messages as m
from .wire.codec import Message
from .wire.constants import (
    AT_REMOVEDIR,
    GETATTR_ALL,
    IOHDRSZ,
    LOCK_BLOCKED,
    LOCK_FLAGS_BLOCK,
    LOCK_SUCCESS,
    LOCK_TYPE_RDLCK,
    LOCK_TYPE_UNLCK,
    LOCK_TYPE_WRLCK,
    MAXWELEM,
    NOFID,
    O_ACCMODE,
    O_DIRECTORY,
    O_EXCL,
    O_RDONLY,
    O_TRUNC,
    O_WRONLY,
    QTDIR,
    QTFILE,
    QTSYMLINK,
    SETATTR_ATIME,
    SETATTR_ATIME_SET,
    SETATTR_GID,
    SETATTR_MODE,
    SETATTR_MTIME,
    SETATTR_MTIME_SET,
    SETATTR_SIZE,
    SETATTR_UID,
    V9FS_MAGIC,
    XATTR_CREATE,
    XATTR_REPLACE,
)
from .wire.primitives import Buffer, QidFields

Reply = bytes | list[Buffer] | Coroutine[Any, Any, bytes]

#: T-message type -> (what decodes it and calls a handler, its handler).
Handlers = dict[int, tuple[Callable[..., Reply], Callable[..., Reply]]]

#: Those of 9P2000.L.
HANDLERS: Final[Handlers] = {}

#: The block size that clients are told to use, in bytes: each request is a round trip.
BLKSIZE: Final = 65536
#: Data of up to so many bytes is copied into its reply rather than sent from its pages.
COPIED: Final = 32768

#: In nanoseconds, the unit of the core's times.
SECOND: Final = 10**9

H = TypeVar("H", bound=Callable[..., Reply])


def handles(declared: type[Message], handlers: Handlers = HANDLERS) -> Callable[[H], H]:
    """Make a function the handler of a message, in 9P2000.L or else in another dialect."""

    def register(handler: H) -> H:
        arguments = tuple(signature(handler).parameters)
        assert arguments == ("client", "tag", *declared.__match_args__), arguments
        handlers[declared.TYPE] = (declared.call, handler)
        return handler

    return register


_QTYPES = {stat.S_IFDIR >> 12: QTDIR, stat.S_IFLNK >> 12: QTSYMLINK}


def _qid(node: Node, version: int) -> QidFields:
    return _QTYPES.get(node.mode >> 12, QTFILE), version, node.ino


def qid_of(node: Node) -> QidFields:
    return _qid(node, node.version)


# The session and the tree


@handles(m.Tauth)
def auth(client: Client, tag: int, afid: int, uname: bytes, aname: bytes, n_uname: int) -> Reply:
    """No authentication is needed: an error, as attach(5) has it, and the client goes on."""
    refuse(errno.EOPNOTSUPP)


@handles(m.Tattach)
def attach(
    client: Client, tag: int, fid: int, afid: int, uname: bytes, aname: bytes, n_uname: int
) -> Reply:
    return attach_as(client, tag, fid, afid, uname, aname, n_uname, vouched=True)


def attach_as(
    client: Client,
    tag: int,
    fid: int,
    afid: int,
    uname: bytes,
    aname: bytes,
    n_uname: int,
    *,
    vouched: bool,
) -> Reply:
    """Attach, in any dialect; ``vouched`` as :func:`.identity.cred_of` has it."""
    if afid != NOFID:
        refuse(errno.EBADF)
    client.require_free(fid)
    export = client.exports.get(aname)
    cred = cred_of(client.peer, export, uname, n_uname, vouched=vouched)
    client.attach(fid, export, cred)
    return m.Rattach.pack(tag, qid_of(export.mount.root))


@handles(m.Twalk)
def walk(client: Client, tag: int, fid: int, newfid: int, wnames: list[bytes]) -> Reply:
    """Answers with the qids of as many elements as there are; newfid exists if that is all."""
    origin = client.get(fid)
    if newfid != fid:
        client.require_free(newfid)
    elif origin.flags is not None and wnames:
        refuse(errno.EINVAL)
    if len(wnames) > MAXWELEM:
        refuse(errno.EINVAL)
    entry = origin.entry
    qids: list[QidFields] = []
    for name in wnames:
        try:
            if name == b"..":
                entry = _parent(entry, origin.cred)
            else:
                entry = vnops.lookup(entry.node, name, origin.cred)
        except OSError:
            if not qids:
                raise
            return m.Rwalk.pack(tag, qids)
        qids.append(qid_of(entry.node))
    if newfid != fid or wnames:
        client.enter(newfid, Fid(entry, origin.cred))
    return m.Rwalk.pack(tag, qids)


def _parent(entry: Dirent, cred: Cred) -> Dirent:
    """Where ``..`` leads; it stops at the root."""
    node = entry.node
    if not isinstance(node, DirNode):
        refuse(errno.ENOTDIR)
    require(node, cred, EXECUTE)
    if node is node.mount.root:
        return entry
    if entry.parent is None:
        refuse(errno.ENOENT)
    return entry.parent.entry


@handles(m.Tclunk)
def clunk(client: Client, tag: int, fid: int) -> Reply:
    """Forgets the fid in any case; an attribute that was written is set here."""
    held = client.fids.get(fid)
    try:
        if held is not None and isinstance(held.xattr, XattrDraft):
            held.xattr.commit(held.node, held.cred)
    finally:
        client.clunk(fid)
    return m.Rclunk.pack(tag)


@handles(m.Tremove)
def remove(client: Client, tag: int, fid: int) -> Reply:
    """Removes the name by which the fid was reached; forgets the fid in any case."""
    try:
        held = client.get(fid)
        vnops.remove(held.entry, held.cred)
    finally:
        client.clunk(fid)
    return m.Rremove.pack(tag)


@handles(m.Tstatfs)
def statfs(client: Client, tag: int, fid: int) -> Reply:
    mount = client.get(fid).node.mount
    s = mount.statfs()
    return m.Rstatfs.pack(
        tag, V9FS_MAGIC, s.bsize, s.blocks, s.bfree, s.bfree, s.files, s.ffree, s.fsid, s.namelen
    )


# Opening and data


@handles(m.Tlopen)
def lopen(client: Client, tag: int, fid: int, flags: int) -> Reply:
    opened = client.get(fid)
    open_fid(opened, flags, wanted_by(flags))
    return m.Rlopen.pack(tag, qid_of(opened.node), 0)


@handles(m.Tlcreate)
def lcreate(
    client: Client, tag: int, fid: int, name: bytes, flags: int, mode: int, gid: int
) -> Reply:
    """Makes a file and opens it; without O_EXCL, opens what another client made meanwhile."""
    held = client.get(fid)
    directory = held.node
    if held.flags is not None or flags & O_DIRECTORY or flags & O_ACCMODE == O_ACCMODE:
        refuse(errno.EINVAL)
    wanted = 0
    if flags & O_EXCL or not isinstance(directory, DirNode) or not directory.entries.find(name):
        entry = vnops.create(directory, name, mode, held.cred, gid)
        flags &= ~O_TRUNC  # nothing is in it, and its times are one
    else:
        entry = vnops.lookup(directory, name, held.cred)
        wanted = wanted_by(flags)
    opened = Fid(entry, held.cred)
    open_fid(opened, flags, wanted)
    client.enter(fid, opened)
    return m.Rlcreate.pack(tag, qid_of(opened.node), 0)


def wanted_by(flags: int) -> int:
    """What who opens a file with these flags wants of it."""
    access = flags & O_ACCMODE
    wanted = READ if access == O_RDONLY else WRITE if access == O_WRONLY else READ | WRITE
    return wanted | WRITE if flags & O_TRUNC else wanted


def open_fid(fid: Fid, flags: int, wanted: int) -> None:
    """Open the fid, to do what is ``wanted``; nothing more is checked then.

    Raises:
        OSError: EINVAL, it is open, or the access mode is none; EISDIR, ENOTDIR; ELOOP, a
            symbolic link; ENXIO, a special file, which only the client's kernel can open.
    """
    if fid.flags is not None or flags & O_ACCMODE == O_ACCMODE:
        refuse(errno.EINVAL)
    kind = stat.S_IFMT(fid.node.mode)
    if kind == stat.S_IFDIR:
        if flags & O_ACCMODE != O_RDONLY or flags & O_TRUNC:
            refuse(errno.EISDIR)
        require(fid.node, fid.cred, wanted)
    elif flags & O_DIRECTORY:
        refuse(errno.ENOTDIR)
    elif kind != stat.S_IFREG:
        refuse(errno.ELOOP if kind == stat.S_IFLNK else errno.ENXIO)
    else:
        require(fid.node, fid.cred, wanted)
        if flags & O_TRUNC:
            vnops.setattr(fid.node, fid.cred, size=0, writable=True)
        vnops.open(fid.node)
    fid.flags = flags


@handles(m.Tread)
def read(client: Client, tag: int, fid: int, offset: int, count: int) -> Reply:
    held = client.fids.get(fid)
    if held is None:
        refuse(errno.EBADF)
    count = min(count, client.msize - IOHDRSZ)
    if held.xattr is not None:
        if isinstance(held.xattr, XattrDraft):
            refuse(errno.EBADF)
        return m.Rread.pack(tag, held.xattr.read(offset, count))
    held.require_readable()
    views = vnops.read(held.node, offset, count)
    if len(views) == 1 and len(views[0]) <= COPIED:
        return m.Rread.pack(tag, views[0])
    total = sum(map(len, views))
    if total <= COPIED:
        return m.Rread.pack(tag, b"".join(views))
    return [m.Rread.head(tag, total), *views]


@handles(m.Twrite)
def write(client: Client, tag: int, fid: int, offset: int, data: memoryview | Cargo) -> Reply:
    held = client.fids.get(fid)
    if held is None:
        refuse(errno.EBADF)
    if held.xattr is not None:
        if isinstance(held.xattr, XattrValue):
            refuse(errno.EBADF)
        if isinstance(data, Cargo):  # for a file, which the fid was when it came in
            refuse(errno.ESTALE if isinstance(held.xattr, Stale) else errno.EBADF)
        return m.Rwrite.pack(tag, held.xattr.write(offset, data))
    held.require_writable()
    return m.Rwrite.pack(tag, vnops.write(held.node, offset, data, held.cred, held.appends))


def cargo_of_write(client: Client, fid: int, offset: int, count: int) -> Cargo | None:
    """Where to receive the data of a Twrite that is on its way; None if it is best kept whole."""
    held = client.fids.get(fid)
    if held is None or held.xattr is not None or not isinstance(held.node, FileNode):
        return None
    if held.appends:
        offset = held.node.size
    return cargo_for(held.node.mount.memory.arena, offset, count)


@handles(m.Tfsync)
def fsync(client: Client, tag: int, fid: int, datasync: int) -> Reply:
    """There is nothing behind memory to write to."""
    client.get(fid)
    return m.Rfsync.pack(tag)


@handles(m.Treaddir)
def readdir(client: Client, tag: int, fid: int, offset: int, count: int) -> Reply:
    """Whole records only; none left is the end.

    What is answered is kept for who asks the same again, until the directory changes.

    Raises:
        OSError: EINVAL, not one record fits into ``count``; ENOTDIR; EBADF.
    """
    held = client.get(fid)
    held.require_readable()
    directory = held.node
    entries = vnops.readdir(directory, offset)
    assert isinstance(directory, DirNode)
    parent = held.entry.parent or directory
    asked = offset, min(count, client.msize - IOHDRSZ), parent.ino
    if directory.listing is not None and directory.listing[0] == asked:
        return m.Rreaddir.pack(tag, directory.listing[1])
    data = _records(directory, parent, entries, offset, asked[1])
    if data:  # the end takes no time to find
        directory.keep_listing(asked, data)
    return m.Rreaddir.pack(tag, data)


def _records(
    directory: DirNode, parent: DirNode, entries: Iterator[Dirent], offset: int, room: int
) -> bytes:
    """The records of a directory behind ``offset``, as many as there is room for."""
    records = []
    if offset < DOT:
        records.append(_record(directory, DOT, b"."))
    if offset < DOTDOT:
        records.append(_record(parent, DOTDOT, b".."))
    size = sum(map(len, records))
    while size <= room and (entry := next(entries, None)) is not None:
        records.append(_record(entry.node, entry.cookie, entry.name))
        size += len(records[-1])
    while size > room:
        size -= len(records.pop())
        if not records:
            refuse(errno.EINVAL)
    return b"".join(records)


def _record(node: Node, cookie: int, name: bytes) -> bytes:
    """One of them.  Its qid has no version, so that it stays right while the node changes: what
    clients take from it is the number of the node (QEMU and diod leave the version out, too).
    """
    return m.pack_record(_qid(node, 0), cookie, node.mode >> 12, name)


# Names


@handles(m.Tmkdir)
def mkdir(client: Client, tag: int, dfid: int, name: bytes, mode: int, gid: int) -> Reply:
    parent = client.get(dfid)
    entry = vnops.mkdir(parent.node, name, mode, parent.cred, gid)
    return m.Rmkdir.pack(tag, qid_of(entry.node))


@handles(m.Tsymlink)
def symlink(client: Client, tag: int, dfid: int, name: bytes, target: bytes, gid: int) -> Reply:
    parent = client.get(dfid)
    entry = vnops.symlink(parent.node, name, target, parent.cred, gid)
    return m.Rsymlink.pack(tag, qid_of(entry.node))


@handles(m.Tmknod)
def mknod(
    client: Client, tag: int, dfid: int, name: bytes, mode: int, major: int, minor: int, gid: int
) -> Reply:
    parent = client.get(dfid)
    rdev = os.makedev(major & 0xFFFFF, minor & 0xFFFFF)
    entry = vnops.mknod(parent.node, name, mode, rdev, parent.cred, gid)
    return m.Rmknod.pack(tag, qid_of(entry.node))


@handles(m.Treadlink)
def readlink(client: Client, tag: int, fid: int) -> Reply:
    return m.Rreadlink.pack(tag, vnops.readlink(client.get(fid).node))


@handles(m.Tlink)
def link(client: Client, tag: int, dfid: int, fid: int, name: bytes) -> Reply:
    parent = client.get(dfid)
    vnops.link(client.get(fid).node, parent.node, name, parent.cred)
    return m.Rlink.pack(tag)


@handles(m.Trename)
def rename(client: Client, tag: int, fid: int, dfid: int, name: bytes) -> Reply:
    held = client.get(fid)
    vnops.rename(held.entry, client.get(dfid).node, name, held.cred)
    return m.Rrename.pack(tag)


@handles(m.Trenameat)
def renameat(
    client: Client, tag: int, olddirfid: int, oldname: bytes, newdirfid: int, newname: bytes
) -> Reply:
    held = client.get(olddirfid)
    entry = vnops.lookup(held.node, oldname, held.cred)
    vnops.rename(entry, client.get(newdirfid).node, newname, held.cred)
    return m.Rrenameat.pack(tag)


@handles(m.Tunlinkat)
def unlinkat(client: Client, tag: int, dirfid: int, name: bytes, flags: int) -> Reply:
    if flags & ~AT_REMOVEDIR:
        refuse(errno.EINVAL)
    parent = client.get(dirfid)
    if flags:
        vnops.rmdir(parent.node, name, parent.cred)
    else:
        vnops.unlink(parent.node, name, parent.cred)
    return m.Runlinkat.pack(tag)


# Attributes


@handles(m.Tgetattr)
def getattr(client: Client, tag: int, fid: int, request_mask: int) -> Reply:  # noqa: A001
    """All fields are always valid."""
    return attributes(tag, client.get(fid).node)


def attributes(tag: int, node: Node) -> bytes:
    """The Rgetattr of a node."""
    return m.Rgetattr.pack(
        tag,
        GETATTR_ALL,
        qid_of(node),
        node.mode,
        node.uid,
        node.gid,
        node.nlink,
        node.rdev,
        node.size,
        BLKSIZE,
        node.blocks,
        node.atime // SECOND,
        node.atime % SECOND,
        node.mtime // SECOND,
        node.mtime % SECOND,
        node.ctime // SECOND,
        node.ctime % SECOND,
        node.btime // SECOND,
        node.btime % SECOND,
        node.gen,
        node.version,
    )


@handles(m.Tsetattr)
def setattr(  # noqa: A001
    client: Client,
    tag: int,
    fid: int,
    valid: int,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    atime_sec: int,
    atime_nsec: int,
    mtime_sec: int,
    mtime_nsec: int,
) -> Reply:
    """Changes what ``valid`` names; a time without its _SET bit becomes now (UTIME_NOW)."""
    held = client.get(fid)
    vnops.setattr(
        held.node,
        held.cred,
        mode=mode if valid & SETATTR_MODE else None,
        uid=uid if valid & SETATTR_UID else None,
        gid=gid if valid & SETATTR_GID else None,
        size=size if valid & SETATTR_SIZE else None,
        atime=_time(valid & SETATTR_ATIME, valid & SETATTR_ATIME_SET, atime_sec, atime_nsec),
        mtime=_time(valid & SETATTR_MTIME, valid & SETATTR_MTIME_SET, mtime_sec, mtime_nsec),
        writable=held.writable,
    )
    return m.Rsetattr.pack(tag)


def _time(wanted: int, given: int, sec: int, nsec: int) -> int | None:
    """A time in ns, NOW, or None to leave it as it is."""
    if not wanted:
        return None
    if not given:
        return NOW
    if nsec >= SECOND:
        refuse(errno.EINVAL)
    return sec * SECOND + nsec


@handles(m.Txattrwalk)
def xattrwalk(client: Client, tag: int, fid: int, newfid: int, name: bytes) -> Reply:
    """newfid stands for the value of an attribute, or for the list of names if there is no name."""
    held = client.get(fid)
    client.require_free(newfid)
    if name:
        value = xattr.getxattr(held.node, name, held.cred)
    else:
        value = xattr.listxattr(held.node, held.cred)
    made = Fid(held.entry, held.cred)
    client.enter(newfid, made)
    try:
        client.hold_xattr(made, XattrValue(value))
    except OSError:
        client.clunk(newfid)
        raise
    return m.Rxattrwalk.pack(tag, len(value))


@handles(m.Txattrcreate)
def xattrcreate(
    client: Client, tag: int, fid: int, name: bytes, attr_size: int, flags: int
) -> Reply:
    """The fid becomes the draft of an attribute, which is set when it is clunked."""
    held = client.get(fid)
    if held.flags is not None or flags & ~(XATTR_CREATE | XATTR_REPLACE):
        refuse(errno.EINVAL)
    if attr_size > xattr.VALUE_MAX:
        refuse(errno.E2BIG)
    create, replace = bool(flags & XATTR_CREATE), bool(flags & XATTR_REPLACE)
    client.hold_xattr(held, XattrDraft(name, attr_size, create, replace))
    return m.Rxattrcreate.pack(tag)


# Locks


class LockOwner(NamedTuple):
    """A process of a machine; several machines may share a name, so the connection counts too."""

    client: Client
    client_id: bytes
    proc_id: int


@handles(m.Tlock)
def lock(
    client: Client,
    tag: int,
    fid: int,
    type: int,  # noqa: A002 the protocol's name
    flags: int,
    start: int,
    length: int,
    proc_id: int,
    client_id: bytes,
) -> Reply:
    """A lock, or its release; a request that may block waits here until it is its turn."""
    held = client.get(fid)
    wanted = _lock_of(client, held, type, start, length, proc_id, client_id)
    locks = held.node.range_locks()
    if type == LOCK_TYPE_UNLCK:
        client.release(locks, wanted)
    elif client.acquire(locks, wanted) is not None:
        if flags & LOCK_FLAGS_BLOCK and client.state.free >= WAITING_BYTES:
            return _lock_when_free(client, tag, fid, locks, wanted)
        return m.Rlock.pack(tag, LOCK_BLOCKED)
    return m.Rlock.pack(tag, LOCK_SUCCESS)


async def _lock_when_free(
    client: Client, tag: int, fid: int, locks: RangeLocks, wanted: Lock
) -> bytes:
    """Try again whenever something is released, until ``lock_wait`` is over."""
    released = asyncio.Event()
    locks.waiters.append(released.set)
    client.state.take(WAITING_BYTES)
    try:
        async with asyncio.timeout(client.lock_wait):
            while client.get(fid) is wanted.handle:
                if client.acquire(locks, wanted) is None:
                    return m.Rlock.pack(tag, LOCK_SUCCESS)
                await released.wait()
                released.clear()
            refuse(errno.EBADF)
    except TimeoutError:
        return m.Rlock.pack(tag, LOCK_BLOCKED)
    finally:
        locks.waiters.remove(released.set)
        client.state.give(WAITING_BYTES)


@handles(m.Tgetlock)
def getlock(
    client: Client,
    tag: int,
    fid: int,
    type: int,  # noqa: A002 the protocol's name
    start: int,
    length: int,
    proc_id: int,
    client_id: bytes,
) -> Reply:
    """The lock that excludes this one; type "unlock" if there is none."""
    held = client.get(fid)
    wanted = _lock_of(client, held, type, start, length, proc_id, client_id)
    blocker = held.node.range_locks().conflict(wanted)
    if blocker is None:
        return m.Rgetlock.pack(tag, LOCK_TYPE_UNLCK, start, length, proc_id, client_id)
    kind = LOCK_TYPE_WRLCK if blocker.exclusive else LOCK_TYPE_RDLCK
    length = 0 if blocker.stop == FOREVER else blocker.stop - blocker.start
    owner = blocker.owner
    assert isinstance(owner, LockOwner)
    return m.Rgetlock.pack(tag, kind, blocker.start, length, owner.proc_id, owner.client_id)


def _lock_of(
    client: Client, fid: Fid, kind: int, start: int, length: int, proc_id: int, client_id: bytes
) -> Lock:
    """The lock that a request speaks of.

    Raises:
        OSError: EBADF, the fid is not open; EINVAL, no such type, or a range past 2^64;
            ENAMETOOLONG, a client's name that is longer than a host's may be.
    """
    if fid.flags is None:
        refuse(errno.EBADF)
    if len(client_id) > NAME_MAX:
        refuse(errno.ENAMETOOLONG)
    stop = start + length if length else FOREVER
    if kind > LOCK_TYPE_UNLCK or stop > FOREVER:
        refuse(errno.EINVAL)
    owner = LockOwner(client, client_id, proc_id)
    return Lock(start, stop, kind == LOCK_TYPE_WRLCK, owner, fid)
