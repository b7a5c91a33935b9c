"""Extended attributes (xattr(7)), POSIX ACLs among them.

Rules of this file:

* Names and values are charged to the mount's blocks, a node's together rounded up to frames.
* The namespaces are Linux': ``user.`` (regular files and directories only), ``trusted.``,
  ``security.``, and of ``system.`` the two POSIX ACLs.
"""

import errno
import stat
from typing import Final

from . import acl, permissions
from .access import Cred, without_foreign_sgid
from .directory import NAME_MAX
from .errors import refuse
from .frames import FRAME
from .node import Node, now

#: The largest value in bytes (XATTR_SIZE_MAX of <linux/limits.h>).
VALUE_MAX: Final = 65536

ACLS: Final = (acl.ACCESS, acl.DEFAULT)


def getxattr(node: Node, name: bytes, cred: Cred) -> bytes:
    """The value of an attribute.

    Raises:
        OSError: ENODATA; EOPNOTSUPP, no such namespace; see :func:`.permissions.require_xattr`.
    """
    _check_name(node, name, errno.ENODATA)
    permissions.require_xattr(node, cred, name, permissions.READ)
    value = (node.xattrs or {}).get(name)
    if value is None:
        refuse(errno.ENODATA)
    return value


def listxattr(node: Node, cred: Cred) -> bytes:
    """All names that the caller may see, each followed by a NUL."""
    return b"".join([name + b"\0" for name in node.xattrs or () if permissions.sees(cred, name)])


def setxattr(
    node: Node, name: bytes, value: bytes, cred: Cred, create: bool = False, replace: bool = False
) -> None:
    """Set an attribute; ``create``: it must be new, ``replace``: it must be there.

    An access ACL of who is checked sets the mode, too, and is kept if it says more than that; the
    clients' kernels do so for all others.

    Raises:
        OSError: EEXIST, ENODATA; ERANGE, bad length of the name; E2BIG, of the value;
            EOPNOTSUPP, EPERM: see :func:`_check_name`; EINVAL, no ACL; EACCES, a default ACL of
            what is no directory; ENOSPC; see :func:`.permissions.require_xattr`.
    """
    _check_name(node, name, errno.EPERM)
    if len(value) > VALUE_MAX:
        refuse(errno.E2BIG)
    permissions.require_xattr(node, cred, name, permissions.WRITE)
    if cred.checked and name in ACLS and value == acl.VERSION:  # an ACL without entries
        removexattr(node, name, cred)
        return
    if name == acl.DEFAULT and not node.is_dir:
        refuse(errno.EACCES)
    xattrs = node.xattrs or {}
    if create and name in xattrs:
        refuse(errno.EEXIST)
    if replace and name not in xattrs:
        refuse(errno.ENODATA)
    xattrs = {**xattrs, name: value}
    mode = node.mode
    if cred.checked and name in ACLS:
        bits, plain = acl.mode_of(value)
        if name == acl.ACCESS:
            mode = without_foreign_sgid(mode & ~0o777 | bits, node.gid, cred)
            if plain:
                del xattrs[name]
    _store(node, xattrs)
    node.mode = mode


def removexattr(node: Node, name: bytes, cred: Cred) -> None:
    """Remove an attribute; an ACL may also be there no more.

    Without an access ACL the mode is set anew, as with one (posix_acl_update_mode()).

    Raises:
        OSError: ENODATA; EOPNOTSUPP, no such namespace; see :func:`.permissions.require_xattr`.
    """
    _check_name(node, name, errno.EPERM)
    permissions.require_xattr(node, cred, name, permissions.WRITE)
    xattrs = node.xattrs or {}
    if name not in xattrs and name not in ACLS:
        refuse(errno.ENODATA)
    if name in xattrs:
        _store(node, {key: value for key, value in xattrs.items() if key != name})
    if name == acl.ACCESS:
        node.mode = without_foreign_sgid(node.mode, node.gid, cred)


def frames_of(xattrs: dict[bytes, bytes]) -> int:
    """How many frames are charged for attributes."""
    return -(-sum([len(name) + len(value) for name, value in xattrs.items()]) // FRAME)


def _check_name(node: Node, name: bytes, elsewhere: int) -> None:
    """Refuse what is no attribute's name.

    Raises:
        OSError: ERANGE, it is too long or lacks what follows the namespace; EOPNOTSUPP;
            ``elsewhere``, a ``user.`` attribute on what is neither a file nor a directory.
    """
    if not 0 < len(name) <= NAME_MAX:
        refuse(errno.ERANGE)
    namespace, dot, rest = name.partition(b".")
    if dot and namespace in (b"user", b"trusted", b"security"):
        if not rest or b"\0" in name:
            refuse(errno.EINVAL)
        if namespace == b"user" and not (stat.S_ISREG(node.mode) or node.is_dir):
            refuse(elsewhere)
    elif name not in ACLS or stat.S_ISLNK(node.mode):
        refuse(errno.EOPNOTSUPP)


def _store(node: Node, xattrs: dict[bytes, bytes]) -> None:
    """Make these the node's attributes, if what they take fits."""
    frames = frames_of(xattrs)
    if frames > node.xattr_frames:
        node.mount.blocks.take(frames - node.xattr_frames)
    else:
        node.mount.blocks.give(node.xattr_frames - frames)
    node.xattr_frames = frames
    node.xattrs = xattrs or None
    node.ctime = now()
