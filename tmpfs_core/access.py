"""Who a caller is, and what follows from it: the one place where identity changes an outcome.

The client's kernel has already checked permissions, with groups that this side can not know, so
a caller on a trusted mount is not second-guessed.  What stays here is what the owner of the data
has to decide itself.
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


ROOT = Cred(0)


def without_privilege_bits(mode: int) -> int:
    """``mode`` less set-user-id, and less set-group-id where it means execution (chown(2))."""
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode


def mode_after_write(mode: int, cred: Cred) -> int:
    """The mode of a file whose data ``cred`` changed: only root keeps suid and sgid (write(2))."""
    return mode if cred.uid == ROOT.uid else without_privilege_bits(mode)
