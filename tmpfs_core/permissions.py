"""Permissions: what a caller may do with a node.

Rules of this file:

* Only who is ``checked`` is checked, and the rules are those of Linux' VFS (fs/namei.c,
  fs/attr.c, fs/xattr.c) for a file system of its own: root has all capabilities, everybody else
  none.  Its sysctls ``fs.protected_*`` are policy of a host and not part of them.
* Who is ``readonly`` is refused every change in one place, :func:`require_changes`.
* A function raises ``OSError(errno)`` or returns None; nothing here changes anything.
"""

import errno
import stat
from typing import Final

from . import acl
from .access import ROOT, Cred
from .errors import refuse
from .node import Node

#: What may be wanted of a node; to execute a directory is to search it.
READ: Final = 4
WRITE: Final = 2
EXECUTE: Final = 1

#: In place of a time: the present (UTIME_NOW of utimensat(2)); no message can tell this one.
NOW: Final = 1 << 100


def require_changes(cred: Cred) -> None:
    """Refuse (EROFS) who may change nothing."""
    if cred.readonly:
        refuse(errno.EROFS)


def require(node: Node, cred: Cred, wanted: int) -> None:
    """Refuse who may not do all of ``wanted`` (access(2)).

    Raises:
        OSError: EROFS, EACCES; EINVAL, the node's ACL is none.
    """
    if wanted & WRITE:
        require_changes(cred)
    if cred.checked and not _allows(node, cred, wanted):
        refuse(errno.EACCES)


def require_removal(directory: Node, node: Node, cred: Cred) -> None:
    """Refuse who may not take a name of ``node`` out of ``directory`` (unlink(2)).

    Raises:
        OSError: EPERM, the directory is sticky; else as :func:`require`.
    """
    require(directory, cred, WRITE | EXECUTE)
    if (
        cred.checked
        and directory.mode & stat.S_ISVTX
        and cred.uid not in (node.uid, directory.uid, ROOT.uid)
    ):
        refuse(errno.EPERM)


def require_device(cred: Cred) -> None:
    """Refuse (EPERM) who may not make a device (mknod(2))."""
    if cred.checked and cred.uid != ROOT.uid:
        refuse(errno.EPERM)


def require_attributes(
    node: Node,
    cred: Cred,
    *,
    mode: int | None,
    uid: int | None,
    gid: int | None,
    size: int | None,
    atime: int | None,
    mtime: int | None,
    writable: bool,
) -> None:
    """Refuse who may not set these attributes, those that are not None.

    ``writable``: he has it open for writing, so that he may change the size (ftruncate(2)).

    Raises:
        OSError: EROFS; EPERM, he does not own it, or does but is not in the group ``gid``;
            EACCES, he may not write it.
    """
    require_changes(cred)
    if not cred.checked:
        return
    if size is not None and not writable:
        require(node, cred, WRITE)
    if cred.uid == ROOT.uid:
        return
    if cred.uid == node.uid:
        if uid not in (None, node.uid):
            refuse(errno.EPERM)
        if gid is not None and gid != node.gid and not cred.in_group(gid):
            refuse(errno.EPERM)
        return
    if mode is not None or uid is not None or gid is not None:
        refuse(errno.EPERM)
    if size is None and atime == NOW and mtime == NOW:
        require(node, cred, WRITE)
    elif not {atime, mtime} <= ({None} if size is None else {None, NOW}):
        refuse(errno.EPERM)


def require_xattr(node: Node, cred: Cred, name: bytes, wanted: int) -> None:
    """Refuse who may not read (or write) the extended attribute (xattr(7)).

    Raises:
        OSError: EROFS; EPERM, it is not his to change; ENODATA, nor to see; EACCES, he may not
            read (or write) the node.
    """
    changes = bool(wanted & WRITE)
    if changes:
        require_changes(cred)
    if not cred.checked:
        return
    root = cred.uid == ROOT.uid
    if name.startswith(b"trusted."):
        if not root:
            refuse(errno.EPERM if changes else errno.ENODATA)
    elif name.startswith(b"user."):
        if changes and node.is_dir and node.mode & stat.S_ISVTX and not _owns(node, cred):
            refuse(errno.EPERM)
        require(node, cred, wanted)
    elif name == acl.DEFAULT and not node.is_dir:
        return  # there is none, and can not be any
    elif changes and not (_owns(node, cred) if name in (acl.ACCESS, acl.DEFAULT) else root):
        refuse(errno.EPERM)


def sees(cred: Cred, name: bytes) -> bool:
    """Whether an extended attribute is listed to him."""
    return not cred.checked or cred.uid == ROOT.uid or not name.startswith(b"trusted.")


def _owns(node: Node, cred: Cred) -> bool:
    return cred.uid in (node.uid, ROOT.uid)


def _allows(node: Node, cred: Cred, wanted: int) -> bool:
    """Whether he may, by owner, ACL, group or others; what root may beyond (capabilities(7))."""
    mode = node.mode
    value = None if node.xattrs is None else node.xattrs.get(acl.ACCESS)
    if cred.uid == node.uid:
        allowed = not wanted & ~(mode >> 6)
    elif value is not None and mode & stat.S_IRWXG:
        allowed = acl.allows(value, cred, node.gid, wanted)
    elif cred.in_group(node.gid):
        allowed = not wanted & ~(mode >> 3)
    else:
        allowed = not wanted & ~mode
    if allowed or cred.uid != ROOT.uid:
        return allowed
    return node.is_dir or not wanted & EXECUTE or bool(mode & 0o111)
