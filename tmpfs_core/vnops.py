"""vnops: the operations of the file system.

Rules of this file:

* An operation raises ``OSError(errno)`` as its man page has it and then has changed nothing.
  All checks come first, then accounting, then the change, which can not fail.
* Names are bytes.  Identity matters only through :mod:`.access`.
* Who calls holds the nodes it passes (see :func:`.node.vref`).
"""

import errno
import stat
from collections.abc import Iterator
from typing import Final

from . import vnode as vm
from .access import Cred, mode_after_write, without_privilege_bits
from .cargo import Cargo
from .directory import NAME_MAX, Dirent
from .errors import refuse
from .node import DirNode, FileNode, Node, SymlinkNode, now, target_frames
from .vnode import Vnode

PATH_MAX: Final = 4096
#: The largest size of a file, in bytes (off_t).
SIZE_MAX: Final = (1 << 63) - 1


# Names


def lookup(parent: Node, name: bytes) -> Dirent:
    """The entry ``name`` of a directory.

    Raises:
        OSError: ENOTDIR, ENOENT; ENAMETOOLONG, EINVAL: no file can have that name.
    """
    if not isinstance(parent, DirNode):
        refuse(errno.ENOTDIR)
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
    directory = _new_place(parent, name)
    directory.mount.inodes.take(1)
    gid = _inherited_gid(directory, gid)
    return _enter(directory, name, FileNode(directory.mount, mode & 0o7777, cred.uid, gid))


def mkdir(parent: Node, name: bytes, mode: int, cred: Cred, gid: int) -> Dirent:
    """Make a directory (mkdir(2)); errors as :func:`create`, and:

    Raises:
        OSError: ENAMETOOLONG, there would be too many below one another.
    """
    directory = _new_place(parent, name)
    _require_depth(directory, 0)
    directory.mount.inodes.take(1)
    mode = mode & 0o7777 | directory.mode & stat.S_ISGID
    node = DirNode(directory.mount, mode, cred.uid, _inherited_gid(directory, gid))
    node.entry.name = name
    directory.enter(node.entry)
    node.nlink += 1
    return node.entry


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
    directory = _new_place(parent, name)
    frames = target_frames(target)
    directory.mount.inodes.take(1)
    try:
        directory.mount.blocks.take(frames)
    except OSError:
        directory.mount.inodes.give(1)
        raise
    gid = _inherited_gid(directory, gid)
    return _enter(directory, name, SymlinkNode(directory.mount, target, cred.uid, gid))


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
    directory = _new_place(parent, name)
    directory.mount.inodes.take(1)
    if kind in (stat.S_IFIFO, stat.S_IFSOCK):
        rdev = 0
    mode = kind | mode & 0o7777
    gid = _inherited_gid(directory, gid)
    return _enter(directory, name, Node(directory.mount, mode, cred.uid, gid, rdev))


def link(node: Node, parent: Node, name: bytes) -> Dirent:
    """Give ``node`` one more name (link(2)).

    Raises:
        OSError: EPERM, a directory; ENOENT, it has no name any more; else as :func:`create`.
    """
    directory = _new_place(parent, name)
    if node.is_dir:
        refuse(errno.EPERM)
    if not node.nlink:
        refuse(errno.ENOENT)
    directory.mount.inodes.take(1)
    node.ctime = now()
    return _enter(directory, name, node)


def unlink(parent: Node, name: bytes) -> None:
    """Take a name away from what is no directory (unlink(2)).

    Raises:
        OSError: EISDIR; else as :func:`lookup`.
    """
    if name in (b".", b".."):
        refuse(errno.EISDIR)
    entry = lookup(parent, name)
    if entry.node.is_dir:
        refuse(errno.EISDIR)
    remove(entry)


def rmdir(parent: Node, name: bytes) -> None:
    """Remove an empty directory (rmdir(2)).

    Raises:
        OSError: ENOTDIR, ENOTEMPTY; EINVAL for ``.``, ENOTEMPTY for ``..``; else as
            :func:`lookup`.
    """
    if name in (b".", b".."):
        refuse(errno.EINVAL if name == b"." else errno.ENOTEMPTY)
    entry = lookup(parent, name)
    if not entry.node.is_dir:
        refuse(errno.ENOTDIR)
    remove(entry)


def remove(entry: Dirent) -> None:
    """Take this name away, whatever it names (9P's remove).

    Raises:
        OSError: ENOENT, it is gone already; EBUSY, the root; ENOTEMPTY.
    """
    parent = _parent_of(entry)
    _require_empty(entry.node)
    parent.leave(entry)
    _unlinked(entry.node)


def rename(entry: Dirent, parent: Node, name: bytes) -> None:
    """Move ``entry`` to ``name`` in ``parent``, replacing what has that name (rename(2)).

    Raises:
        OSError: ENOENT, EBUSY, ENOTDIR, EISDIR, ENOTEMPTY, EINVAL (into its own subtree, or a
            name that can not be), ENAMETOOLONG (the same, or too many directories below one
            another).
    """
    old_parent = _parent_of(entry)
    directory = _directory(parent)
    if name in (b".", b".."):
        refuse(errno.EBUSY)
    _check_name(name)
    node = entry.node
    if isinstance(node, DirNode) and _is_inside(directory, node):
        refuse(errno.EINVAL)
    if isinstance(node, DirNode) and directory is not old_parent:
        _require_depth(directory, node.height)
    target = directory.entries.find(name)
    if target is not None:
        if target.node is node:
            return  # rename(2): two names of one file, or the same name; nothing happens
        if node.is_dir and not target.node.is_dir:
            refuse(errno.ENOTDIR)
        if target.node.is_dir and not node.is_dir:
            refuse(errno.EISDIR)
        _require_empty(target.node)
        directory.leave(target)
        _unlinked(target.node)
    old_parent.leave(entry)
    entry.name = name
    directory.enter(entry)
    node.ctime = now()


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
    """The vnode of a regular file, to read and write it, until :func:`close`.

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
    file.mode = mode_after_write(file.mode, cred)
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
) -> None:
    """Change attributes, all or none: what chmod, chown, truncate and utimensat(2) do.

    Raises:
        NotResident: the block where it is cut is in swap.
        OSError: of the size: EISDIR, EINVAL (no regular file), EFBIG.
    """
    if size is not None:
        file = _file(node)
        if size > SIZE_MAX:
            refuse(errno.EFBIG)
        if size < node.size:
            vm.truncate(file.uobj, file.vnode, size)
        node.size = size
        node.mode = mode_after_write(node.mode, cred)
        node.modified()
    if uid is not None:
        node.uid = uid
    if gid is not None:
        node.gid = gid
    if (uid is not None or gid is not None) and not node.is_dir:
        node.mode = without_privilege_bits(node.mode)
    if mode is not None:
        node.mode = stat.S_IFMT(node.mode) | mode & 0o7777
    if atime is not None:
        node.atime = atime
    if mtime is not None:
        node.mtime = mtime
    node.ctime = now()


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


def _new_place(parent: Node, name: bytes) -> DirNode:
    """The directory in which ``name`` is free and may be made.

    Raises:
        OSError: ENOTDIR; ENOENT, the directory was removed; ENAMETOOLONG; EINVAL, empty or with
            a ``/`` or NUL; EEXIST.
    """
    directory = _directory(parent)
    _check_name(name)
    if name in (b".", b"..") or directory.entries.find(name) is not None:
        refuse(errno.EEXIST)
    return directory


def _inherited_gid(directory: DirNode, gid: int) -> int:
    """The group of a new file: the directory's where that is set-group-id (inode(7))."""
    return directory.gid if directory.mode & stat.S_ISGID else gid


def _enter(directory: DirNode, name: bytes, node: Node) -> Dirent:
    """Give ``node`` the name, which is free."""
    entry = Dirent(name, node)
    directory.enter(entry)
    node.nlink += 1
    return entry


def _parent_of(entry: Dirent) -> DirNode:
    """The directory that holds ``entry``."""
    if entry.parent is None:
        refuse(errno.EBUSY if entry.node is entry.node.mount.root else errno.ENOENT)
    return entry.parent


def _require_empty(node: Node) -> None:
    if isinstance(node, DirNode) and len(node.entries):
        refuse(errno.ENOTEMPTY)


def _require_depth(directory: DirNode, height: int) -> None:
    """Refuse to put a directory of this height here if that would be too deep: ENAMETOOLONG."""
    if directory.depth() + 1 + height > directory.mount.max_depth:
        refuse(errno.ENAMETOOLONG)


def _unlinked(node: Node) -> None:
    """``node`` lost a name; with the last one it goes, or waits for its last holder."""
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


def _is_inside(directory: DirNode, ancestor: DirNode) -> bool:
    """Whether ``directory`` is ``ancestor`` or below it."""
    place: DirNode | None = directory
    while place is not None:
        if place is ancestor:
            return True
        place = place.entry.parent
    return False
