"""POSIX ACLs: what the bytes of their extended attributes mean (acl(5)).

Rules of this file:

* The format is that of <linux/posix_acl_xattr.h>, the rules are those of fs/posix_acl.c.
* Permissions are three bits: 4 to read, 2 to write, 1 to execute or search.
"""

import errno
import re
import struct
from typing import Final

from .access import Cred
from .errors import refuse

#: The names of the attributes: who may do what with a file; what new files in a directory get.
ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"

VERSION: Final = struct.pack("<I", 2)
ENTRY: Final = struct.Struct("<HHI")

#: The tags of entries.
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
#: The order of the tags; who names users or groups needs a mask.
_ORDER: Final = re.compile(
    f"{chr(USER_OBJ)}({chr(USER)}*{chr(GROUP_OBJ)}{chr(GROUP)}*{chr(MASK)}|{chr(GROUP_OBJ)})"
    f"{chr(OTHER)}"
)
_UNNAMED: Final = 0xFFFFFFFF

Entry = tuple[int, int, int]


def parse(value: bytes) -> list[Entry]:
    """The entries of an ACL: tag, permissions, and the user or group that it names.

    Raises:
        OSError: EOPNOTSUPP, another version; EINVAL, it is no valid ACL.
    """
    head, body = value[: len(VERSION)], value[len(VERSION) :]
    if len(head) < len(VERSION) or len(body) % ENTRY.size:
        refuse(errno.EINVAL)
    if head != VERSION:
        refuse(errno.EOPNOTSUPP)
    entries: list[Entry] = list(ENTRY.iter_unpack(body))
    if not _ORDER.fullmatch("".join([chr(tag) for tag, _, _ in entries])):
        refuse(errno.EINVAL)
    for tag, permissions, named in entries:
        if permissions > 7 or (tag in (USER, GROUP) and named == _UNNAMED):
            refuse(errno.EINVAL)
    return entries


def allows(value: bytes, cred: Cred, gid: int, wanted: int) -> bool:
    """Whether the ACL of a file of the group ``gid`` gives all of ``wanted`` to who is not its
    owner (posix_acl_permission()).  Errors as :func:`parse`.
    """
    entries = parse(value)
    mask = 7
    for tag, permissions, _ in entries:
        if tag == MASK:
            mask = permissions
    member = False
    for tag, permissions, named in entries:
        if tag == USER and named == cred.uid:
            return not wanted & ~(permissions & mask)
        if tag in (GROUP_OBJ, GROUP) and cred.in_group(gid if tag == GROUP_OBJ else named):
            member = True
            if not wanted & ~permissions:
                return not wanted & ~mask
        if tag == OTHER and not member:
            return not wanted & ~permissions
    return False


def mode_of(value: bytes) -> tuple[int, bool]:
    """The nine permission bits that show an ACL, and whether they are all there is to it
    (posix_acl_equiv_mode()).  Errors as :func:`parse`.
    """
    by_tag = {tag: permissions for tag, permissions, _ in parse(value)}
    group = by_tag.get(MASK, by_tag[GROUP_OBJ])
    return by_tag[USER_OBJ] << 6 | group << 3 | by_tag[OTHER], len(by_tag) == 3


def with_mode(value: bytes, mode: int) -> bytes:
    """An ACL after chmod(2) to ``mode`` (posix_acl_chmod()); what is none stays as it is."""
    try:
        entries = parse(value)
    except OSError:
        return value
    new = {USER_OBJ: mode >> 6 & 7, OTHER: mode & 7}
    new[MASK if any(tag == MASK for tag, _, _ in entries) else GROUP_OBJ] = mode >> 3 & 7
    return VERSION + b"".join(
        [ENTRY.pack(tag, new.get(tag, permissions), named) for tag, permissions, named in entries]
    )


def inherited(default: bytes, mode: int) -> tuple[int, bytes | None]:
    """The mode, and the ACL if that says more, of a new file that asked for ``mode`` in a
    directory with this default ACL (posix_acl_create()).  Errors as :func:`parse`.
    """
    bits, plain = mode_of(default)
    mode &= ~0o777 | bits
    return mode, None if plain else with_mode(default, mode)
