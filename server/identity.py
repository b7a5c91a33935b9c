"""Identity: who a client is, and on whose behalf its requests run."""

import os
import pwd
from dataclasses import dataclass

from tmpfs_core.access import Cred

from .exports import Export
from .wire.constants import NONUNAME

#: The user of a name that is nobody's here.
NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    Attributes:
        name: for the log.
    """

    name: str


def cred_of(peer: Peer, export: Export, uname: bytes, n_uname: int) -> Cred:
    """On whose behalf a peer acts that attaches to an export as this user (attach(5))."""
    return Cred(uid_of(uname, n_uname))


def uid_of(uname: bytes, n_uname: int) -> int:
    """Who attaches: the number if there is one, else the user of that name here, else nobody."""
    if n_uname != NONUNAME:
        return n_uname
    try:
        return pwd.getpwnam(os.fsdecode(uname)).pw_uid
    except (KeyError, ValueError):
        return NOBODY
