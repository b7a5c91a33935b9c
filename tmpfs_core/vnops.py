"""vnops: the operations of the file system.

Rules of this file:

* An operation raises ``OSError(errno)`` as its man page has it and then has changed nothing.
  All checks come first, then accounting, then the change, which can not fail.
* Names are bytes.  Identity matters only through :mod:`.permissions` and :mod:`.access`; what
  those refuse (EACCES, EPERM, EROFS) is not repeated in each docstring here.
* Who calls holds the nodes it passes (see :func:`.node.vref`).
"""

import errno
import stat
from collections.abc import Iterator
from typing import Final

from . import acl, permissions, xattr
from . import vnode as vm
from .access import Cred, mode_after_write, without_foreign_sgid, without_privilege_bits
from .cargo import Cargo
from .directory import NAME_MAX, Dirent
from .errors import refuse
from .mount import Mount
from .node import DirNode, FileNode, Node, SymlinkNode, now, target_frames
from .permissions import EXECUTE, NOW, WRITE, require, require_removal
from .vnode import Vnode

PATH_MAX: Final = 4096
#: The largest size of a file, in bytes (off_t).
SIZE_MAX: Final = (1 << 63) - 1


# Names


def lookup(parent: Node, name: bytes, cred: Cred) -> Dirent:
    """The entry ``name`` of a directory.

    Raises:
        OSError: ENOTDIR, ENOENT; ENAMETOOLONG, EINVAL: no file can have that name.
    """
    if not isinstance(parent, DirNode):
        refuse(errno.ENOTDIR)
    if cred.checked:
        require(parent, cred, EXECUTE)
    entry = parent.entries.find(name)
    if entry is None:
        _check_name(name)
        refuse(errno.ENOENT)
    return entry


def create(parent: Node, name: bytes, mode: int, cred: Cred, gid: int) -> Dirent:
    """Make an empty regular file with permission bits ``mode`` (open(2) with O_CREAT|O_EXCL).

    Raises:
        OSError: see :func:`_new_place`; ENOSPC, no inode left.
    """
    directory = _new_place(parent, name, cred)
    mode, gid, acls = _inherited(directory, stat.S_IFREG | mode & 0o7777, cred, gid)
    _charge(directory.mount, xattr.frames_of(acls))
    node = FileNode(directory.mount, mode & 0o7777, cred.uid, gid)
    return _enter(directory, Dirent(name, node), acls)


def mkdir(parent: Node, name: bytes, mode: int, cred: Cred, gid: int) -> Dirent:
    """Make a directory (mkdir(2)); errors as :func:`create`, and:

    Raises:
        OSError: ENAMETOOLONG, there would be too many below one another.
    """
    directory = _new_place(parent, name, cred)
    _require_depth(directory, 0)
    mode, gid, acls = _inherited(directory, stat.S_IFDIR | mode & 0o7777, cred, gid)
    _charge(directory.mount, xattr.frames_of(acls))
    node = DirNode(directory.mount, mode & 0o7777, cred.uid, gid)
    node.entry.name = name
    return _enter(directory, node.entry, acls)


def symlink(parent: Node, name: bytes, target: bytes, cred: Cred, gid: int) -> Dirent:
    """Make a symbolic link (symlink(2)); errors as :func:`create`, and of the target:

    Raises:
        OSError: ENOENT, it is empty; ENAMETOOLONG; EINVAL, it holds a NUL.
    """
    if not target:
        refuse(errno.ENOENT)
    if len(target) >= PATH_MAX:
        refuse(errno.ENAMETOOLONG)
    if b"\0" in target:
        refuse(errno.EINVAL)
    directory = _new_place(parent, name, cred)
    _, gid, _ = _inherited(directory, stat.S_IFLNK, cred, gid)
    _charge(directory.mount, target_frames(target))
    return _enter(directory, Dirent(name, SymlinkNode(directory.mount, target, cred.uid, gid)), {})


def mknod(parent: Node, name: bytes, mode: int, rdev: int, cred: Cred, gid: int) -> Dirent:
    """Make a file of the type in ``mode`` (mknod(2)): regular, fifo, socket, char or block.

    Raises:
        OSError: EINVAL, another type; else as :func:`create`.
    """
    kind = stat.S_IFMT(mode)
    if kind in (0, stat.S_IFREG):
        return create(parent, name, mode, cred, gid)
    if kind not in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
        refuse(errno.EINVAL)
    directory = _new_place(parent, name, cred)
    if kind in (stat.S_IFIFO, stat.S_IFSOCK):
        rdev = 0
    elif kind == stat.S_IFBLK or rdev:
        permissions.require_device(cred)
    mode, gid, acls = _inherited(directory, kind | mode & 0o7777, cred, gid)
    _charge(directory.mount, xattr.frames_of(acls))
    return _enter(directory, Dirent(name, Node(directory.mount, mode, cred.uid, gid, rdev)), acls)


def link(node: Node, parent: Node, name: bytes, cred: Cred) -> Dirent:
    """Give ``node`` one more name (link(2)).

    Raises:
        OSError: EXDEV, of another mount; EPERM, a directory; ENOENT, it has no name any more; else
            as :func:`create`.
    """
    if node.mount is not parent.mount:
        refuse(errno.EXDEV)
    directory = _new_place(parent, name, cred)
    if node.is_dir:
        refuse(errno.EPERM)
    if not node.nlink:
        refuse(errno.ENOENT)
    directory.mount.inodes.take(1)
    node.ctime = now()
    return _enter(directory, Dirent(name, node), {})


def unlink(parent: Node, name: bytes, cred: Cred) -> None:
    """Take a name away from what is no directory (unlink(2)).

    Raises:
        OSError: EISDIR; else as :func:`lookup`.
    """
    if name in (b".", b".."):
        refuse(errno.EISDIR)
    entry = lookup(parent, name, cred)
    require_removal(parent, entry.node, cred)
    if entry.node.is_dir:
        refuse(errno.EISDIR)
    _remove(entry)


def rmdir(parent: Node, name: bytes, cred: Cred) -> None:
    """Remove an empty directory (rmdir(2)).

    Raises:
        OSError: ENOTDIR, ENOTEMPTY; EINVAL for ``.``, ENOTEMPTY for ``..``; else as
            :func:`lookup`.
    """
    if name in (b".", b".."):
        refuse(errno.EINVAL if name == b"." else errno.ENOTEMPTY)
    entry = lookup(parent, name, cred)
    require_removal(parent, entry.node, cred)
    if not entry.node.is_dir:
        refuse(errno.ENOTDIR)
    _remove(entry)


def remove(entry: Dirent, cred: Cred) -> None:
    """Take this name away, whatever it names (9P's remove).

    Raises:
        OSError: ENOENT, it is gone already; EBUSY, the root; ENOTEMPTY.
    """
    require_removal(parent_of(entry), entry.node, cred)
    _remove(entry)


def rename(entry: Dirent, parent: Node, name: bytes, cred: Cred) -> None:
    """Move ``entry`` to ``name`` in ``parent``, replacing what has that name (rename(2)).

    Raises:
        OSError: see :func:`require_rename`.
    """
    target = require_rename(entry, parent, name, cred)
    node, old_parent = entry.node, entry.parent
    if target is not None and target.node is node:
        return  # rename(2): two names of one file, or the same name; nothing happens
    assert old_parent is not None
    assert isinstance(parent, DirNode)
    if target is not None:
        _remove(target)
    old_parent.leave(entry)
    entry.name = name
    parent.enter(entry)
    node.ctime = now()


def require_rename(entry: Dirent, parent: Node, name: bytes, cred: Cred) -> Dirent | None:
    """Refuse a :func:`rename` that can not be; what has the new name already.

    Raises:
        OSError: EXDEV (to another mount), ENOENT, EBUSY, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL (into
            its own subtree, or a name that can not be), ENAMETOOLONG (the same, or too many
            directories below one another).
    """
    if entry.node.mount is not parent.mount:
        refuse(errno.EXDEV)
    old_parent = parent_of(entry)
    directory = _directory(parent)
    require(directory, cred, EXECUTE)
    if name in (b".", b".."):
        refuse(errno.EBUSY)
    _check_name(name)
    node = entry.node
    if isinstance(node, DirNode) and _is_inside(directory, node):
        refuse(errno.EINVAL)
    if isinstance(node, DirNode) and directory is not old_parent:
        _require_depth(directory, node.height)
    target = directory.entries.find(name)
    if target is not None and target.node is node:
        return target
    require_removal(old_parent, node, cred)
    if target is None:
        require(directory, cred, WRITE | EXECUTE)
    else:
        require_removal(directory, target.node, cred)
        if node.is_dir and not target.node.is_dir:
            refuse(errno.ENOTDIR)
        if target.node.is_dir and not node.is_dir:
            refuse(errno.EISDIR)
    if node.is_dir and directory is not old_parent:
        require(node, cred, WRITE)  # its ".." changes
    if target is not None:
        _require_empty(target.node)
    return target


def readdir(node: Node, cookie: int) -> Iterator[Dirent]:
    """The entries behind ``cookie`` (without ``.`` and ``..``, which own cookies 1 and 2).

    The directory must not change before the iteration ends.

    Raises:
        OSError: ENOTDIR.
    """
    if not isinstance(node, DirNode):
        refuse(errno.ENOTDIR)
    node.accessed()
    return node.entries.after(cookie)


def readlink(node: Node) -> bytes:
    """The target of a symbolic link.

    Raises:
        OSError: EINVAL, it is none.
    """
    if not isinstance(node, SymlinkNode):
        refuse(errno.EINVAL)
    node.accessed()
    return node.target


# Data


def open(node: Node) -> Vnode:  # noqa: A001 the field's name for it
    """The vnode of a regular file, to read and write it, until :func:`close`; who may do that is
    checked before, and no more once it is open.

    Raises:
        OSError: EISDIR, EINVAL (no regular file).
    """
    return _file(node).open()


def close(node: Node) -> None:
    """End what :func:`open` began."""
    _file(node).close()


def read(node: Node, offset: int, count: int) -> list[memoryview]:
    """Views of the live pages, one a block, of up to ``count`` bytes at ``offset``.

    Empty at and behind the end of the file.  Use or copy them before anything else happens.  The
    file is open.

    Raises:
        NotResident: some of it is in swap.
        OSError: EISDIR, EINVAL (no regular file); EIO, it was lost.
    """
    file = _file(node)
    assert file.vnode is not None
    memory = file.mount.memory
    most = memory.most(offset) if memory.frugal else memory.io_max
    wanted = min(count, file.size - offset, most)
    views = vm.read(file.vnode, offset, wanted) if wanted > 0 else []
    if count > 0:
        file.accessed()
    return views


def write(
    node: Node, offset: int, data: memoryview | Cargo, cred: Cred, append: bool = False
) -> int:
    """Store ``data`` at ``offset``, or at the end; how many bytes were stored.  The file is open.

    Raises:
        NotResident: some of what it changes is in swap, or RAM has to be freed for it.
        OSError: EISDIR, EINVAL (no regular file); EFBIG; ENOSPC, not one byte fits; EIO, what it
            would change in part was lost.
    """
    file = _file(node)
    assert file.vnode is not None
    if append:
        offset = file.size
    if not data:
        return 0
    if offset >= SIZE_MAX:
        refuse(errno.EFBIG)
    memory = file.mount.memory
    most = memory.most(offset) if memory.frugal else memory.io_max
    done = vm.write(file.vnode, offset, data, min(SIZE_MAX - offset, most))
    if not done:
        refuse(errno.ENOSPC)
    file.size = max(file.size, offset + done)
    file.mode = mode_after_write(file.mode, file.gid, cred)
    file.modified()
    return done


# Attributes


def setattr(  # noqa: A001 the field's name for it
    node: Node,
    cred: Cred,
    *,
    mode: int | None = None,
    uid: int | None = None,
    gid: int | None = None,
    size: int | None = None,
    atime: int | None = None,
    mtime: int | None = None,
    writable: bool = False,
) -> None:
    """Change attributes, all or none: what chmod, chown, truncate and utimensat(2) do.

    A time may be ``NOW``.  ``writable``: the caller has the file open for writing, so that he may
    change its size in any case (ftruncate(2)).

    Raises:
        NotResident: the block where it is cut is in swap.
        OSError: of the size: EISDIR, EINVAL (no regular file), EFBIG; see
            :func:`.permissions.require_attributes`.
    """
    file = None if size is None else _file(node)
    if cred.checked or cred.readonly:
        permissions.require_attributes(
            node,
            cred,
            mode=mode,
            uid=uid,
            gid=gid,
            size=size,
            atime=atime,
            mtime=mtime,
            writable=writable,
        )
    xattrs = node.xattrs
    if mode is not None and xattrs is not None and acl.ACCESS in xattrs:
        xattrs = {**xattrs, acl.ACCESS: acl.with_mode(xattrs[acl.ACCESS], mode)}
    if file is not None and size is not None:
        if size > SIZE_MAX:
            refuse(errno.EFBIG)
        if size < node.size:
            vm.truncate(file.uobj, file.vnode, size)
        node.size = size
        node.mode = mode_after_write(node.mode, node.gid, cred)
        node.modified()
    if (uid is not None or gid is not None) and not node.is_dir:
        node.mode = without_privilege_bits(node.mode, node.gid, cred)
    if uid is not None:
        node.uid = uid
    if gid is not None:
        node.gid = gid
    if mode is not None:
        mode = without_foreign_sgid(mode, node.gid, cred)
        node.mode = stat.S_IFMT(node.mode) | mode & 0o7777
        node.xattrs = xattrs
    node.ctime = now()
    if atime is not None:
        node.atime = node.ctime if atime == NOW else atime
    if mtime is not None:
        node.mtime = node.ctime if mtime == NOW else mtime


# What the operations share


def _file(node: Node) -> FileNode:
    """``node`` as a regular file."""
    if not isinstance(node, FileNode):
        refuse(errno.EISDIR if node.is_dir else errno.EINVAL)
    return node


def _directory(node: Node) -> DirNode:
    """``node`` as a directory that can take a new name."""
    if not isinstance(node, DirNode):
        refuse(errno.ENOTDIR)
    if not node.nlink:
        refuse(errno.ENOENT)
    return node


def _check_name(name: bytes) -> None:
    if len(name) > NAME_MAX:
        refuse(errno.ENAMETOOLONG)
    if not name or b"/" in name or b"\0" in name:
        refuse(errno.EINVAL)


def _new_place(parent: Node, name: bytes, cred: Cred) -> DirNode:
    """The directory in which ``name`` is free and may be made.

    Raises:
        OSError: ENOTDIR; ENOENT, the directory was removed; ENAMETOOLONG; EINVAL, empty or with
            a ``/`` or NUL; EEXIST.
    """
    directory = _directory(parent)
    require(directory, cred, EXECUTE)
    _check_name(name)
    if name in (b".", b"..") or directory.entries.find(name) is not None:
        refuse(errno.EEXIST)
    require(directory, cred, WRITE | EXECUTE)
    return directory


def _inherited(
    directory: DirNode, mode: int, cred: Cred, gid: int
) -> tuple[int, int, dict[bytes, bytes]]:
    """The mode, the group and the ACLs of a new file there that asks for these.

    A set-group-id directory gives its group (inode(7)).  Who is checked gets no group that he is
    not in otherwise, no set-group-id file of it, and what a default ACL says; for all others the
    clients' kernels see to that.

    Raises:
        OSError: EINVAL, the directory's default ACL is none.
    """
    if directory.mode & stat.S_ISGID:
        gid = directory.gid
        if stat.S_ISDIR(mode):
            mode |= stat.S_ISGID
        elif mode & stat.S_IXGRP:
            mode = without_foreign_sgid(mode, gid, cred)
    elif cred.checked and not cred.in_group(gid):
        gid = cred.gid
    default = (directory.xattrs or {}).get(acl.DEFAULT) if cred.checked else None
    if default is None or stat.S_ISLNK(mode):
        return mode, gid, {}
    mode, access = acl.inherited(default, mode)
    acls = {} if access is None else {acl.ACCESS: access}
    if stat.S_ISDIR(mode):
        acls[acl.DEFAULT] = default
    return mode, gid, acls


def _charge(mount: Mount, frames: int) -> None:
    """Charge a node, and what it takes besides, or nothing of both (ENOSPC)."""
    mount.inodes.take(1)
    try:
        mount.blocks.take(frames)
    except OSError:
        mount.inodes.give(1)
        raise


def _enter(directory: DirNode, entry: Dirent, acls: dict[bytes, bytes]) -> Dirent:
    """Make ``entry``, whose name is free, one of the directory; a new node gets the ACLs."""
    node = entry.node
    if acls:
        node.xattrs = acls
        node.xattr_frames = xattr.frames_of(acls)
    directory.enter(entry)
    node.nlink += 1
    return entry


def parent_of(entry: Dirent) -> DirNode:
    """The directory that holds ``entry``.

    Raises:
        OSError: EBUSY, it is the root; ENOENT, its name is gone.
    """
    if entry.parent is None:
        refuse(errno.EBUSY if entry.node is entry.node.mount.root else errno.ENOENT)
    return entry.parent


def _remove(entry: Dirent) -> None:
    """Take this name away; with the last one its node goes, or waits for its last holder.

    Raises:
        OSError: ENOTEMPTY.
    """
    parent, node = parent_of(entry), entry.node
    _require_empty(node)
    parent.leave(entry)
    node.ctime = now()
    if node.is_dir:
        node.nlink = 0
    else:
        node.nlink -= 1
        if node.nlink:
            node.mount.inodes.give(1)  # the further link's own
    if node.nlink:
        return
    if node.refs:
        node.mount.orphans[node.ino] = node
    else:
        node.free()


def _require_empty(node: Node) -> None:
    """Refuse (ENOTEMPTY) to remove a directory that holds something."""
    if isinstance(node, DirNode) and len(node.entries):
        refuse(errno.ENOTEMPTY)


def _require_depth(directory: DirNode, height: int) -> None:
    """Refuse to put a directory of this height here if that would be too deep: ENAMETOOLONG."""
    if directory.depth() + 1 + height > directory.mount.max_depth:
        refuse(errno.ENAMETOOLONG)


def _is_inside(directory: DirNode, ancestor: DirNode) -> bool:
    """Whether ``directory`` is ``ancestor`` or below it."""
    place: DirNode | None = directory
    while place is not None:
        if place is ancestor:
            return True
        place = place.entry.parent
    return False
