"""Who a caller is, and which mode bits a change takes away because of who made it.

The client's kernel has already checked permissions, with groups that this side can not know, so
a caller on a trusted mount is not second-guessed.  One who is ``checked`` is: see
:mod:`.permissions`.  What stays here is what the owner of the data has to decide for both.
"""

import stat
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cred:
    """On whose behalf an operation runs.

    Attributes:
        uid, gid: the user, and the group that his new files get unless told otherwise.
        groups: the further groups that he is in.
        checked: whether permissions are checked here; else the client's kernel has.
        readonly: whether every change is refused.
    """

    uid: int
    gid: int = 0
    groups: frozenset[int] = frozenset()
    checked: bool = False
    readonly: bool = False

    def in_group(self, gid: int) -> bool:
        """Whether he is in the group; root counts as in each (capabilities(7): CAP_FSETID)."""
        return gid == self.gid or gid in self.groups or self.uid == ROOT.uid


ROOT = Cred(0)


def without_privilege_bits(mode: int, gid: int, cred: Cred) -> int:
    """``mode`` less set-user-id, and less set-group-id where it means execution (chown(2)).

    Who is checked loses set-group-id in any case unless he is in the file's group ``gid``, as
    since Linux 6.2 (fs/attr.c: setattr_should_drop_sgid).
    """
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP else without_foreign_sgid(mode, gid, cred)


def without_foreign_sgid(mode: int, gid: int, cred: Cred) -> int:
    """``mode`` less set-group-id if he is checked and not in the file's group (chmod(2))."""
    return mode & ~stat.S_ISGID if cred.checked and not cred.in_group(gid) else mode


def mode_after_write(mode: int, gid: int, cred: Cred) -> int:
    """The mode of a file whose data ``cred`` changed: only root keeps suid and sgid (write(2))."""
    return mode if cred.uid == ROOT.uid else without_privilege_bits(mode, gid, cred)
