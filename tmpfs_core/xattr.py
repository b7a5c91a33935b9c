"""Extended attributes (xattr(7)), POSIX ACLs among them.

Rules of this file:

* Names and values are charged to the mount's blocks, a node's together rounded up to frames.
* The namespaces are Linux': ``user.`` (regular files and directories only), ``trusted.``,
  ``security.``, and of ``system.`` the two POSIX ACLs.
"""

import errno
import stat

from .directory import NAME_MAX
from .errors import refuse
from .frames import FRAME
from .node import Node, now

#: The largest value in bytes (XATTR_SIZE_MAX of <linux/limits.h>).
VALUE_MAX = 65536

ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")


def getxattr(node: Node, name: bytes) -> bytes:
    """The value of an attribute.

    Raises:
        OSError: ENODATA; EOPNOTSUPP, no such namespace.
    """
    _check_namespace(node, name)
    value = (node.xattrs or {}).get(name)
    if value is None:
        refuse(errno.ENODATA)
    return value


def listxattr(node: Node) -> bytes:
    """All names, each followed by a NUL."""
    return b"".join(name + b"\0" for name in node.xattrs or ())


def setxattr(
    node: Node, name: bytes, value: bytes, create: bool = False, replace: bool = False
) -> None:
    """Set an attribute; ``create``: it must be new, ``replace``: it must be there.

    Raises:
        OSError: EEXIST, ENODATA; ERANGE, bad length of the name; E2BIG, of the value;
            EOPNOTSUPP, EPERM: see :func:`_check_namespace`; ENOSPC.
    """
    _check_namespace(node, name)
    _check_user(node, name)
    if len(value) > VALUE_MAX:
        refuse(errno.E2BIG)
    xattrs = node.xattrs or {}
    if create and name in xattrs:
        refuse(errno.EEXIST)
    if replace and name not in xattrs:
        refuse(errno.ENODATA)
    _store(node, {**xattrs, name: value})


def removexattr(node: Node, name: bytes) -> None:
    """Remove an attribute.

    Raises:
        OSError: ENODATA; EOPNOTSUPP, no such namespace.
    """
    _check_namespace(node, name)
    _check_user(node, name)
    getxattr(node, name)
    _store(node, {key: value for key, value in (node.xattrs or {}).items() if key != name})


def _check_user(node: Node, name: bytes) -> None:
    """Refuse a change of a ``user.`` attribute on what can not have any: EPERM."""
    if name.startswith(b"user.") and not (stat.S_ISREG(node.mode) or node.is_dir):
        refuse(errno.EPERM)


def _check_namespace(node: Node, name: bytes) -> None:
    """Refuse what is no attribute's name.

    Raises:
        OSError: ERANGE, it is too long or lacks what follows the namespace; EOPNOTSUPP.
    """
    if not 0 < len(name) <= NAME_MAX:
        refuse(errno.ERANGE)
    namespace, dot, rest = name.partition(b".")
    if dot and namespace in (b"user", b"trusted", b"security"):
        if not rest or b"\0" in name:
            refuse(errno.EINVAL)
    elif name not in ACLS or stat.S_ISLNK(node.mode):
        refuse(errno.EOPNOTSUPP)


def _store(node: Node, xattrs: dict[bytes, bytes]) -> None:
    """Make these the node's attributes, if what they take fits."""
    size = sum(len(name) + len(value) for name, value in xattrs.items())
    frames = -(-size // FRAME)
    if frames > node.xattr_frames:
        node.mount.blocks.take(frames - node.xattr_frames)
    else:
        node.mount.blocks.give(node.xattr_frames - frames)
    node.xattr_frames = frames
    node.xattrs = xattrs or None
    node.ctime = now()
